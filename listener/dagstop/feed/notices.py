"""Stage 1: orders are read, over a connection and in a thread of their own.

LISTEN, then sweep the orders, then wait on the socket: so an order written while nobody listened
is found by the sweep, one written later wakes it by NOTIFY. Every reconnect counts as lost messages.
A database that is away, or a network that swallows packets, never holds up a kill; and whatever
holds up the reports (report/sender.py) never holds up the orders.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg2.extensions import connection as Connection

from dagstop.database.connection import query, round_trip, wait_readable
from dagstop.database.kept_connection import KeptConnection
from dagstop.database.outbox import Outbox
from dagstop.feed.orders import read_order
from dagstop.logs import event, log
from dagstop.model import StopOrder
from dagstop.self_pipe import SelfPipe

POLL = 1.0
"""Seconds between two looks for open orders where LISTEN does not fire (a pooler in transaction mode)."""
FULL_SWEEP = 2000
"""Orders read at once, besides those under way."""
MORE = 0.5
"""Seconds until the rest is read, where there are more."""
STALE = 30.0
"""Seconds that a sweep may be overdue until this listener does not call itself alive any more."""
SHORTEST_DEAF, LONGEST_DEAF = 0.001, 0.05
"""Seconds that a notification waits after a look that found nothing new, growing: anyone may send one."""


@dataclass(slots=True)
class News:
    """What the database said: orders, and how far its clock is ahead of this host's."""

    orders: list[StopOrder]
    clock_ahead: tuple[float, float]  # at least and at most so many seconds
    sweep: bool  # all that is open for this host, not just what was asked for by id
    chores: bool  # an order waits for the chores: its cascade is not done


@dataclass
class OrderFeed:
    """Orders, as the database has them. Thread-safe: all that has no underscore."""

    url: str
    host: str
    listener_id: str
    outbox: Outbox  # what has its final report in here is left out: the database does not have that yet
    main: SelfPipe  # rung where `news` or `rung` is to be read
    sweep_every: float = 30.0
    news: deque[News] = field(default_factory=deque)
    rung: threading.Event = field(default_factory=threading.Event)  # orders are about to be read
    state: str = "connecting"  # "listening", "polling", "connecting"
    _wanted: deque[int] = field(default_factory=deque)
    _busy: int = 0
    _more: bool = False  # the last sweep was cut short: there may be more open orders
    _begun: bool = False  # False: stand by, connected, for another listener of this host works still
    _sweep_now: bool = False
    _swept_at: float = float("-inf")
    _seen: set[int] = field(default_factory=set)  # the orders that were read last

    def __post_init__(self) -> None:
        self._kept = KeptConnection("notices", self.url, f"dagstop listen {self.host}", self._connected)

    def start(self) -> None:
        """Connect and LISTEN; orders are read only from `begin` on."""
        self._kept.start()

    def begin(self) -> None:
        """Read the orders, and from then on serve."""
        self._begun = True
        self.start()
        self._kept.wake()

    def refresh(self, ids: set[int]) -> None:
        """Ask for these orders again, as they stand now."""
        self._wanted.extend(ids)
        self._kept.wake()

    def expect(self, busy: int) -> None:
        """How many orders are being worked on: they come back with every sweep."""
        self._busy = busy

    def stop(self, timeout: float) -> None:
        """Read no more, and wait so long for the thread."""
        self._kept.stop(timeout)

    def watch(self) -> None:
        """Say in the log what is held up."""
        self._kept.watch()

    def facts(self) -> dict[str, Any]:
        """What a heartbeat says."""
        return {"notices": self.state, "reconnects": self._kept.lost}

    def reads(self) -> bool:
        """Orders are being read: a host whose orders nobody reads is not alive, whatever it can report."""
        return self.state != "connecting" and time.monotonic() < self._swept_at + self.sweep_every + STALE

    def sweep_soon(self) -> None:
        """Others may have closed an order without this host until now: all that is open is read once more."""
        self._sweep_now = True
        self._kept.wake()

    def _connected(self, connection: Connection) -> None:
        try:
            self._listen(connection)
            self._stand_by(connection)
            self._serve(connection)
        finally:
            self.state = "connecting"

    def _listen(self, connection: Connection) -> None:
        """LISTEN, and prove by a notice of our own that notices arrive."""
        own = f"dagstop_{self.listener_id.replace('-', '_')}"
        with connection.cursor() as cursor:
            cursor.execute(f'listen dagstop; listen "{own}"')
        arrived = round_trip(connection, self.url, own)
        self.state = "listening" if arrived is not None else "polling"
        if arrived is None:
            why = "a NOTIFY never arrived (a pooler in transaction mode?)"
            log.warning(event("polling", why=why, every=f"{POLL}s"))
        log.info(event("connected", mode=self.state, host=self.host))

    def _stand_by(self, connection: Connection) -> None:
        while not (self._begun or self._kept.stopping):
            wait_readable([connection.fileno(), self._kept.woken.fileno()], None)
            self._kept.woken.drain()
            connection.poll()  # raises if the line is cut
            connection.notifies.clear()

    def _serve(self, connection: Connection) -> None:
        self._sweep(connection)
        self._kept.well()
        next_sweep = time.monotonic() + self.sweep_every
        next_poll = time.monotonic() + POLL if self.state == "polling" else float("inf")
        woken, rung, deaf, deaf_until = self._kept.woken.fileno(), False, 0.0, 0.0
        while not self._kept.stopping:
            # a notice may have come in with the answer to a query: then the socket is silent
            rung = self._rung(connection) or rung
            due = min(deaf_until, next_sweep) if rung else min(next_sweep, next_poll)
            doors = [woken] if rung else [woken, connection.fileno()]
            readable = wait_readable(doors, max(0.0, due - time.monotonic()))
            rung = rung or self._rung(connection)
            if woken in readable:
                self._kept.woken.drain()
            if self._wanted:
                wanted = {self._wanted.popleft() for _ in range(len(self._wanted))}
                self._fetch(connection, "open_orders", sweep=False, ids=sorted(wanted))
            if self._sweep_now or time.monotonic() >= next_sweep:
                self._sweep_now = False
                self._sweep(connection)
                next_sweep = time.monotonic() + self.sweep_every
                rung = False
            elif (rung and time.monotonic() >= deaf_until) or time.monotonic() >= next_poll:
                calm = time.monotonic() > deaf_until + LONGEST_DEAF
                news = self._fetch(connection, "rung_orders", sweep=False)
                deaf = 0.0 if news or calm else min(LONGEST_DEAF, 2 * deaf or SHORTEST_DEAF)
                rung, deaf_until = False, time.monotonic() + deaf
                next_poll = time.monotonic() + POLL if self.state == "polling" else next_poll
            if self._more:
                next_sweep = min(next_sweep, time.monotonic() + MORE)

    def _rung(self, connection: Connection) -> bool:
        """True if a notification came since the last call; those of other channels are dropped."""
        connection.poll()
        rung = any(notice.channel == "dagstop" for notice in connection.notifies)
        connection.notifies.clear()
        if rung:
            self.rung.set()
            self.main.ring()
        return rung

    def _sweep(self, connection: Connection) -> None:
        self._fetch(connection, "open_orders", sweep=True, ids=None)
        self._swept_at = time.monotonic()

    def _fetch(self, connection: Connection, name: str, *, sweep: bool, **which: Any) -> bool:
        """Read orders; whether one of them was not there the last time."""
        most = FULL_SWEEP + self._busy
        before = datetime.now().astimezone()
        with self._kept.asking(name):
            rows = query(connection, name, host=self.host, max_orders=most, **which)
        after = datetime.now().astimezone()
        there = rows[0]["db_now"] if rows else before
        ahead = ((there - after).total_seconds(), (there - before).total_seconds())
        self._more = len(rows) >= most
        chores = not all(row["cascaded"] for row in rows)
        done = self.outbox.final
        orders = [order for row in rows if row["id"] not in done and (order := _readable(row)) is not None]
        if orders or sweep or chores:
            self.news.append(News(orders, ahead, sweep and not self._more, chores))
            self.main.ring()
        before_ids, self._seen = self._seen, {row["id"] for row in rows}
        return not self._seen <= before_ids


def _readable(row: dict[str, Any]) -> StopOrder | None:
    """One order that cannot be read must not hold up the others."""
    try:
        return read_order(row)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        log.error(event("order unreadable", order=row.get("id"), why=f"{type(exc).__name__}: {exc}"))
        return None
