"""What the docker clients are connected to: which engine each has reached, and that it has created something.

A client that stays with its container holds connections to its engine meanwhile, which says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from datetime import datetime, timezone

from dagstop.evidence.clients import MOST, Clients
from dagstop.evidence.noted import UNIX, Noted
from dagstop.host import unix_peers
from dagstop.host.procfs import ProcFS

YOUNG = 10.0
"""Seconds since a client was noted for which its connections are looked at whenever something happens."""
BEGINS = 1.0
"""Seconds after a client's exec in which it connects to its engine."""
LOOK_PAUSE = 2.0
"""Seconds between two looks at those of older ones."""
STARTS = 60.0
"""Seconds in which an attached compose creates what it creates, as a rule."""
ENDS = 2.0
"""Seconds after a compose's end for which who began before that is still read at once."""
DECIDES = 15.0
"""Seconds after a compose's end in which it becomes known what it has created."""
ATTACHED = 3
"""Connections to its engine that a client holds only once it has created what it is attached to: one streams,
one waits for the end, one asked for the start (docker/cli, command/container/run.go). Until then it has one,
or for a moment two."""
EXECS = 2
"""The same of a `docker exec`: one streams, the others are idle."""
EXECS_FOR = 1.0
"""Seconds for which it holds these: before, it may have two for a moment as well."""


class Connections:
    """To the engines' sockets on this host. Thread-safe, by the lock of `Ties`."""

    def __init__(self, proc: ProcFS, clients: Clients, lock: threading.Lock) -> None:
        self._proc = proc
        self._clients = clients
        self._lock = lock
        self._next_look = 0.0
        self.strangers: list[float] = []  # when another program was seen connected, seconds since 1970

    def composes_now(self) -> bool:
        """True while one is at it: who begins meanwhile may have created what it seems to have."""
        return self._composed_within(ENDS)

    def decides_now(self) -> bool:
        """True until it is known what one has created."""
        return self._composed_within(DECIDES)

    def _composed_within(self, seconds: float) -> bool:
        now = datetime.now(timezone.utc)
        with self._lock:
            return any(
                one.label is not None
                and one.client.compose is not None
                and (one.client.compose.detached or time.monotonic() - one.noted_at < STARTS)
                and (one.until is None or (now - one.until).total_seconds() < seconds)
                for one in self._clients.noted.values()
            )

    def see_others(self, url: str) -> None:
        """Until a compose's work is known: note whether others than the known clients are connected."""
        if not url.startswith(UNIX) or not self.decides_now():
            return
        path = url[len(UNIX) :]
        with self._lock:
            pids = [one.client.process.pid for one in self._clients.noted.values() if one.until is None]
        others = unix_peers.connected_to(path)
        for pid in (os.getpid(), *pids):
            others -= unix_peers.sockets_of(self._proc.root, pid)
        if others & unix_peers.connected_to(path):  # what came and went meanwhile may be the listener's own
            if len(self.strangers) > MOST:
                self._clients.forgot_at = self.strangers[-1]
            self.strangers = [*self.strangers[-MOST:], time.time()]

    def see(self, urls: Iterable[str]) -> None:
        """Look which engine's socket the living clients hold that are not known to have created theirs."""
        looked = self._to_be_looked_at()
        held = {one: unix_peers.sockets_of(self._proc.root, one.client.process.pid) for one in looked}
        if not any(held.values()):
            return
        for url in urls:
            peers = unix_peers.connected_to(url[len(UNIX) :]) if url.startswith(UNIX) else frozenset()
            now = time.time()
            for one, sockets in held.items():
                number = len(sockets & peers)
                if number and self._clients.lives(one.client.process.identity):
                    if not one.reached:
                        one.reached, self._clients.changed = url, True
                    self._see_number(one, number, now)

    def _see_number(self, one: Noted, number: int, now: float) -> None:
        """What follows from how many connections a client holds."""
        if one.client.ask is not None and one.client.ask.attached and number >= ATTACHED:
            one.created_by = now
        if one.client.runs is not None and one.client.runs.attached and number >= EXECS:
            one.streams_since = one.streams_since or now
            if now - one.streams_since >= EXECS_FOR:
                one.created_by = now

    def about_to_connect(self) -> bool:
        """True if a task's client has just begun and was not seen connected to an engine yet."""
        with self._lock:
            new = [one for one in self._clients.noted.values() if one.label is not None and one.until is None]
        return any(
            not one.reached
            and one.unproven
            and time.monotonic() - one.noted_at < BEGINS
            and self._clients.lives(one.client.process.identity)
            for one in new
        )

    def _to_be_looked_at(self) -> list[Noted]:
        moment = time.monotonic()
        with self._lock:
            found = [one for one in self._clients.noted.values() if one.until is None and one.unproven]
            old = moment >= self._next_look
            if old:
                self._next_look = moment + LOOK_PAUSE
        return [one for one in found if old or moment - one.noted_at < YOUNG]
