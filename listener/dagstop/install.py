"""Installing dagstop into Airflow's database and taking it out again, each in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeVar

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2 import errors as pg_errors
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

import dagstop
from dagstop import sql
from dagstop.errors import InstallError, LaterReleaseError, LockError, MissingRightError, ReadOnlyError
from dagstop.migrations.apply import run
from dagstop.outside import catalogue
from dagstop.outside.database_errors import READ_ONLY_LOGIN, connect_error, one_line
from dagstop.outside.database_url import normalise

APPLICATION_NAME = "dagstop install"
CONNECT_SECONDS = 10
LOCK_TIMEOUT = "2s"
# Between attempts other sessions go first: an install never makes Airflow queue behind it for long.
RETRY_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds

T = TypeVar("T")


@dataclass(frozen=True)
class Installed:
    """What an install found and did.

    `before` is the revision that was there, None at a first install. `triggers` are those that were
    missing, disabled or outdated, as `table.trigger`, where nothing else was to do.
    """

    changed: bool
    revision: str
    before: str | None
    airflow_schema: str
    triggers: tuple[str, ...]


def install(
    url: str, *, lock_timeout: str = LOCK_TIMEOUT, waits: tuple[float, ...] = RETRY_WAITS
) -> Installed:
    """Bring dagstop's schema to this release, and attach every trigger that is not as it should be.

    Where all is in place nothing is changed, and no lock is taken on Airflow's tables. Raises an
    InstallError (NotAirflowError, ServerError, MissingRightError, LockError, LaterReleaseError) with
    everything rolled back, a ConnectError, or a DatabaseUrlError.
    """

    def attempt(connection: Connection) -> Installed:
        schema = catalogue.airflow_schema(connection)
        before = _known_revision(connection)
        whole = not catalogue.missing_objects(connection)
        whole = whole and not catalogue.belongs_to_another(connection)
        if before == head() and whole:
            return _attach(connection, schema, before)
        catalogue.require_install_rights(connection, schema)
        if before == head():
            # a part was dropped by hand, or is another role's: the files make that good
            _run(connection, sql.INSTALL_FILES)
        else:
            command.upgrade(_config(connection), "head")
        return Installed(True, head(), before, schema, ())

    return _with_retries(url, attempt, lock_timeout, waits)


def heal(url: str, *, lock_timeout: str = LOCK_TIMEOUT, waits: tuple[float, ...] = RETRY_WAITS) -> Installed:
    """Attach every trigger that is not as it should be; never install or upgrade anything.

    Raises as `install` does, and an InstallError where this release is not installed whole.
    """

    def attempt(connection: Connection) -> Installed:
        schema = catalogue.airflow_schema(connection)
        before = _known_revision(connection)
        if before != head() or catalogue.missing_objects(connection):
            found = f"revision {before}, not {head()}" if before not in (None, head()) else "no whole schema"
            raise InstallError(f"Nothing was healed: found {found} of dagstop; run `dagstop install`")
        return _attach(connection, schema, before)

    return _with_retries(url, attempt, lock_timeout, waits)


def uninstall(url: str, *, lock_timeout: str = LOCK_TIMEOUT, waits: tuple[float, ...] = RETRY_WAITS) -> bool:
    """Take everything of dagstop's out of the database, of whichever release; whether there was anything.

    Raises as `install` does, but asks nothing of Airflow's tables.
    """

    def attempt(connection: Connection) -> bool:
        catalogue.pin(connection)
        found = catalogue.schema_exists(connection)
        if found:
            catalogue.require_schema_rights(connection)
            if catalogue.revision(connection) in _revisions():
                command.downgrade(_config(connection), "base")
            else:  # an install that broke off, or a later release's
                _run(connection, sql.UNINSTALL_FILES)
        _run(connection, (sql.DROP_SCHEMA_FILE,))
        return found

    return _with_retries(url, attempt, lock_timeout, waits)


def install_script() -> str:
    """What brings any database of Airflow's to this release, as a script for psql.

    It is the same for a first install and for an upgrade, and needs the search_path that Airflow uses.
    """
    return _script((*sql.INSTALL_FILES, sql.REVISION_FILE)).replace("{revision}", head())


def uninstall_script() -> str:
    """What `uninstall` runs, as a script for psql."""
    return _script((*sql.UNINSTALL_FILES, sql.DROP_SCHEMA_FILE))


def head() -> str:
    """The revision of the schema that this release of dagstop brings."""
    return _revisions()[0]


def _revisions() -> tuple[str, ...]:
    """All revisions that this release knows, the latest first."""
    scripts = ScriptDirectory.from_config(_config(None))
    return tuple(script.revision for script in scripts.walk_revisions())


def _known_revision(connection: Connection) -> str | None:
    """The revision that is installed. Raises LaterReleaseError where this release does not know it."""
    found = catalogue.revision(connection)
    if found is not None and found not in _revisions():
        raise LaterReleaseError(
            f"This database has revision {found} of dagstop's schema, later than this dagstop "
            f"{dagstop.__version__} knows ({head()}): use the release that brought it"
        )
    return found


def _attach(connection: Connection, schema: str, before: str) -> Installed:
    """Attach the triggers that are missing, disabled or outdated; all else is in place."""
    broken = catalogue.broken_triggers(connection, schema)
    if broken:
        catalogue.require_install_rights(connection, schema)
        _run(connection, (sql.LOCK_FILE, *sql.BOUND_FILES))
    return Installed(bool(broken), before, before, schema, broken)


def _run(connection: Connection, names: Iterable[str]) -> None:
    for name in names:
        run(connection, sql.script(name))


def _script(names: Iterable[str]) -> str:
    return "\n".join(("begin;\n", *map(sql.script, names), "commit;\n"))


def _config(connection: Connection | None) -> Config:
    config = Config()
    location = str(files("dagstop.migrations")).replace("%", "%%")
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _with_retries(
    url: str, attempt: Callable[[Connection], T], lock_timeout: str, waits: tuple[float, ...]
) -> T:
    """Run `attempt` in one transaction, again after each wait where others held a lock too long."""
    url = normalise(url)
    for wait in (*waits, None):
        try:
            with _transaction(url, lock_timeout) as connection:
                return attempt(connection)
        except DBAPIError as error:
            cause = error.orig
            if not isinstance(cause, pg_errors.LockNotAvailable | pg_errors.DeadlockDetected):
                raise _translated(error, url) from error
            if wait is None:
                raise LockError(_locked_message(len(waits) + 1, url)) from error
            time.sleep(wait)
    raise AssertionError("the last wait is None")


def _translated(error: DBAPIError, url: str) -> Exception:
    cause = error.orig
    if isinstance(cause, pg_errors.InsufficientPrivilege):
        return MissingRightError(
            f"{one_line(cause, url)}: run this as the role that owns Airflow's tables, or as a superuser"
        )
    if isinstance(cause, pg_errors.ReadOnlySqlTransaction):
        return ReadOnlyError(f"{one_line(cause, url)}: {READ_ONLY_LOGIN}")
    if isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError):
        return connect_error(cause, url)
    return InstallError(
        f"The database refused a step, everything was rolled back: {one_line(cause or error, url)}"
    )


@contextmanager
def _transaction(url: str, lock_timeout: str, *, exclusive: bool = True) -> Iterator[Connection]:
    engine = create_engine("postgresql+psycopg2://", creator=lambda: _connect(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            catalogue.require_server(connection)
            catalogue.ask(connection, "set_lock_timeout", value=lock_timeout)
            if exclusive:
                catalogue.ask(connection, "one_install_at_a_time")
            yield connection
    finally:
        engine.dispose()


def _connect(url: str) -> psycopg2.extensions.connection:
    try:
        return psycopg2.connect(url, application_name=APPLICATION_NAME, connect_timeout=CONNECT_SECONDS)
    except psycopg2.Error as error:
        raise connect_error(error, url) from error


def _locked_message(attempts: int, url: str) -> str:
    """Who holds Airflow's tables, if they still do: they may have let go in between."""
    holders: list[str] = []
    with suppress(DBAPIError), _transaction(url, LOCK_TIMEOUT, exclusive=False) as connection:
        holders = [
            f"pid {row.pid} ({row.name}, {row.state})" for row in catalogue.ask(connection, "lock_holders")
        ]
    by = f", held by {', '.join(holders)}" if holders else ""
    return (
        f"Airflow's tables stayed locked through {attempts} attempts{by}: nothing was changed, "
        "run this again when those sessions have ended"
    )
