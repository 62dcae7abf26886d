"""What tells one metadata database from another: by server and name, however its URL is written."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import lru_cache

from dagstop.database.url import place_of
from dagstop.errors import DatabaseUrlError

_LOCAL = frozenset({"", "localhost", "::1"})

_OTHER_DATABASES = frozenset({"sqlite", "mysql", "mariadb", "mssql", "oracle"})


@lru_cache(maxsize=256)
def database_key(url: str) -> str | None:
    """`host:port/name` of a Postgres URL (`host:port,host:port/name` where it names several servers).

    This machine's names and sockets all read `local`. Of another database only the kind, which is
    enough to be another's. None for what names none (3.x: `airflow-db-not-allowed:///`).
    """
    kind = url.partition(":")[0].partition("+")[0].strip().lower()
    if kind in _OTHER_DATABASES:
        return f"{kind}:"
    try:
        place = place_of(url)
        servers = sorted({f"{_machine(host)}:{int(port)}" for host, port in place.servers})
    except (ValueError, DatabaseUrlError):
        return None
    return f"{','.join(servers)}/{place.database}"


def is_among(key: str, keys: Iterable[str]) -> bool:
    """Whether a key names one of these databases."""
    return any(_same(key, one) for one in keys)


def _same(one: str, other: str) -> bool:
    """The same name on a server that both name, say the primary."""
    servers, _, name = one.partition("/")
    others, _, other_name = other.partition("/")
    return name == other_name and not set(servers.split(",")).isdisjoint(others.split(","))


def _machine(host: str) -> str:
    host = host.lower()
    here = host in _LOCAL or host.startswith(("/", "@", "127.")) or host == socket.gethostname().lower()
    return "local" if here else host
