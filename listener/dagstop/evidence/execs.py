"""What the tasks' `docker exec`s run in containers, or may have asked for."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

from dagstop.evidence.clients import MOST, Clients
from dagstop.evidence.containers import Client
from dagstop.evidence.creators import SLACK, may_run
from dagstop.evidence.fitting import Fitting, Lives
from dagstop.evidence.noted import MayRun, Noted, Untied, one_engine, why
from dagstop.host.containers import Container
from dagstop.host.creations import Creations, ExecCreation
from dagstop.host.engine import Engine


class Execs:
    """Thread-safe, by the lock of `Ties`."""

    def __init__(self, clients: Clients, fitting: Fitting, lock: threading.Lock) -> None:
        self._clients = clients
        self._fitting = fitting
        self._lock = lock
        self._ended: dict[str, None] = {}

    def doubtful(self) -> bool:
        """True if a task's `docker exec` is not tied, or what it may run was noted before it was."""
        with self._lock:
            return any(
                one.client.runs is not None and (one.may_run or not (one.container or one.failed))
                for one in self._clients.noted.values()
                if one.label is not None
            )

    def open(self) -> bool:
        """True if a task's living `docker exec` is not tied yet."""
        with self._lock:
            return any(
                one.client.runs is not None and one.until is None and not one.container
                for one in self._clients.noted.values()
                if one.label is not None
            )

    def of(self, engine: str) -> list[Noted]:
        """The tasks' `docker exec`s that are tied, and of which it is not known which process that is."""
        with self._lock:
            return [
                one
                for one in self._clients.noted.values()
                if one.engine == engine and not one.claimed and one.client.runs is not None
            ]

    def note(self, engine: str, creations: Creations) -> None:
        """What the tasks' `docker exec`s may have asked for, and nobody is known to have."""
        with self._lock:
            taken = {one.container for one in self._clients.noted.values()} | self._ended.keys()
            for one in self._clients.noted.values():
                if one.label is None or one.client.runs is None:
                    continue
                said = None if one.container else self._fitting.why_not(one, engine, creations)
                found = {ident: may for ident, may in one.may_run.items() if may.engine != engine}
                if said is not None:
                    found |= {ident: may for ident, may in one.may_run.items() if ident not in taken}
                    until = one.until.timestamp() if one.until is not None else time.time()
                    found |= {
                        made.id: MayRun(engine, said, made.name, made.command, made.at)
                        for made in creations.heard_execs(self._clients.born_at(one) - SLACK, until)
                        if made.id not in taken and _may_ask(one.client, made)
                    }
                if found != one.may_run:
                    one.may_run, self._clients.changed = found, True

    def name_unread(self, engine: str, creations: Creations, lives: Lives) -> None:
        """What was asked for in one of these lives, by nobody who is known."""
        with self._lock:
            taken = {one.container for one in self._clients.noted.values()} | self._ended.keys()
            for made in creations.heard_execs(lives.since, lives.until):
                for one in lives.at(made.at) if made.id not in taken else ():
                    if made.id not in one.may_run:
                        one.may_run[made.id] = MayRun(engine, "unread", made.name, made.command, made.at)
                        self._clients.remember(one)

    def drop_ended(self, engine: Engine) -> None:
        """Name no more what ran in its containers and is gone. Raises EngineUnreachable."""
        for ident in self.untied(engine.url):
            found = engine.exec_process(ident)
            if found is None or found[2]:
                self.ended(ident)

    def ended(self, ident: str) -> None:
        """What a `docker exec` ran is gone, whoever had asked for it."""
        with self._lock:
            self._ended[ident] = None
            while len(self._ended) > MOST:
                del self._ended[next(iter(self._ended))]
            for one in self._clients.noted.values():
                if one.may_run.pop(ident, None) is not None:
                    self._clients.changed = True

    def untied(self, engine: str | None = None) -> dict[str, tuple[Container, list[Untied]]]:
        """By id, what runs in containers and the clients that may have asked for it; None: on any engine."""
        found: dict[str, tuple[Container, list[Untied]]] = {}
        with self._lock:
            for one in self._clients.noted.values():
                for ident, may in one.may_run.items():
                    if engine is not None and not one_engine(may.engine, engine):
                        continue
                    at = datetime.fromtimestamp(may.at, timezone.utc)
                    what = Container(ident, may.container, "", 0, at, False, "no", {}, runs=may.command)
                    found.setdefault(ident, (what, []))[1].append(
                        Untied(one.client, why(one, may.why, runs=True))
                    )
        return found


def _may_ask(client: Client, made: ExecCreation) -> bool:
    runs = client.runs
    if runs is None or not runs.sure:  # its words may be others than they seem: the container is among them
        words = client.process.argv
        return made.name in words or any(len(word) >= 4 and made.container.startswith(word) for word in words)
    return may_run(runs, made)
