"""Postgres through psycopg2: connect so that a dead network is noticed, run named queries."""

from __future__ import annotations

import codecs
import select
import time
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import sql as composed
from psycopg2.extensions import connection as Connection

from dagstop import sql

CONNECT_TIMEOUT = 5
"""Seconds for one attempt to connect."""

_PATIENCE = "set local statement_timeout = '30s';\n"

_KEEPALIVE: Mapping[str, Any] = {
    # a black-holed network is noticed after about 5 s instead of after the kernel's two hours; not sooner: a
    # failover of switches or a live migration is over by then, and one packet in two seconds is nobody's load
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,  # milliseconds
}


def _moment(text: str | bytes | None, cursor: Any) -> Any:
    """A timestamptz; None for a year that Python cannot hold, which must not fail the other rows."""
    try:
        return psycopg2.extensions.PYDATETIMETZ(text, cursor)
    except ValueError:
        return None


_TIMESTAMPTZ = psycopg2.extensions.new_type((1184,), "timestamptz", _moment)


_ANY_BYTES = "dagstop_any_bytes"


def _find_codec(name: str) -> codecs.CodecInfo | None:
    """UTF-8 where it is that, and any other byte as Python has it in file names."""
    if name != _ANY_BYTES:
        return None
    return codecs.CodecInfo(
        lambda text, _="strict": codecs.utf_8_encode(text, "surrogateescape"),
        lambda data, _="strict": codecs.utf_8_decode(data, "surrogateescape", True),
        name=_ANY_BYTES,
    )


codecs.register(_find_codec)
# such a database has names in any encoding; as ASCII, one of them would spoil each answer that has it
psycopg2.extensions.encodings.update(SQL_ASCII=_ANY_BYTES, SQLASCII=_ANY_BYTES)


class Standby(psycopg2.OperationalError):
    """The server is a standby: what it says may be old, and nothing can be written to it."""


def connect(url: str, application_name: str) -> Connection:
    """An autocommit connection to a primary. Raises psycopg2.OperationalError (Standby is one).

    Nothing of its session is set: behind a pooler in transaction mode the next one to get it is Airflow.
    All but the encoding, which poolers keep for each client.
    """
    connection: Connection = psycopg2.connect(
        url,
        connect_timeout=CONNECT_TIMEOUT,
        application_name=application_name,
        client_encoding="UTF8",  # whatever PGCLIENTENCODING says, it has every letter
        **_KEEPALIVE,
    )
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        connection.set_client_encoding("SQL_ASCII")  # Postgres would refuse what is not UTF-8
    connection.autocommit = True
    try:
        if _in_recovery(connection):
            raise Standby("this server is a standby, which cannot be written to")
    except BaseException:
        connection.close()
        raise
    psycopg2.extensions.register_type(_TIMESTAMPTZ, connection)
    return connection


def _in_recovery(connection: Connection) -> bool:
    told = connection.info.parameter_status("in_hot_standby")
    if told is not None:
        return bool(told == "on")
    # Postgres 12 and 13 do not say it by themselves, nor do poolers
    return bool(query(connection, "in_recovery")[0]["in_recovery"])


def query(
    connection: Connection, name: str, *, file: str = "queries", airflow: str | None = None, **values: Any
) -> list[dict[str, Any]]:
    """The rows of a named query of sql/<file>.sql; `{airflow}` in it becomes Airflow's schema."""
    text = sql.queries(file)[name]
    if airflow is not None:
        text = composed.SQL(text).format(airflow=composed.Identifier(airflow)).as_string(connection)
    with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        # both in one message are one transaction, beyond which the setting does not live
        cursor.execute(_PATIENCE + text, values)
        return [dict(row) for row in cursor.fetchall()] if cursor.description else []


def call(connection: Connection, name: str, **values: Any) -> None:
    """A named call of a procedure that commits: alone in its message, or Postgres would refuse it."""
    with connection.cursor() as cursor:
        cursor.execute(sql.queries()[name], values)


def query_many(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    """A named query once for each row, a hundred to a round trip."""
    with connection.cursor() as cursor:
        psycopg2.extras.execute_batch(cursor, sql.queries()[name], rows, page_size=100)


_LONGEST = 86400.0  # seconds: poll(2) counts milliseconds in an int


def wait_readable(descriptors: Iterable[int], seconds: float | None) -> set[int]:
    """Wait until one of them can be read; None: for as long as it takes. Gives those that can.

    Not by select(2), which knows no descriptor beyond 1023: a thousand dying processes have one each.
    """
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    ready = poller.poll(None if seconds is None else min(seconds, _LONGEST) * 1000)
    return {descriptor for descriptor, _ in ready}


def round_trip(connection: Connection, url: str, channel: str, patience: float = 2.0) -> float | None:
    """Seconds that a NOTIFY took to reach `connection`, which listens to `channel`; None if it never came.

    It is sent from a second session: a pooler in transaction mode would hand the first one its own.
    """
    sender = connect(url, "dagstop round trip")
    try:
        begun = time.monotonic()
        with sender.cursor() as cursor:
            cursor.execute("select pg_notify(%s, '')", (channel,))
    finally:
        sender.close()
    while (left := begun + patience - time.monotonic()) > 0:
        connection.poll()
        if any(notice.channel == channel for notice in connection.notifies):
            return time.monotonic() - begun
        wait_readable([connection.fileno()], left)
    return None
