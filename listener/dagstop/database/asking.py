"""How a command or the page asks the database: each error is one line that says what to do."""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from dagstop.database.connection import connect, query
from dagstop.database.failures import READ_ONLY_LOGIN, connect_error, one_line, remedy
from dagstop.errors import DagstopError, InstallError, ReadOnlyError

NOT_INSTALLED = "dagstop is not installed in this database: run `dagstop install`"


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
            f"rights: connect as {names}, or, only to look, as a member of dagstop_listener"
        )
    if not _installed(connection):
        connection.close()
        raise InstallError(NOT_INSTALLED)
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
        if not _installed(connection):
            raise InstallError(NOT_INSTALLED) from exc
        do = f": {found['do']}" if (found := remedy(exc)) else ""
        raise DagstopError(f"The database refused query {name}: {one_line(exc, url)}{do}") from exc


def _installed(connection: Connection) -> bool:
    """Whether schema dagstop is there; True where the database does not answer."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("select pg_catalog.to_regnamespace('dagstop') is not null")
            row = cursor.fetchone()
    except psycopg2.Error:
        return True
    return bool(row and row[0])
