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
from dagstop.database.failures import READ_ONLY_LOGIN, connect_error, one_line
from dagstop.database.url import normalise
from dagstop.errors import (
    ConnectError,
    InstallError,
    LaterReleaseError,
    LockError,
    MissingRightError,
    ReadOnlyError,
)
from dagstop.install import catalogue
from dagstop.migrations.apply import WITHOUT_AIRFLOW, run, run_as_it_is

APPLICATION_NAME = "dagstop install"
CONNECT_SECONDS = 10
LOCK_TIMEOUT = "2s"
REFUSED = "DS001"  # the SQLSTATE of 01_refuse.sql
# Between attempts other sessions go first: an install never makes Airflow queue behind it for long.
RETRY_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds

T = TypeVar("T")


@dataclass(frozen=True)
class Installed:
    """What an install found and did.

    `before` is the revision that was there, None at a first install. `healed` is what was not as it
    should be, where that revision was this release's: triggers as `table.trigger`, objects, owners, grants.
    """

    changed: bool
    revision: str
    before: str | None
    airflow_schema: str
    healed: tuple[str, ...]


def install(
    url: str,
    *,
    published: bool = False,
    lock_timeout: str = LOCK_TIMEOUT,
    waits: tuple[float, ...] = RETRY_WAITS,
) -> Installed:
    """Bring dagstop's schema to this release, and put right whatever of it is not as it should be.

    Where all is in place nothing is changed, and no lock is taken on Airflow's tables. `published`: also
    where a publication FOR ALL TABLES takes dagstop's tables along. Raises an InstallError (NotAirflowError,
    ServerError, MissingRightError, LockError, LaterReleaseError) with everything rolled back, a
    ConnectError, or a DatabaseUrlError.
    """

    def attempt(connection: Connection) -> Installed:
        schema, before = _begin(connection, published)
        if before != head():
            command.upgrade(_config(connection), "head")
            return Installed(True, head(), before, schema, ())
        lacking = catalogue.lacking(connection, schema)
        healed = tuple(row.what for row in lacking)
        if not any(row.kind == "object" for row in lacking):
            healed += catalogue.broken_triggers(connection, schema)
        if healed:
            _run(connection, sql.INSTALL_FILES)
        return Installed(bool(healed), head(), before, schema, healed)

    return _with_retries(url, attempt, lock_timeout, waits)


def heal(url: str, *, lock_timeout: str = LOCK_TIMEOUT, waits: tuple[float, ...] = RETRY_WAITS) -> Installed:
    """Attach every trigger that is not as it should be; never install or upgrade anything.

    Raises as `install` does, and an InstallError where this release is not installed whole.
    """

    def attempt(connection: Connection) -> Installed:
        schema, before = _begin(connection, published=False)
        if before != head() or any(row.kind == "object" for row in catalogue.lacking(connection, schema)):
            found = f"revision {before}, not {head()}" if before not in (None, head()) else "no whole schema"
            raise InstallError(f"Nothing was healed: found {found} of dagstop; run `dagstop install`")
        healed = catalogue.broken_triggers(connection, schema)
        if healed:
            _run(connection, sql.INSTALL_FILES)  # all: a trigger calls functions, which may be others' by now
        return Installed(bool(healed), before, before, schema, healed)

    return _with_retries(url, attempt, lock_timeout, waits)


def uninstall(
    url: str,
    *,
    cascade: bool = False,
    lock_timeout: str = LOCK_TIMEOUT,
    waits: tuple[float, ...] = RETRY_WAITS,
) -> bool:
    """Remove everything that dagstop, of any release, has in the database; True if there was anything.

    `cascade`: also drop others' objects that depend on dagstop's; otherwise an InstallError names them.
    Raises as `install` does, but asks nothing of Airflow's tables.
    """

    def attempt(connection: Connection) -> bool:
        found = catalogue.schema_exists(connection)
        catalogue.require_schema_rights(connection)
        _run(connection, sql.UNINSTALL_FILES, **_cascading(cascade))
        return found

    return _with_retries(url, attempt, lock_timeout, waits)


def install_script(*, published: bool = False) -> str:
    """The script for psql that brings any Airflow database to this release.

    It is the same for a first install and for an upgrade, and needs the search_path that Airflow uses.
    """
    names = (sql.PIN_FILE, sql.REFUSE_FILE, *sql.INSTALL_FILES, sql.REVISION_FILE)
    return _script(names, **_refusing(published))


def uninstall_script(*, cascade: bool = False) -> str:
    """What `uninstall` runs, as a script for psql."""
    return _script((sql.PIN_FILE, *sql.UNINSTALL_FILES), **_cascading(cascade))


def _refusing(published: bool) -> dict[str, str]:
    return {"revision": head(), "published": "on" if published else "off"}


def _cascading(cascade: bool) -> dict[str, str]:
    return {"cascade": "cascade" if cascade else "restrict"}


def _begin(connection: Connection, published: bool) -> tuple[str, str | None]:
    """The schema of Airflow's tables and the revision that is installed, with nothing changed yet.

    Raises an InstallError where an install must not go on.
    """
    schema = catalogue.airflow_schema(connection)
    catalogue.require_install_rights(connection, schema)
    _run(connection, (sql.REFUSE_FILE,), **_refusing(published))
    return schema, _known_revision(connection)


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


def _run(connection: Connection, names: Iterable[str], **values: str) -> None:
    for name in names:
        run(connection, sql.script(name, **values))


def _script(names: Iterable[str], **values: str) -> str:
    return "\n".join(("begin;\n", *(sql.script(name, **values) for name in names), "commit;\n"))


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
                # two installs at once take turns. But any role may hold this lock without end, so the last
                # attempt goes on without it: the worst that two installs do to each other is a rollback
                if not catalogue.ask(connection, "one_install_at_a_time")[0][0] and wait is not None:
                    time.sleep(wait)
                    continue
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
    if isinstance(cause, psycopg2.Error) and cause.pgcode == REFUSED:
        return InstallError(f"Nothing was changed: {one_line(cause, url)}. {cause.diag.message_hint}")
    if isinstance(cause, psycopg2.Error) and (trigger := _event_trigger(cause, url)):
        return InstallError(
            f"Nothing was changed: event trigger {trigger} ended the install ({one_line(cause, url)}). "
            f"Have a superuser run `alter event trigger {trigger} disable`, and enable it again afterwards"
        )
    if isinstance(cause, pg_errors.DependentObjectsStillExist):
        depend = "; ".join((cause.diag.message_detail or "").splitlines())
        return InstallError(
            f"Nothing was changed: others' objects depend on dagstop's: {depend}. "
            "Either drop them first, or pass --cascade to drop them too"
        )
    if isinstance(cause, pg_errors.InsufficientPrivilege):
        return MissingRightError(
            f"{one_line(cause, url)}: run this as the role that owns Airflow's tables, or as a superuser"
        )
    if isinstance(cause, pg_errors.ReadOnlySqlTransaction):
        return ReadOnlyError(f"{one_line(cause, url)}: {READ_ONLY_LOGIN}")
    if isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError):
        return connect_error(cause, url)
    return InstallError(
        f"The database rejected a statement, and everything was rolled back: {one_line(cause or error, url)}"
    )


def _event_trigger(cause: psycopg2.Error, url: str) -> str | None:
    """The event trigger in whose function an error came up; it has its own rights and its own words."""
    context = cause.diag.context or ""
    if not context:
        return None
    with suppress(DBAPIError, ConnectError), _transaction(url, LOCK_TIMEOUT) as connection:
        for row in catalogue.ask(connection, "event_triggers"):
            if f"{row.function}(" in context:
                return str(row.name)
    return None


@contextmanager
def _transaction(url: str, lock_timeout: str) -> Iterator[Connection]:
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: _connect(url),
        poolclass=NullPool,
        use_native_hstore=False,  # that asks the catalogue under whatever search_path there is
    )
    try:
        with engine.begin() as connection:
            _pin(connection)
            catalogue.require_server(connection)
            catalogue.ask(connection, "set_lock_timeout", value=lock_timeout)
            yield connection
    finally:
        engine.dispose()


def _pin(connection: Connection) -> None:
    run_as_it_is(connection, f"{sql.script(sql.PIN_FILE)}\n{WITHOUT_AIRFLOW}")


def _connect(url: str) -> psycopg2.extensions.connection:
    try:
        connection = psycopg2.connect(url, application_name=APPLICATION_NAME, connect_timeout=CONNECT_SECONDS)
        with connection.cursor() as cursor:  # SQLAlchemy's own questions come first, in the same transaction
            cursor.execute(sql.script(sql.PIN_FILE))
        return connection
    except psycopg2.Error as error:
        raise connect_error(error, url) from error


def _locked_message(attempts: int, url: str) -> str:
    """Who holds Airflow's tables, if they still do: they may have let go in between."""
    holders: list[str] = []
    with suppress(DBAPIError), _transaction(url, LOCK_TIMEOUT) as connection:
        holders = [
            f"pid {row.pid} ({row.name}, {row.state})" for row in catalogue.ask(connection, "lock_holders")
        ]
    by = f", held by {', '.join(holders)}" if holders else ""
    return (
        f"Airflow's tables stayed locked through {attempts} attempts{by}: nothing was changed, "
        "run this again once those sessions have ended"
    )
