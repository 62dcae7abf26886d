"""`dagstop forget`: a host that is gone for good."""

from __future__ import annotations

import click

from dagstop.commands.common import database_option, url_of
from dagstop.database.asking import ask, open_database
from dagstop.errors import DagstopError
from dagstop.logs import shown


@click.command()
@click.argument("host", metavar="HOST")
@database_option
def forget(host: str, database_url: str | None) -> None:
    """Remove a host that is gone for good.

    `check`, `status` and the page no longer show it. Refused while its listener is running. Its reports
    stay in the history, and another login may use the host's name. If a listener starts there again, the
    host comes back.
    """
    url = url_of(database_url)
    connection = open_database(url, "forget")
    forgotten = ask(connection, url, "forget_host", host=host)[0]["forgotten"]
    known = [] if forgotten else ask(connection, url, "listeners")
    connection.close()
    if not forgotten:
        names = ", ".join(shown(row["host"]) for row in known) or "none at all"
        raise DagstopError(f"No listener of host {host!r} is known; known hosts: {names}")
    click.echo(f"{shown(host)} is forgotten")
