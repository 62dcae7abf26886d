"""What can go wrong, each with a default message in one line that says what to do.

DagstopError
├── DatabaseUrlError
│   ├── NoDatabaseUrlError
│   ├── UnsupportedDatabaseError
│   └── UrlFromCommandError
├── SettingError
├── ConnectError
│   ├── UnreachableError
│   ├── LoginError
│   ├── NoSuchDatabaseError
│   └── ReadOnlyError
└── InstallError
    ├── NotAirflowError
    ├── ServerError
    ├── MissingRightError
    ├── LaterReleaseError
    └── LockError
"""

from __future__ import annotations

import inspect


class DagstopError(Exception):
    """dagstop failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((inspect.getdoc(type(self)) or "").split()))


class DatabaseUrlError(DagstopError):
    """The database URL cannot be read: it must look like postgresql://user:password@host:port/database."""


class NoDatabaseUrlError(DatabaseUrlError):
    """No database URL: pass --database-url, set DAGSTOP_DATABASE_URL, or set AIRFLOW_HOME to an
    Airflow that is configured with one."""


class UnsupportedDatabaseError(DatabaseUrlError):
    """dagstop needs Airflow's metadata database to be PostgreSQL."""


class UrlFromCommandError(DatabaseUrlError):
    """Airflow gets its database URL from a command or a secrets backend, which dagstop does not run:
    pass --database-url."""


class SettingError(DagstopError):
    """A setting cannot have this value."""


class ConnectError(DagstopError):
    """Postgres refused the connection."""


class UnreachableError(ConnectError):
    """Postgres cannot be reached: check that it runs, and the host and port in the URL."""


class LoginError(ConnectError):
    """Postgres refused the login: check the user and the password in the URL."""


class NoSuchDatabaseError(ConnectError):
    """There is no such database on this server: check the name at the end of the URL."""


class ReadOnlyError(ConnectError):
    """This server is a standby, or this login may only read: connect to the primary."""


class InstallError(DagstopError):
    """The install failed and was rolled back."""


class NotAirflowError(InstallError):
    """This is not an Airflow database: dag_run, task_instance and alembic_version are not all there."""


class ServerError(InstallError):
    """This Postgres cannot take an install."""


class MissingRightError(InstallError):
    """A right is missing in the database: run this as the role that owns Airflow's tables."""


class LaterReleaseError(InstallError):
    """This database has a later release of dagstop: use that one."""


class LockError(InstallError):
    """Airflow's tables stayed locked by other sessions: nothing was changed, run this again later."""
