"""Which container a task's docker client started: remembered until that container is gone.

A client may be dead long before its container (SIGKILL, a lack of memory, the end of all of Airflow), and
its `--cidfile` with the task's folder. So clients are noted while they live, and tied to the full id of a
container as soon as an engine shows it: a name passes on, an id does not.

A client without either is tied by counting (`creators`), once it is proven that it has created its container
on that engine: by an exit that says so, or, of one that stays with its container, by the connections that it
holds meanwhile. What a compose created is known if nobody else can have (`compose`). What may be a
client's and is not tied is `untied`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from dagstop.evidence import cidfiles
from dagstop.evidence.clients import LATE, Clients
from dagstop.evidence.connections import Connections
from dagstop.evidence.containers import Client
from dagstop.evidence.counting import count, count_execs
from dagstop.evidence.execs import Execs
from dagstop.evidence.fitting import Fitting, Lives
from dagstop.evidence.lineage import ClientEnd, UnreadKin
from dagstop.evidence.noted import Noted, Untied, one_engine
from dagstop.evidence.unread import Heard
from dagstop.host.containers import Container
from dagstop.host.creations import Creations
from dagstop.host.procfs import ProcFS

SIGNALLED = 128
"""Exit statuses above this say which signal ended a docker client: so it may have started one."""


class Ties:
    """All docker clients of tasks that live, or whose container does. Thread-safe."""

    def __init__(self, proc: ProcFS) -> None:
        self._lock = threading.Lock()
        self._clients = Clients(proc)
        self._reading = threading.Thread()
        self.connections = Connections(proc, self._clients, self._lock)
        self._fitting = Fitting(self._clients, self.connections)
        self.execs = Execs(self._clients, self._fitting, self._lock)

    @property
    def changed(self) -> bool:
        """True if they differ from what was last saved."""
        return self._clients.changed

    def saved(self) -> None:
        """They are as they were last saved."""
        self._clients.changed = False

    def hear(self, heard: Heard | None) -> None:
        """What the kernel told, as far as that is known to be all."""
        self._fitting.heard = heard

    def note(
        self, clients: Iterable[Client], executed_at: Callable[[int], float | None] = lambda _: None
    ) -> None:
        """As `Clients.note`."""
        with self._lock:
            self._clients.note(clients, executed_at)

    def told(self, ends: Iterable[ClientEnd], unread: Iterable[UnreadKin] = ()) -> list[Noted]:
        """How clients ended, by the kernel's word; `unread` may have been clients: what is noted of these."""
        ahead = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        with self._lock:
            new = [
                self._clients.note_unread(kin, kin.since / 1e9 + ahead, kin.until / 1e9 + ahead)
                for kin in unread
            ]
            for end in ends:
                one = self._clients.noted.get(end.process.identity)
                if one is None:
                    self._clients.note_ended(end, end.at / 1e9 + ahead)
                    continue
                # of one that was killed nobody knows what it had done
                one.went_wrong = os.WIFEXITED(end.status) and end.status != 0
                asks = one.client.ask or one.client.runs
                if asks is None or asks.attached:
                    continue
                if end.status == 0:
                    one.created_by = end.at / 1e9 + ahead
                elif one.went_wrong and os.WEXITSTATUS(end.status) < SIGNALLED:
                    # what has the name that it asked for may be another's
                    one.failed = self._clients.changed = True
                    one.container = ""
        return new

    def name_unread(
        self,
        engine: str,
        containers: Sequence[Container],
        creations: Creations,
        unread: Iterable[Noted] | None = None,
    ) -> None:
        """What was asked for in the life of a task's process that ended unread, by nobody who is known.

        unread: of these only, else of all.
        """
        with self._lock:
            lives = Lives(self._clients.unread if unread is None else unread)
            self._fitting.name_unread(engine, containers, lives)
        self.execs.name_unread(engine, creations, lives)

    def unread_lately(self) -> bool:
        """True if a task's process ended unread a moment ago: what it asked for may not be heard of yet."""
        moment = datetime.now(timezone.utc) - timedelta(seconds=LATE)
        with self._lock:
            return any(one.until is not None and one.until > moment for one in self._clients.unread)

    def composes(self) -> bool:
        """True if a task's compose may have created containers."""
        with self._lock:
            return any(one.composes for one in self._clients.noted.values())

    def may_count(self, engine: str) -> bool:
        """True if it may come to matter that all is known that the engine creates."""
        with self._lock:
            return any(
                one.label is not None
                and not one.container
                and not one.failed
                and (one.client.ask or one.client.runs or one.client.compose) is not None
                and (not one.reached or one_engine(one.reached, engine))
                for one in self._clients.noted.values()
            )

    def waits_for(self, engine: str) -> bool:
        """True if a client has created a container on that engine, and which is to be counted out."""
        with self._lock:
            return any(self._clients.is_creator(one, engine) for one in self._clients.noted.values())

    def open(self) -> list[Noted]:
        """The tasks' clients whose container is not known yet."""
        return [
            one
            for one in list(self._clients.noted.values())
            if not one.container and not one.failed and one.label is not None and one.client.starts_one
        ]

    def read_cidfiles(self, wait: float = 0.0) -> None:
        """In one thread, since their file system may hang. Returns after `wait` seconds at the latest."""
        new = [one for one in self.open() if not one.cid and one.client.cidfile is not None]
        if not new:
            return

        def read() -> None:
            for one in new:
                one.cid = cidfiles.read(one.client, one.path)

        with self._lock:  # two threads may ask at once
            if not self._reading.is_alive():
                self._reading = threading.Thread(target=read, name="cidfiles", daemon=True)
                self._reading.start()
            reading = self._reading
        if wait:
            reading.join(wait)

    def tie(
        self,
        engine: str,
        containers: Sequence[Container],
        begun: float,
        creations: Creations | None = None,
        seen: Mapping[str, Container] | None = None,
    ) -> None:
        """An engine's listing, begun then (monotonic seconds): tie what can be, forget what is gone.

        creations: all that the engine created, as far as it is known. seen: what it showed lately.
        """
        with self._lock:
            taken = self._clients.taken()
            free = [container for container in containers if container.id not in taken]
            for one in self.open():
                container = self._started_by(one, engine, free)
                if container is not None:
                    self._clients.take(one, engine, container.id)
                    free.remove(container)
            shown = {**(seen or {}), **{container.id: container for container in containers}}
            count(self._clients, engine, creations, shown)
            count_execs(self._clients, engine, creations)
            self._fitting.follow_composes(engine, containers, creations)
            self._fitting.note(engine, containers, creations)
            self._clients.forget(engine, {container.id for container in containers}, begun)

    def _started_by(self, one: Noted, engine: str, free: Sequence[Container]) -> Container | None:
        if one.cid:
            return next((c for c in free if c.id == one.cid and self._clients.lived_at(one, c)), None)
        # a name means one container only on the engine that the client talks to; an id is everybody's
        if one.client.name is None or not one_engine(one.client.engine or engine, engine):
            return None
        container = next(
            (c for c in free if c.name == one.client.name and self._clients.lived_at(one, c)), None
        )
        if container is None:
            return None
        rivals = (
            other
            for other in self._clients.ever()
            if other is not one
            and other.client.name == container.name
            and other.label != one.label
            and self._clients.lived_at(other, container)
        )
        return container if next(rivals, None) is None else None

    def untied(self) -> dict[str, list[Untied]]:
        """As `Fitting.untied`."""
        with self._lock:
            return self._fitting.untied()

    def clients(self) -> dict[str, Client]:
        """The clients that started containers, by the full id of those."""
        with self._lock:
            return {ident: one.client for one in self._clients.noted.values() for ident in one.has}

    def all(self) -> list[Noted]:
        with self._lock:
            return list(self._clients.noted.values())

    def restore(self, known: Iterable[Noted]) -> None:
        """Take up what an earlier listener on this boot remembered."""
        with self._lock:
            for one in known:
                if self._clients.lives(one.client.process.identity):
                    one.until = None
                self._clients.noted.setdefault(one.client.process.identity, one)
