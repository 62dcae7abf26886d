"""The containers of this machine as the judge is to know them: found, named, read and held together.

Nothing is looked for without a selector of the operator. Files inside are read only of what is named.
"""

from __future__ import annotations

import configparser
import errno
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagstop.database.key import database_key
from dagstop.database.url import comes_from_elsewhere, in_config
from dagstop.errors import DatabaseUrlError
from dagstop.evidence.consent import BY_ENGINE, Selector
from dagstop.evidence.place import Place, why_not_ours
from dagstop.evidence.site import DATABASE_VARIABLES, database_keys
from dagstop.host import places as host
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.logs import event, log
from dagstop.model import Identity, Process

KEPT = 5.0
"""Seconds for which what was read of a container counts: its first process may still exec."""
LISTED = 20.0
"""Seconds after which an engine that has not listed a container does not have it."""
MOST_ENDED = 200
"""Containers of ours that ended, for whose host names this listener goes on answering."""
MOST_TOLD = 50
"""Containers in a heartbeat."""
_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


@dataclass(slots=True)
class _Seen:
    """One init, and what was last read of it."""

    init: Identity
    place: Place
    read_at: float  # monotonic seconds
    first_at: float  # likewise


class Places:
    """The pid namespaces right below ours."""

    def __init__(
        self,
        proc: ProcFS,
        selectors: Sequence[Selector],
        *,
        urls: Sequence[str] = (),
        task_users: Collection[int] = (),
        machine: Collection[str] = (),
    ) -> None:
        """urls: spellings of our database. machine: its own host names."""
        self._proc = proc
        self._selectors = selectors
        self._urls = urls
        self._task_users = frozenset(task_users)
        self._machine = frozenset(machine)
        self._tried: dict[int, tuple[int, bool]] = {}  # pid -> start, whether it is an init
        self._seen: dict[Identity, _Seen] = {}
        self._said: dict[Identity, str] = {}
        self._trouble = ""  # the last unexpected error that is in the log
        self._ended: dict[Identity, Place] = {}  # that were ours; what their tasks started may live on
        self._facts: list[dict[str, Any]] = []
        self._names: frozenset[str] = frozenset()
        self._ours: dict[Identity, str] = {}
        self._uids: frozenset[int] = frozenset()
        self._unread: list[str] = []
        self.unlisted = False  # the engine is to be asked about a container that it has not listed yet

    @property
    def wanted(self) -> bool:
        """False if the operator named no container."""
        return bool(self._selectors)

    def init_of(self, pid: int) -> Identity | None:
        """The init of the container that a process lives in."""
        return host.init_of(self._proc, pid)

    def survey(self, processes: Mapping[int, Process], listed: Iterable[Container]) -> dict[Identity, Place]:
        """All that is there now, and what was ours and has ended, by init. listed: what the engines run."""
        if not self._selectors:
            return {}
        try:
            return self._survey(processes, listed)
        except Exception as exc:  # whatever a container shows must not keep orders from the others
            if (said := f"{type(exc).__name__}: {exc}") != self._trouble:
                log.exception(event("containers not read", do="they are spared"))
            self._trouble = said
            return {}

    def _survey(self, processes: Mapping[int, Process], listed: Iterable[Container]) -> dict[Identity, Place]:
        self.unlisted = False
        inits = self._inits(processes)
        self._forget_gone(inits)
        containers = {one.id: one for one in listed}
        by_engine = any(one.kind in BY_ENGINE for one in self._selectors)
        listeners = self._listeners(processes)
        moment = time.monotonic()
        for init in inits:
            seen = self._seen.get(init)
            if seen is None or moment - seen.read_at > KEPT:
                known = seen.place.named_by if seen is not None else None
                first = seen.first_at if seen is not None else moment
                self._seen[init] = seen = _Seen(init, self._read(init, known, containers), moment, first)
            elif seen.place.named_by is None and seen.place.container in containers:
                seen.place = self._read(init, None, containers)
            unknown = seen.place.named_by is None and seen.place.container not in {None, *containers}
            unlisted = by_engine and unknown and moment - seen.first_at < LISTED
            self.unlisted |= unlisted
            seen.place = replace(seen.place, kept_by=listeners.get(init), unlisted=unlisted)
        found = self._held_together()
        self._note(found)
        return self._ended | found

    def hostname_of(self, init: Identity) -> str | None:
        """Of a container of ours that is there, or was when it was last looked for; else None."""
        return self._ours.get(init)

    def names(self) -> frozenset[str]:
        """The host names of containers, also ended ones, for which this listener answers."""
        return self._names

    def uids(self) -> frozenset[int]:
        """As whom Airflow runs in the named containers."""
        return self._uids

    def unread(self) -> list[str]:
        """Why a named container may hold what goes unseen."""
        return self._unread

    def facts(self) -> list[dict[str, Any]]:
        """For heartbeats: each container of an Airflow, and why it is refused if it is."""
        return self._facts

    def _inits(self, processes: Mapping[int, Process]) -> list[Identity]:
        found: list[Identity] = []
        tried: dict[int, tuple[int, bool]] = {}
        for pid, process in processes.items():
            start = process.identity.start
            before = self._tried.get(pid)
            if before is None or before[0] != start:
                before = (start, host.is_init(self._proc.inner_pids(pid)))
            tried[pid] = before
            if before[1]:
                found.append(process.identity)
        self._tried = tried
        return found

    def _listeners(self, processes: Mapping[int, Process]) -> dict[Identity, int]:
        """By the init of its container, the pid of a dagstop listener."""
        found: dict[Identity, int] = {}
        for process in processes.values():
            words = process.argv[:5]
            if "listen" in words and any("dagstop" in word for word in words):
                init = self.init_of(process.pid)
                if init is not None:
                    found[init] = process.pid
        return found

    def _forget_gone(self, inits: Iterable[Identity]) -> None:
        there = set(inits)
        for init in self._seen.keys() - there:
            place = self._seen.pop(init).place
            self._said.pop(init, None)
            if init in self._ours:
                self._ended[init] = place
        while len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def _read(self, init: Identity, named_by: str | None, containers: Mapping[str, Container]) -> Place:
        """What it shows; of its files, only if it is named."""
        cgroups = self._proc.cgroups(init.pid)
        container = host.container_in(cgroups)
        environ = self._proc.environ(init.pid)
        hostname = self._proc.variable(init.pid, "HOSTNAME") or None
        place = Place(init, container=container, hostname=hostname)
        if named_by is None:
            kubernetes = self._kubernetes(init)
            known = containers.get(container) if container is not None else None
            wanted = (one for one in self._selectors if one.names(cgroups, known, kubernetes))
            named_by = next(map(str, wanted), None)
        unread = None
        if environ is None:
            unread = self._proc.refusal(init.pid, "environ")
        if named_by is None:
            return replace(place, unread=unread, home=(environ or {}).get("AIRFLOW_HOME"))
        place = replace(place, named_by=named_by)
        if environ is None:
            return replace(place, unread=unread or "it is ending")
        airflow = any(name.startswith("AIRFLOW") for name in environ)
        return self._read_files(replace(place, airflow=airflow), environ)

    def _read_files(self, place: Place, environ: Mapping[str, str]) -> Place:
        home = environ.get("AIRFLOW_HOME")
        if home is None or not home.startswith("/"):
            return place
        home = os.path.normpath(home)
        try:
            name = self._text(place.init, "/etc/hostname")
            owner = host.owner_inside(self._proc, place.init, home)
            urls = [url for variable in DATABASE_VARIABLES if (url := environ.get(variable))]
            if not urls and not comes_from_elsewhere(environ):
                urls = self._configured(place.init, home)
        except OSError as exc:
            return replace(place, unread=self._why_unread(place.init, exc))
        if name and place.hostname and name != place.hostname:
            why = f"its host name is {name} in /etc/hostname and {place.hostname} in its environment"
            return replace(place, unread=why)
        keys = {key for url in urls if (key := database_key(url)) is not None}
        return replace(
            place,
            hostname=name or place.hostname,
            home=home,
            # `user:` in a compose file is often not the owner of the image's home
            uids=frozenset({owner, self._proc.uid(place.init.pid)}) | self._task_users,
            databases=frozenset(keys),
        )

    def _why_unread(self, init: Identity, exc: OSError) -> str:
        said = f"{exc.filename or 'a file'}: {exc.strerror}"
        if exc.errno == errno.ENOSYS:
            return f"{said} (openat2 is needed: Linux 5.6, and a systemd unit without RestrictSUIDSGID=yes)"
        if not isinstance(exc, PermissionError):
            return said
        # the way in is the kernel's to refuse; past it, the modes of files inside are
        by_kernel = exc.filename == host.way_into(self._proc, init)
        return f"{said} ({'CAP_SYS_PTRACE' if by_kernel else 'CAP_DAC_OVERRIDE'} is needed)"

    def _text(self, init: Identity, path: str) -> str:
        """A file's only line; empty if there is no such file. Raises OSError for any other trouble."""
        try:
            return host.read_inside(self._proc, init, path).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""

    def _kubernetes(self, init: Identity) -> str | None:
        """The namespace of its pod, as Kubernetes mounts it; empty where there is none. None: nobody asks."""
        if not any(one.kind == "kubernetes" for one in self._selectors):
            return None
        try:
            return self._text(init, _NAMESPACE_FILE)
        except OSError:
            return None

    def _configured(self, init: Identity, home: str) -> list[str]:
        """What airflow.cfg names, if it is a Postgres: SQLite is what every new one names."""
        path = f"{home}/airflow.cfg"
        try:
            found = in_config(self._text(init, path), {}, path)
        except (DatabaseUrlError, configparser.Error):
            return []
        return [] if found is None else [found.url]

    def _held_together(self) -> dict[Identity, Place]:
        """A host name counts only if no other container has it, or may have it."""
        places = [seen.place for seen in self._seen.values()]
        unknown = any(place.unread is not None and place.hostname is None for place in places)
        found: dict[Identity, Place] = {}
        for place in places:
            same = sum(other.hostname == place.hostname for other in places)
            shares = same > 1 or unknown or place.hostname in self._machine
            found[place.init] = replace(place, shares_name=shares)
        return found

    def _note(self, found: Mapping[Identity, Place]) -> None:
        """What heartbeats say; in the log, each container once."""
        databases = database_keys(self._urls)
        facts: list[dict[str, Any]] = []
        ours: dict[Identity, str] = {}
        uids: set[int] = set()
        unread: list[str] = []
        for place in found.values():
            if place.named_by is None and place.home is None:
                continue  # nobody's concern: no Airflow is in it
            refused = why_not_ours(place, databases)
            if refused is None and place.kept_by is None and place.hostname is not None:
                ours[place.init] = place.hostname
            if refused is None:
                uids |= place.uids
            elif place.unread is not None:
                unread.append(refused)
            said = {
                "hostname": place.hostname,
                "container": place.container[:12] if place.container else None,
                "named_by": place.named_by,
                "refused": refused,
                "unread": place.unread is not None,
                "airflow": place.airflow,
                "kept_by": place.kept_by,
            }
            facts.append(said)
            if self._said.get(place.init) != (word := refused or "ours"):
                self._said[place.init] = word
                log.info(event("container", what=place.what, host=place.hostname, verdict=word))
        facts.sort(key=lambda one: (not one["airflow"], one["refused"] is None, str(one["hostname"])))
        self._facts, self._unread = facts[:MOST_TOLD], unread
        self._ours, self._uids = ours, frozenset(uids)
        ended = (place.hostname for place in self._ended.values())
        self._names = frozenset((*ours.values(), *(name for name in ended if name is not None)))
