"""What Postgres says when a connection fails, as dagstop's errors: one line, never the password."""

from __future__ import annotations

import re

import psycopg2
from psycopg2 import errors

from dagstop.database.connection import Standby
from dagstop.database.url import HIDDEN, passwords, server_of
from dagstop.errors import ConnectError, LoginError, NoSuchDatabaseError, ReadOnlyError, UnreachableError

# libpq gives no SQLSTATE for a refused connection; a server in another language falls to the last line
_NO_LOGIN = re.compile(
    r"password authentication failed|no password supplied|no pg_hba.conf entry|authentication failed"
    r'|role "[^"]*" does not exist|role "[^"]*" is not permitted to log in|permission denied for database'
)
_NO_DATABASE = re.compile(r'database "([^"]*)" does not exist')
_ANSWERED = re.compile(r"FATAL|server closed the connection|SSL")
# what libpq says where target_session_attrs wants a primary
_READ_ONLY = re.compile(r"session is read-only|server is in hot standby mode")
_ATTEMPT = re.compile(r"connection to server (?:at|on) (.*?) failed: (.*)")
_PRIMARY = "connect to the primary"
READ_ONLY_LOGIN = "switch default_transaction_read_only off for this role and database"
"""What to do where a primary refuses to write."""


def connect_error(error: psycopg2.Error, url: str) -> ConnectError:
    """The ConnectError that tells why a connection to `url` was not made. Raise it `from` the original."""
    said = one_line(error, url)
    place = server_of(url)
    if isinstance(error, Standby):
        return ReadOnlyError(f"Postgres at {place} is a standby, which cannot be written to: {_PRIMARY}")
    if _READ_ONLY.search(said):
        return ReadOnlyError(f"Postgres at {place} cannot be written to ({said}): {_PRIMARY}")
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
    """The first line of what an error says, without libpq's preamble and without the password of `url`.

    Where several servers were tried: what each of them said.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    tried = [(match[1].replace('"', ""), match[2]) for line in lines if (match := _ATTEMPT.match(line))]
    if len({why for _, why in tried}) > 1:
        text = "; ".join(f"{where}: {why}" for where, why in tried)
    elif tried:
        text = tried[0][1]
    else:
        text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^(FATAL|ERROR):\s+", "", text) if not _ANSWERED.match(text) else text
    for password in passwords(url):
        text = text.replace(password, HIDDEN)
    return text


def remedy(exc: psycopg2.Error) -> dict[str, str]:
    """What an operator can do about it, where that is plain."""
    if isinstance(exc, errors.InvalidSchemaName | errors.UndefinedFunction | errors.UndefinedTable):
        # not there (or no more), or of an earlier release than this listener
        return {"do": "run `dagstop install`, of this release or a later one"}
    if isinstance(exc, Standby) or _READ_ONLY.search(str(exc)):
        return {"do": _PRIMARY}
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return {"do": READ_ONLY_LOGIN}
    if isinstance(exc, errors.InsufficientPrivilege):
        return {"do": exc.diag.message_hint or "grant dagstop_listener to this role"}
    return {}
