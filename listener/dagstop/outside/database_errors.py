"""What Postgres says when a connection fails, as dagstop's errors: one line, never the password."""

from __future__ import annotations

import re

import psycopg2
from psycopg2 import errors

from dagstop.errors import ConnectError, LoginError, NoSuchDatabaseError, UnreachableError
from dagstop.outside.database_url import HIDDEN, passwords, server_of

# libpq gives no SQLSTATE for a refused connection; a server in another language falls to the last line
_NO_LOGIN = re.compile(
    r"password authentication failed|no password supplied|no pg_hba.conf entry|authentication failed"
    r'|role "[^"]*" does not exist|role "[^"]*" is not permitted to log in|permission denied for database'
)
_NO_DATABASE = re.compile(r'database "([^"]*)" does not exist')
_ANSWERED = re.compile(r"FATAL|server closed the connection|SSL")


def connect_error(error: psycopg2.Error, url: str) -> ConnectError:
    """The ConnectError that tells why a connection to `url` was not made. Raise it `from` the original."""
    said = one_line(error, url)
    place = server_of(url)
    if match := _NO_DATABASE.search(said):
        return NoSuchDatabaseError(
            f"Postgres at {place} has no database {match[1]!r}: check the name at the end of the URL"
        )
    if _NO_LOGIN.search(said):
        return LoginError(f"Postgres at {place} refused the login: {said}")
    if _ANSWERED.search(said):
        return ConnectError(f"Postgres at {place} refused the connection: {said}")
    return UnreachableError(
        f"Postgres at {place} cannot be reached: check that it runs, "
        f"and the host and port in the URL ({said})"
    )


def one_line(error: BaseException, url: str) -> str:
    """The first line of what an error says, without libpq's preamble and without the password of `url`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^connection to server (at|on) [^:]*?(?:, port \d+)? failed: ", "", text)
    text = re.sub(r"^(FATAL|ERROR):\s+", "", text) if not _ANSWERED.match(text) else text
    for password in passwords(url):
        text = text.replace(password, HIDDEN)
    return text


def remedy(exc: psycopg2.Error) -> dict[str, str]:
    """What an operator can do about it, where that is plain."""
    if isinstance(exc, errors.InvalidSchemaName | errors.UndefinedFunction | errors.UndefinedTable):
        # not there (or no more), or of an earlier release than this listener
        return {"do": "run `dagstop install`, of this release or a later one"}
    if isinstance(exc, errors.InsufficientPrivilege):
        return {"do": exc.diag.message_hint or "grant dagstop_listener to this role"}
    return {}
