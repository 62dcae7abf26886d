"""What the commands share: options, connecting, and showing facts as JSON, table or plain text."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from functools import wraps
from typing import Any

import click

from dagstop.database.url import find_database_url
from dagstop.errors import DagstopError
from dagstop.logs import shown
from dagstop.words import ago, plain

database_option = click.option(
    "--database-url",
    envvar="DAGSTOP_DATABASE_URL",
    metavar="URL",
    help="URL of Airflow's metadata database. Default: the one that Airflow is configured with.",
)
json_option = click.option(
    "--json", "as_json", envvar="DAGSTOP_JSON", is_flag=True, help="Print the facts as JSON."
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which Airflow of this host, and which engines, are meant: the words of the options."""

    airflow_homes: tuple[str, ...]
    task_users: tuple[str, ...]
    same_databases: tuple[str, ...]
    docker_urls: tuple[str, ...]
    containers: tuple[str, ...]


def airflow_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say it; the command gets them as one argument, `chosen`."""

    @wraps(function)
    def command(**values: Any) -> None:
        chosen = Chosen(**{field.name: values.pop(field.name) for field in fields(Chosen)})
        function(chosen=chosen, **values)

    options = (
        click.option(
            "--airflow-home",
            "airflow_homes",
            envvar=["DAGSTOP_AIRFLOW_HOME", "AIRFLOW_HOME"],
            multiple=True,
            metavar="DIR",
            help="AIRFLOW_HOME of the Airflow on this host; repeatable.",
        ),
        click.option(
            "--task-user",
            "task_users",
            envvar="DAGSTOP_TASK_USER",
            multiple=True,
            metavar="USER",
            help="A user that tasks run as (run_as_user), besides the owner of AIRFLOW_HOME; repeatable.",
        ),
        click.option(
            "--same-database",
            "same_databases",
            envvar="DAGSTOP_SAME_DATABASE",
            multiple=True,
            metavar="URL",
            help="Another URL by which Airflow reaches the database, such as a pooler's; repeatable.",
        ),
        click.option(
            "--docker-url",
            "docker_urls",
            envvar=["DAGSTOP_DOCKER_URL", "DOCKER_HOST"],
            multiple=True,
            metavar="URL",
            help="URL of a Docker engine; repeatable. [default: the local one]",
        ),
        click.option(
            "--container",
            "containers",
            envvar="DAGSTOP_CONTAINER",
            multiple=True,
            metavar="KIND=PATTERN",
            help="Containers of this host in which this Airflow runs: compose=PROJECT, image=NAME,"
            " cgroup=PATH or kubernetes=NAMESPACE, with * and ?; repeatable. [default: none]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def homes_of(airflow_homes: Sequence[str], containers: Sequence[str] = ()) -> tuple[str, ...]:
    """The Airflow homes as absolute paths. Raises DagstopError if none is given or one is missing.

    containers: selectors; an Airflow that runs in containers only has no home on this host.
    """
    if not airflow_homes and not containers:
        raise DagstopError(
            "Set AIRFLOW_HOME or pass --airflow-home: "
            "dagstop must be able to tell this Airflow's processes from another's"
        )
    for home in airflow_homes:
        if not os.path.isdir(home):
            raise DagstopError(
                f"--airflow-home {home} is not a directory; pass the AIRFLOW_HOME that Airflow uses"
            )
    return tuple(os.path.abspath(home) for home in airflow_homes)


def uids(names: Sequence[str]) -> tuple[int, ...]:
    """Numbers of users by name or number. Raises DagstopError for one that does not exist."""
    found: list[int] = []
    for name in names:
        try:
            found.append(int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise DagstopError(f"--task-user {name}: there is no such user on this host") from None
    return tuple(found)


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


def print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2, default=plain))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str, *, whole: bool = False
) -> None:
    """A table on a terminal, tab-separated lines in a pipe; hostile text is escaped in both.

    whole: the text is dagstop's own, and a terminal shows all of it too.
    """
    if not rows:
        click.echo(empty)
        return
    most = 120 if sys.stdout.isatty() and not whole else 1000  # characters of a cell
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


def when(moment: datetime, now: datetime) -> str:
    """On a terminal, for a day, how long ago; else the time itself, which stays true in a file."""
    if sys.stdout.isatty() and (now - moment).total_seconds() < 86400:
        return ago(moment, now)
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S%z}"
