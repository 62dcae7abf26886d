"""`dagstop page`: what all listeners know, over HTTP."""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

import click

import dagstop
from dagstop import logs
from dagstop.commands.common import database_option, url_of
from dagstop.database.url import redact
from dagstop.errors import DagstopError
from dagstop.logs import event, log
from dagstop.page.address import address_of, token_of, url_at


@click.command()
@database_option
@click.option(
    "--http",
    default="8321",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to serve on; PORT alone means this host only.",
)
@click.option(
    "--http-token",
    metavar="TOKEN",
    help="Token that clients must send. Prefer DAGSTOP_HTTP_TOKEN: options show in the process list.",
)
@click.option("--http-token-file", metavar="FILE", help="Read the token from this file.")
def page(database_url: str | None, http: str, http_token: str | None, http_token_file: str | None) -> None:
    """Serve a web page, /metrics and /healthz.

    They show what all listeners of the database know. Runs in the foreground until SIGTERM. It needs no
    rights on the host, only a listener's database login: run it as its own user, on any host.
    """
    from dagstop.page.facts import Here, Source
    from dagstop.page.server import Server

    logs.start(verbose=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    url = url_of(database_url)
    address = address_of(http)
    token = token_of(http_token, http_token_file, address)
    try:
        bound = address.bind()
    except OSError as exc:
        raise DagstopError(f"--http {http} cannot be served: {exc.strerror}") from exc
    if os.geteuid() == 0:
        log.warning(event("page runs as root", do="run it as another user; it needs no rights"))
    source = Source(url, Here(socket.gethostname(), dagstop.__version__, redact(url)))
    log.info(event("page", at=url_at(bound), token=bool(token)))
    Server(bound, source, token).serve_forever()


def _end(*_: object) -> NoReturn:
    os._exit(0)  # a request under way may wait for the database; nothing is lost with it
