"""Which container a task's docker client started: remembered until that container is gone.

A client may be dead long before its container (SIGKILL, a lack of memory, the end of all of Airflow), and
its `--cidfile` with the task's folder. So clients are noted while they live, and tied to the full id of a
container as soon as an engine shows it: a name passes on, an id does not.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from dagstop.evidence import cidfiles
from dagstop.evidence.containers import Client
from dagstop.evidence.match import SPARE, asks_to_be_spared
from dagstop.evidence.runners import doubt, doubts, row_of, undoubted
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Label, Process, Role

SLACK = 1.0
"""Seconds by which an engine's clock may differ from this host's."""
LATE = 5.0
"""Seconds after a client's end by which everything it asked for has started."""
KEPT = 60.0
"""Seconds for which a client is kept whose container does not run: a restart takes a moment."""
AWAY = 600.0
"""Seconds after a client's end for which an engine is waited for that could say what it started."""
MOST = 1000


@dataclass(slots=True)
class Noted:
    """A docker client, and the container that it started once that is known."""

    client: Client
    path: str | None  # its --cidfile as this host names it
    cid: str = ""  # what that holds
    until: datetime | None = None  # when it was seen to be gone, by this host's clock
    container: str = ""  # full id
    engine: str = ""  # URL of the engine that has it
    unseen: float | None = None  # since when its container does not run, monotonic seconds

    @property
    def label(self) -> Label | None:
        return self.client.process.label

    @property
    def undoubted(self) -> bool:
        """False for a stranger, and for what is spared whatever the order."""
        process = self.client.process
        asks = asks_to_be_spared(process)  # it stands among the others, with its wish
        wish = replace(process, environ={}, kin_spared=False) if asks else process
        return process.label is not None and undoubted(wish)

    def facts(self) -> dict[str, Any]:
        """For `memory`."""
        process = self.client.process
        until = self.until or datetime.now(timezone.utc)
        return {
            "pid": process.identity.pid,
            "start": process.identity.start,
            "label": process.label.facts() if process.label is not None else None,
            "evidence": list(process.evidence),
            "line": sorted(process.line),
            "runner": row_of(process.runner),
            "spare": asks_to_be_spared(process),
            "doubts": doubts(process),
            "unread": process.unread,
            "name": self.client.name,
            "cidfile": self.client.cidfile,
            "talks_to": self.client.engine,
            "path": self.path,
            "cid": self.cid,
            "until": until.isoformat(),
            "container": self.container,
            "engine": self.engine,
        }


def noted(facts: dict[str, Any], label: Label | None, runner: Process | None) -> Noted:
    """The reverse of `Noted.facts`. Raises ValueError, TypeError or KeyError for what that did not write."""
    words = ("cid", "container", "engine")
    maybe = ("name", "cidfile", "talks_to", "path")
    if not all(isinstance(facts[n], str) for n in words):
        raise ValueError("a client of another shape")
    if not all(facts[n] is None or isinstance(facts[n], str) for n in maybe):
        raise ValueError("a client of another shape")
    process = Process(
        identity=Identity(int(facts["pid"]), int(facts["start"])),
        ppid=0,
        pgid=0,
        sid=0,
        state="X",
        uid=-1,
        argv=(),
        environ={SPARE: "1"} if facts["spare"] else {},
        role=Role.OTHER,
        title=None,
        label=label,
        evidence=tuple(map(str, facts["evidence"])),
        trusted=True,
        line=frozenset(map(int, facts["line"])),
        runner=runner,
    )
    if "doubts" in facts:  # an earlier release kept no doubted one
        doubt(process, facts["doubts"])
        process.unread = {str(name): str(why) for name, why in dict(facts["unread"]).items()}
    client = Client(facts["name"], facts["cidfile"], process, facts["talks_to"])
    until = datetime.fromisoformat(facts["until"])
    if until.tzinfo is None:
        raise ValueError("a moment without a zone")
    return Noted(client, facts["path"], facts["cid"], until, facts["container"], facts["engine"])


class Ties:
    """All docker clients of tasks that live, or whose container does. Thread-safe."""

    def __init__(self, proc: ProcFS) -> None:
        self._proc = proc
        self._noted: dict[Identity, Noted] = {}
        self._lock = threading.Lock()
        self._reading = threading.Thread()
        self.changed = False  # differs from what was last saved

    def note(self, clients: Iterable[Client]) -> None:
        """Learn of living clients; those without a label are strangers', who may have asked for the same."""
        with self._lock:
            for client in clients:
                process = client.process
                known = self._noted.get(process.identity)
                if known is not None:
                    known.client = client  # an earlier listener's knowledge of it was a copy
                elif process.state not in "ZXx":
                    self._noted[process.identity] = Noted(client, cidfiles.locate(client))
                    self.changed = self.changed or process.label is not None
            self._see_who_is_gone()

    def _see_who_is_gone(self) -> None:
        now = datetime.now(timezone.utc)
        for identity, one in list(self._noted.items()):
            if one.until is None:
                if not self._lives(identity):
                    one.until, self.changed = now, True
            elif not one.container and one.until < now - timedelta(seconds=AWAY):
                del self._noted[identity]
        for identity in list(self._noted)[:-MOST]:
            del self._noted[identity]

    def _lives(self, identity: Identity) -> bool:
        stat = self._proc.stat(identity.pid)
        return stat is not None and stat.start == identity.start and stat.state not in "ZXx"

    def untied(self) -> list[Noted]:
        """The tasks' clients whose container is not known yet."""
        return [one for one in list(self._noted.values()) if not one.container and one.label is not None]

    def read_cidfiles(self, wait: float = 0.0) -> None:
        """In one thread, since their file system may hang. Returns after `wait` seconds at the latest."""
        new = [one for one in self.untied() if not one.cid and one.client.cidfile is not None]

        def read() -> None:
            for one in new:
                one.cid = cidfiles.read(one.client, one.path)

        with self._lock:  # two threads may ask at once
            if new and not self._reading.is_alive():
                self._reading = threading.Thread(target=read, name="cidfiles", daemon=True)
                self._reading.start()
            reading = self._reading
        if new and wait:
            reading.join(wait)

    def tie(self, engine: str, containers: Sequence[Container], begun: float) -> None:
        """An engine's listing, begun then (monotonic seconds): tie what can be, forget what is gone."""
        with self._lock:
            taken = {one.container for one in self._noted.values()}
            free = [container for container in containers if container.id not in taken]
            for one in self.untied():
                container = self._started_by(one, engine, free)
                if container is not None:
                    one.container, one.engine, self.changed = container.id, engine, True
                    free.remove(container)
            self._forget(engine, {container.id for container in containers}, begun)

    def _started_by(self, one: Noted, engine: str, free: Sequence[Container]) -> Container | None:
        if one.cid:
            return next((c for c in free if c.id == one.cid and self._lived_at(one, c)), None)
        # a name means one container only on the engine that the client talks to; an id is everybody's
        if one.client.name is None or not _one_engine(one.client.engine or engine, engine):
            return None
        container = next((c for c in free if c.name == one.client.name and self._lived_at(one, c)), None)
        if container is None:
            return None
        rivals = (
            other
            for other in self._noted.values()
            if other is not one
            and other.client.name == container.name
            and other.label != one.label
            and self._lived_at(other, container)
        )
        return container if next(rivals, None) is None else None

    def _lived_at(self, one: Noted, container: Container) -> bool:
        """True if the container was created in the client's lifetime: else it would be somebody else's."""
        now = datetime.now(timezone.utc)
        born = now - timedelta(seconds=self._proc.age(one.client.process.identity.start) + SLACK)
        return born <= container.created_at <= (one.until or now + timedelta(seconds=SLACK))

    def _forget(self, engine: str, running: set[str], begun: float) -> None:
        """Clients that are gone and have no container any more."""
        moment = time.monotonic()
        late = datetime.now(timezone.utc) - timedelta(seconds=moment - begun + LATE)
        for identity, one in list(self._noted.items()):
            if one.container and (one.engine != engine or one.container in running):
                one.unseen = None if one.engine == engine else one.unseen
                continue
            if one.until is None or one.until > late:
                continue
            one.unseen = one.unseen or moment
            if moment - one.unseen >= KEPT or one.label is None:
                del self._noted[identity]
                self.changed = True

    def clients(self) -> dict[str, Client]:
        """The clients that started containers, by the full id of those."""
        with self._lock:
            return {one.container: one.client for one in self._noted.values() if one.container}

    def all(self) -> list[Noted]:
        with self._lock:
            return list(self._noted.values())

    def restore(self, known: Iterable[Noted]) -> None:
        """Take up what an earlier listener on this boot remembered."""
        with self._lock:
            for one in known:
                if self._lives(one.client.process.identity):
                    one.until = None
                self._noted.setdefault(one.client.process.identity, one)


def _one_engine(url: str, other: str) -> bool:
    """True if two URLs are one engine's; /var/run is a link to /run."""
    start = "unix://"
    if url.startswith(start) and other.startswith(start):
        return os.path.realpath(url[len(start) :]) == os.path.realpath(other[len(start) :])
    return url == other
