"""What the listener knows of its own Airflow and of itself; what tells it from another Airflow."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qs, unquote, urlsplit

from dagstop.errors import DatabaseUrlError
from dagstop.model import Process
from dagstop.outside.database_url import normalise
from dagstop.outside.procfs import ProcFS

_LOCAL = frozenset({"", "localhost", "::1"})
_OTHER_DATABASES = frozenset({"sqlite", "mysql", "mariadb", "mssql", "oracle"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The facts that every verdict is held against."""

    homes: frozenset[str]  # AIRFLOW_HOME of our Airflows, as given and as real paths
    databases: frozenset[str]  # `database_key` of each spelling of the metadata database
    untouchable: frozenset[int]  # pids: 1, 2, the listener, its ancestors
    foreign_homes: frozenset[str] = frozenset()  # other Airflows seen on this host
    unread: str | None = None  # what of an Airflow here cannot be read: it may be another one

    def is_home(self, path: str) -> bool:
        return os.path.normpath(path) in self.homes or os.path.realpath(path) in self.homes


def survey(
    homes: Sequence[str], urls: Iterable[str], processes: Iterable[Process], proc: ProcFS, own: int
) -> Surroundings:
    """Look around: `homes` and `urls` are ours, the processes show whether others are here too."""
    ours = all_homes(homes)
    processes = list(processes)
    shown = {p.environ["AIRFLOW_HOME"] for p in processes if "AIRFLOW_HOME" in p.environ}
    keys = {key for url in urls if (key := database_key(url)) is not None}
    return Surroundings(
        homes=ours,
        databases=frozenset(keys),
        untouchable=frozenset({0, 1, 2, *ancestors(proc, own)}),
        foreign_homes=frozenset(path for path in shown if ours.isdisjoint(all_homes([path]))),
        unread=next((p.unread["environ"] for p in processes if _home_unread(p)), None),
    )


def _home_unread(process: Process) -> bool:
    known = process.label is not None and process.label.airflow_home is not None
    return "environ" in process.unread and not known


def all_homes(homes: Sequence[str]) -> frozenset[str]:
    return frozenset(path for home in homes for path in (os.path.normpath(home), os.path.realpath(home)))


def same_place(one: str, other: str) -> bool:
    """True if two paths are one, by whatever links."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def trusted_uids(homes: Sequence[str], more: Iterable[int] = ()) -> frozenset[int]:
    """The users as whom our Airflow runs: the owners of its homes, and those named by option."""
    found = set(more)
    for home in homes:
        try:
            found.add(os.stat(home).st_uid)
        except OSError:
            continue
    if os.geteuid() != 0:
        found.add(os.geteuid())
    return frozenset(found)


def ancestors(proc: ProcFS, pid: int) -> set[int]:
    """A pid and all its ancestors."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        stat = proc.stat(pid)
        pid = stat.ppid if stat is not None else 0
    return found


@lru_cache(maxsize=256)
def database_key(url: str) -> str | None:
    """`host:port/name` of a Postgres URL, so that two spellings of one database compare equal.

    This machine's names and sockets all read `local`. Of another database only the kind, which is
    enough to be another's. None for what names none (3.x: `airflow-db-not-allowed:///`).
    """
    kind = url.partition(":")[0].partition("+")[0].strip().lower()
    if kind in _OTHER_DATABASES:
        return f"{kind}:"
    try:
        parts = urlsplit(normalise(url))
        query = parse_qs(parts.query)
        port = int(query["port"][0]) if "port" in query else parts.port or 5432
    except (ValueError, DatabaseUrlError):
        return None
    host = unquote((query.get("host") or [parts.hostname or ""])[0]).lower()
    if host in _LOCAL or host.startswith(("/", "127.")) or host == socket.gethostname().lower():
        host = "local"
    return f"{host}:{port}/{unquote(parts.path.lstrip('/'))}"
