"""What the listener knows of its own Airflow and of itself; what tells it from another Airflow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from dagstop.database.key import database_key, is_among
from dagstop.database.url import comes_from_elsewhere, find_database_url
from dagstop.errors import DatabaseUrlError
from dagstop.evidence.place import Place
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Label, Process, Role

DATABASE_VARIABLES = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN")
_MOST_CONFIG = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Site:
    """The facts that every verdict is held against."""

    homes: frozenset[str]  # AIRFLOW_HOME of our Airflows, as given and as real paths
    databases: frozenset[str]  # `database_key` of each spelling of the metadata database
    untouchable: frozenset[int]  # pids: 1, 2, the listener, its ancestors
    foreign_homes: frozenset[str] = frozenset()  # other Airflows that may be in the listener's pid namespace
    homes_elsewhere: frozenset[str] = frozenset()  # those that surely are in others
    unread: str | None = None  # what of an Airflow here cannot be read: it may be another one
    other_airflows: frozenset[str] = frozenset()  # those of them that are known to use another database
    places: Mapping[Identity, Place] = field(default_factory=dict)  # containers, by their init
    lives_here: bool = False  # an Airflow of ours runs in the listener's own pid namespace

    def is_home(self, path: str) -> bool:
        return os.path.normpath(path) in self.homes or os.path.realpath(path) in self.homes

    def may_be_ours(self, label: Label) -> bool:
        """False for what names another AIRFLOW_HOME or metadata database."""
        home = label.airflow_home is None or self.is_home(label.airflow_home)
        return home and (label.database is None or self.is_database(label.database))

    def is_database(self, key: str) -> bool:
        return is_among(key, self.databases)


def survey(
    homes: Sequence[str],
    urls: Iterable[str],
    processes: Iterable[Process],
    proc: ProcFS,
    own: int,
    places: Mapping[Identity, Place] | None = None,
) -> Site:
    """Look around: `homes` and `urls` are ours, the processes show whether others are here too."""
    ours = all_homes(homes)
    processes = list(processes)
    shown: dict[str, list[Process]] = {}
    for process in processes:
        if (home := process.environ.get("AIRFLOW_HOME")) is not None:
            shown.setdefault(home, []).append(process)
    keys = database_keys(urls)
    foreign = {path: at_home for path, at_home in shown.items() if ours.isdisjoint(all_homes([path]))}
    here, _ = proc.pid_namespace(own)
    near = {  # a namespace that cannot be read may be this one
        path
        for path in foreign
        if here is None or any(proc.pid_namespace(p.pid)[0] in (here, None) for p in foreign[path])
    }
    others = (path for path, at_home in foreign.items() if keys and _names_others(path, at_home, keys))
    return Site(
        homes=ours,
        databases=keys,
        untouchable=frozenset({0, 1, 2, *ancestors(proc, own)}),
        foreign_homes=frozenset(near),
        homes_elsewhere=frozenset(foreign.keys() - near),
        other_airflows=frozenset(others),
        unread=next((p.unread["environ"] for p in processes if _home_unread(p)), None),
        lives_here=_lives_here(processes, ours, proc, own),
        places=places or {},
    )


def database_keys(urls: Iterable[str]) -> frozenset[str]:
    """`database_key` of each that names a database."""
    return frozenset(key for url in urls if (key := database_key(url)) is not None)


def _lives_here(processes: Iterable[Process], ours: frozenset[str], proc: ProcFS, own: int) -> bool:
    """True if a service of an Airflow of ours runs in the listener's own pid namespace."""
    here, _ = proc.pid_namespace(own)
    for process in processes:
        home = process.environ.get("AIRFLOW_HOME")
        if process.role is Role.SERVICE and home is not None and not ours.isdisjoint(all_homes([home])):
            if here is not None and proc.pid_namespace(process.pid)[0] == here:
                return True
    return False


def _home_unread(process: Process) -> bool:
    known = process.label is not None and process.label.airflow_home is not None
    return "environ" in process.unread and not known


def _databases(process: Process) -> set[str]:
    urls = (process.environ.get(name) for name in DATABASE_VARIABLES)
    return {key for url in urls if url and (key := database_key(url)) is not None}


def _names_others(home: str, at_home: Sequence[Process], ours: frozenset[str]) -> bool:
    """True if a home's processes, or else its airflow.cfg, name a database, and none of ours."""
    found = {key for process in at_home for key in _databases(process)}
    if not found and not any(comes_from_elsewhere(process.environ) for process in at_home):
        found = _configured(home)
    return bool(found) and not any(is_among(one, ours) for one in found)


def _configured(home: str) -> set[str]:
    """What a home's airflow.cfg names, if it is a Postgres: SQLite is what every new one names."""
    path = os.path.join(home, "airflow.cfg")
    try:
        seen = os.stat(path)
    except (OSError, ValueError):
        return set()
    # whose home it is, nobody knows: no more is read than any configuration needs
    readable = home.startswith("/") and seen.st_size < _MOST_CONFIG
    return _in_config(home, seen.st_mtime_ns) if readable else set()


@lru_cache(maxsize=64)
def _in_config(home: str, changed: int) -> set[str]:
    try:
        key = database_key(find_database_url(None, {}, home).url)
    except (DatabaseUrlError, OSError):
        return set()
    return set() if key is None else {key}


def all_homes(homes: Sequence[str]) -> frozenset[str]:
    return frozenset(path for home in homes for path in (os.path.normpath(home), os.path.realpath(home)))


def trusted_uids(homes: Sequence[str], more: Iterable[int] = ()) -> frozenset[int]:
    """The users as whom our Airflow runs: the owners of its homes, and those named by option."""
    found = set(more)
    for home in homes:
        with suppress(OSError):
            found.add(os.stat(home).st_uid)
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
