"""The page's process; started by `keeper.py` only."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time

from dagstop import logs
from dagstop.errors import DagstopError
from dagstop.logs import event, log
from dagstop.page import rights

SOON, SELDOM = 5.0, 30.0
"""Seconds without a connection after which this process makes way for a new one, which may be let in since it
has rights still (a password in root's files, peer authentication): one that had been connected, and one that
could not be at its start either."""


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # its end is the listener's end
    rights.yield_to_the_listener()
    from dagstop.page.facts import Here, Source
    from dagstop.page.keeper import AGAIN
    from dagstop.page.server import Server

    logs.start(verbose=False)
    letter = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_listener, name="parent", daemon=True).start()
    source = Source(letter["database_url"], Here(**letter["here"]))
    connected = True
    try:
        source.connect()  # as root still: Postgres may let in nobody else
    except DagstopError as exc:
        connected = False
        log.warning(event("page has no database", why=exc))

    def leave() -> None:
        since = source.failed_since
        if since is not None and time.monotonic() - since > (SOON if connected else SELDOM):
            os._exit(AGAIN)

    server = Server(socket.socket(fileno=letter["socket"]), source, letter["token"], leave)
    rights.drop()
    server.serve_forever()


def _end_with_the_listener() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except DagstopError as exc:
        log.error(event("page not served", why=exc))
        sys.exit(1)
