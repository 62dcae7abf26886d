"""What the commands share: options, connecting, and showing facts as JSON, table or plain text."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TypeVar

import click
import psycopg2
from psycopg2.extensions import connection as Connection

from dagstop.errors import DagstopError, InstallError, ReadOnlyError
from dagstop.logs import shown
from dagstop.outside.database import connect, query
from dagstop.outside.database_errors import READ_ONLY_LOGIN, connect_error, one_line
from dagstop.outside.database_url import find_database_url

Function = TypeVar("Function", bound=Callable[..., Any])

database_option = click.option(
    "--database-url",
    envvar="DAGSTOP_DATABASE_URL",
    metavar="URL",
    help="Airflow's metadata database; by default what Airflow itself is configured with.",
)
json_option = click.option(
    "--json", "as_json", envvar="DAGSTOP_JSON", is_flag=True, help="Print the facts as JSON."
)


def airflow_options(function: Function) -> Function:
    """The options that say which Airflow of this host, and which engines, are meant."""
    options = (
        click.option(
            "--airflow-home",
            "airflow_homes",
            envvar=["DAGSTOP_AIRFLOW_HOME", "AIRFLOW_HOME"],
            multiple=True,
            metavar="DIR",
            help="AIRFLOW_HOME of the Airflow on this host; again for each further one.",
        ),
        click.option(
            "--task-user",
            "task_users",
            envvar="DAGSTOP_TASK_USER",
            multiple=True,
            metavar="USER",
            help="A user (run_as_user) as whom tasks run, besides the owner of AIRFLOW_HOME.",
        ),
        click.option(
            "--same-database",
            "same_databases",
            envvar="DAGSTOP_SAME_DATABASE",
            multiple=True,
            metavar="URL",
            help="Another way in which Airflow's processes name the database, say through a pooler.",
        ),
        click.option(
            "--docker-url",
            "docker_urls",
            envvar=["DAGSTOP_DOCKER_URL", "DOCKER_HOST"],
            multiple=True,
            metavar="URL",
            help="Docker engine; again for each further one. [default: the local one]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def homes_of(airflow_homes: Sequence[str]) -> tuple[str, ...]:
    """The Airflow homes as absolute paths. Raises DagstopError if none is given or one is missing."""
    if not airflow_homes:
        raise DagstopError(
            "Which Airflow of this host? Set AIRFLOW_HOME or pass --airflow-home: "
            "dagstop must tell its processes from those of another Airflow"
        )
    for home in airflow_homes:
        if not os.path.isdir(home):
            raise DagstopError(f"--airflow-home {home} is no directory: name Airflow's own home")
    return tuple(os.path.abspath(home) for home in airflow_homes)


def url_of(option: str | None, homes: Sequence[str] = ()) -> str:
    """The database's URL in libpq's form. Raises DatabaseUrlError."""
    return find_database_url(option, os.environ, homes[0] if homes else None).url


def spellings(homes: Sequence[str]) -> tuple[str, ...]:
    """How the Airflows themselves write the URL: a pooler's port or another name for one database."""
    found: list[str] = []
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTOP_DATABASE_URL"}
    for home in homes:
        for env in (environment, {}):
            with suppress(DagstopError):
                found.append(find_database_url(None, env, home).url)
    return tuple(dict.fromkeys(found))


def open_database(url: str, name: str) -> Connection:
    """Connect for one command, with schema dagstop in place. Raises ConnectError, InstallError, DagstopError.

    Not as a superuser where Airflow's role is none: each command calls functions that this role may
    replace, and fires its triggers; no SET ROLE can keep such code from a superuser's rights.
    """
    try:
        connection = connect(url, f"dagstop {name}")
    except psycopg2.Error as exc:
        raise connect_error(exc, url) from exc
    if owners := ask(connection, url, "lesser_owners"):
        connection.close()
        names = ", ".join(repr(row["owner"]) for row in owners)
        raise DagstopError(
            f"Role {owners[0]['superuser']!r} is a superuser, and code of role {names} would run with its "
            f"rights: connect as {names}, or to look only as a member of dagstop_listener"
        )
    with connection.cursor() as cursor:
        cursor.execute("select pg_catalog.to_regnamespace('dagstop') is not null")
        row = cursor.fetchone()
    if not row or not row[0]:
        connection.close()
        raise InstallError("dagstop is not installed in this database: run `dagstop install`")
    return connection


def ask(connection: Connection, url: str, name: str, **values: Any) -> list[dict[str, Any]]:
    """A named query. Raises DagstopError in one line (a missing right, for one)."""
    try:
        return query(connection, name, **values)
    except psycopg2.errors.InsufficientPrivilege as exc:
        raise DagstopError(
            f"{one_line(exc, url)}: connect as the role that installed dagstop, or as a member of "
            "role dagstop_listener"
        ) from exc
    except psycopg2.errors.ReadOnlySqlTransaction as exc:
        raise ReadOnlyError(f"{one_line(exc, url)}: {READ_ONLY_LOGIN}") from exc
    except psycopg2.errors.ObjectInUse as exc:  # raised by dagstop's own functions only
        raise DagstopError(f"{one_line(exc, url)}: {exc.diag.message_hint}") from exc
    except psycopg2.Error as exc:
        raise DagstopError(f"The database refused query {name}: {one_line(exc, url)}") from exc


def print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """A table on a terminal, tab-separated lines in a pipe; hostile text is escaped in both."""
    if not rows:
        click.echo(empty)
        return
    most = 120 if sys.stdout.isatty() else 1000  # characters of a cell
    cells = [[shown("" if value is None else value, most) for value in row] for row in rows]
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    short = [width for width in widths if width <= _SHORT]
    left = console.width - sum(short) - 2 * len(columns)
    # short facts in one piece, if that leaves the long names room enough
    roomy = left >= _SHORT * (len(widths) - len(short))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", no_wrap=roomy and width <= _SHORT)
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(table)


_SHORT = 16
_STYLES = {
    "kill": "bold red",
    "spare": "yellow",
    "stopped": "green",
    "ok": "green",
    "installed": "green",
    "nothing_found": "dim",
    "spared": "yellow",
    "could_not_look": "bold red",
    "not_found": "yellow",
    "superseded": "yellow",
    "unkillable": "bold red",
    "failed": "bold red",
    "warning": "yellow",
    "open": "bold cyan",
    "orphan": "yellow",
}


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """A time as a person says it: `just now`, `3 s ago`, `2 h ago`."""
    if moment is None:
        return ""
    past = (now or datetime.now(timezone.utc)) - moment
    return "just now" if past.total_seconds() < 1 else f"{span(past)} ago"


def when(moment: datetime, now: datetime) -> str:
    """On a terminal, for a day, how long ago; else the time itself, which stays true in a file."""
    if sys.stdout.isatty() and (now - moment).total_seconds() < 86400:
        return ago(moment, now)
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S%z}"


def counted(number: int, what: str) -> str:
    """`1 process`, `2 processes`, `0 containers`."""
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")


def span(duration: Any) -> str:
    """A timedelta in its largest unit: `12 ms`, `3 s`, `5 min`, `2 h`, `4 d`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
