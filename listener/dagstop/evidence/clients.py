"""All docker clients that are known: those that live, and those whose container may."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from dagstop.evidence import cidfiles
from dagstop.evidence.compose import read_project
from dagstop.evidence.containers import Client, read_client
from dagstop.evidence.lineage import ClientEnd, UnreadKin
from dagstop.evidence.noted import Noted, one_engine
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity

SLACK = 1.0
"""Seconds by which an engine's clock may differ from this host's."""
LATE = 5.0
"""Seconds after a client's end by which everything it asked for has started."""
KEPT = 60.0
"""Seconds for which a client is kept whose container does not run: a restart takes a moment."""
AWAY = 600.0
"""Seconds after a client's end for which an engine is waited for that could say what it started."""
MOST = 1000


class Clients:
    """Tasks' and strangers'. Not thread-safe: `Ties` has the lock."""

    def __init__(self, proc: ProcFS) -> None:
        self._proc = proc
        self.noted: dict[Identity, Noted] = {}
        self.gone: list[Noted] = []  # ended, and had no container: they may have been rivals of a compose
        self.unread: deque[Noted] = deque(maxlen=MOST)  # tasks' that ended unread
        self.forgot_at = float("-inf")  # when one of these was forgotten
        self.changed = False  # differs from what was last saved

    def note(
        self, clients: Iterable[Client], executed_at: Callable[[int], float | None] = lambda _: None
    ) -> None:
        """Learn of living clients; those without a label are strangers', who may have asked for the same.

        executed_at: when a pid executed its program, seconds since 1970, if the kernel told.
        """
        for client in clients:
            process = client.process
            known = self.noted.get(process.identity)
            if known is not None:
                known.client = client  # an earlier listener's knowledge of it was a copy
                known.project = known.project or read_project(client, self._proc)
            elif process.state not in "ZXx":
                self.noted[process.identity] = one = Noted(client, cidfiles.locate(client))
                one.project = read_project(client, self._proc)
                one.began = executed_at(process.pid) if client.compose is not None else None
                self.changed = self.changed or process.label is not None
        self._see_who_is_gone()

    def _see_who_is_gone(self) -> None:
        now = datetime.now(timezone.utc)
        for identity, one in list(self.noted.items()):
            if one.until is None:
                if not self.lives(identity):
                    one.until, self.changed = now, True
            elif not one.matters and one.until < now - timedelta(seconds=AWAY):
                self._put_away(self.noted.pop(identity))
        for identity in list(self.noted)[:-MOST]:
            del self.noted[identity]
            self.forgot_at = time.time()

    def _put_away(self, one: Noted) -> None:
        self.gone.append(one)
        if len(self.gone) > MOST:
            del self.gone[0]
            self.forgot_at = time.time()

    def ever(self) -> list[Noted]:
        """Those that are known, and those that have ended and had no container."""
        return [*self.noted.values(), *self.gone]

    def note_ended(self, end: ClientEnd, at: float) -> None:
        """A client that came and went between two looks: it may have created what a compose seems to have."""
        client = read_client(end.process)
        if client is not None:
            one = Noted(client, None, until=datetime.fromtimestamp(at, timezone.utc))
            one.project = read_project(client, self._proc)
            self._put_away(one)

    def note_unread(self, one: UnreadKin, since: float, until: float) -> Noted:
        """A task's process that was between the two (seconds since 1970) what nobody has read."""
        process = replace(one.whose, identity=one.identity, argv=(), state="X")
        noted = Noted(Client(None, None, process), None, until=datetime.fromtimestamp(until, timezone.utc))
        noted.began, noted.unread = since, True
        self.unread.append(noted)
        return noted

    def remember(self, one: Noted) -> None:
        """That one may have started something after all."""
        self.noted[one.client.process.identity] = one
        self.changed = True

    def lives(self, identity: Identity) -> bool:
        """True if that very process lives."""
        stat = self._proc.stat(identity.pid)
        return stat is not None and stat.start == identity.start and stat.state not in "ZXx"

    def age(self, one: Noted) -> float:
        """Seconds since its process began."""
        return self._proc.age(one.client.process.identity.start)

    def born_at(self, one: Noted) -> float:
        """When its process began, seconds since 1970."""
        return time.time() - self.age(one)

    def lived_at(self, one: Noted, container: Container) -> bool:
        """True if the container was created in the client's lifetime: else it would be somebody else's."""
        now = datetime.now(timezone.utc)
        born = now - timedelta(seconds=self._proc.age(one.client.process.identity.start) + SLACK)
        return born <= container.created_at <= (one.until or now + timedelta(seconds=SLACK))

    def is_creator(self, one: Noted, engine: str) -> bool:
        """True if it has created something on that engine, and what is to be counted out."""
        asks = one.client.ask or one.client.runs
        return (
            not one.container
            and one.created_by is not None
            and asks is not None
            and asks.sure
            and one_engine(one.reached, engine)
        )

    def taken(self) -> set[str]:
        """What is known to be a client's."""
        return set().union(*(one.has for one in self.noted.values()))

    def take(self, one: Noted, engine: str, ident: str) -> None:
        """It is known to have started that container."""
        one.container, one.engine, self.changed = ident, engine, True

    def forget(self, engine: str, running: set[str], begun: float) -> None:
        """Clients that are gone and have no container any more."""
        moment = time.monotonic()
        late = datetime.now(timezone.utc) - timedelta(seconds=moment - begun + LATE)
        for identity, one in list(self.noted.items()):
            if not running.isdisjoint(one.has):
                one.unseen = None
                continue
            if any(where != engine for where in one.has.values()):
                continue  # this engine does not know
            if one.until is None or one.until > late or one.fitting or one.may_run:
                continue
            one.unseen = one.unseen or moment
            if moment - one.unseen >= KEPT or one.label is None:
                self._put_away(self.noted.pop(identity))
                self.changed = True
