"""Stage 1: everything that goes over the wire, in a thread of its own.

LISTEN, then sweep the orders, then wait on the socket: so an order written while nobody listened
is found by the sweep, one written after by the doorbell. Every reconnect counts as lost messages.
A database that is away, or a network that swallows packets, never holds up a kill.
"""

from __future__ import annotations

import os
import random
import select
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

import dagstop
from dagstop.logs import event, log
from dagstop.model import StopOrder
from dagstop.orders import read_order
from dagstop.outside.database import connect, query, query_many, round_trip
from dagstop.outside.database_errors import one_line, remedy

HEARTBEAT = 10.0
"""Seconds between two heartbeats; a listener unseen for `live_seconds` (60) counts as gone."""
HURRIED_HEARTBEAT = 0.5
"""Seconds until the next heartbeat where an order waits for one: it fails the run's task instances."""
POLL = 1.0
"""Seconds between two looks for open orders where LISTEN does not fire (a pooler in transaction mode)."""
SLOWEST_RETRY = 5.0
"""Seconds between two attempts to connect at most: what fails in between lives on so long."""
FULL_SWEEP = 2000
"""Orders read at once, besides those under way."""
MORE = 0.5
"""Seconds until the rest is read, where there are more."""
SHORTEST_DEAF, LONGEST_DEAF = 0.001, 0.05
"""Seconds for which a doorbell waits after a look that found nothing new, ever longer: anyone may ring."""


@dataclass(slots=True)
class News:
    """What the database said: orders, and how far its clock is ahead of this host's."""

    orders: list[StopOrder]
    clock_ahead: tuple[float, float]  # at least and at most so many seconds
    sweep: bool  # all that is open for this host, not just what was asked for by id


@dataclass
class Link:
    """The listener's one connection. Thread-safe: `tell`, `refresh`, `stop`, `news`."""

    url: str
    host: str
    wake_main: Callable[[], None]
    sweep_every: float = 30.0
    dry_run: bool = False
    listener_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    details: Callable[[], dict[str, Any]] = dict
    on_ring: Callable[[], None] = lambda: None  # what can be prepared while the orders are being read
    news: deque[News] = field(default_factory=deque)
    state: str = "connecting"  # "listening", "polling", "connecting"
    health: dict[str, Any] = field(default_factory=dict)
    reconnects: int = 0  # how often an established connection was lost
    _reports: deque[dict[str, Any]] = field(default_factory=deque)
    _wanted: deque[int] = field(default_factory=deque)
    _busy: int = 0
    _pending: bool = False  # some order waits for a heartbeat to fail its task instances
    _more: bool = False  # the last sweep was cut short: there may be more open orders
    _begun: bool = False  # False: stand by, connected, for another listener of this host works still
    _stopping: bool = False
    _seen: set[int] = field(default_factory=set)  # the orders that were read last
    _attempt: int = 0  # how often in a row it did not come as far as a heartbeat

    def __post_init__(self) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Connect and LISTEN; orders are read only from `begin` on."""
        self._thread.start()

    def begin(self) -> None:
        """Read the orders, and from then on serve."""
        self._begun = True
        if not self._thread.is_alive():
            self.start()
        self._wake()

    def tell(self, report: dict[str, Any]) -> None:
        """Send a report (arguments of dagstop.write_report), now or once connected again."""
        self._reports.append(report)
        self._wake()

    def refresh(self, ids: set[int]) -> None:
        """Ask for these orders again, as they stand now."""
        self._wanted.extend(ids)
        self._wake()

    def expect(self, busy: int) -> None:
        """How many orders are being worked on: they come back with every sweep."""
        self._busy = busy

    @property
    def flushed(self) -> bool:
        return not self._reports

    @property
    def unsent(self) -> set[int]:
        """The orders on which a report is still to be written."""
        return {report["order_id"] for report in tuple(self._reports)}

    def stop(self, timeout: float = 3.0) -> None:
        """End the thread; what is still to be reported is reported first if the database is there."""
        self._stopping = True
        self._wake()
        self._thread.join(timeout)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b".")
        except BlockingIOError:
            pass  # the pipe is full of reasons to wake up

    def _run(self) -> None:
        while not self._stopping:
            connection: Connection | None = None
            try:
                connection = connect(self.url, f"dagstop listen {self.host}")
                self._listen(connection)
                self._stand_by(connection)
                self._serve(connection)
            except psycopg2.Error as exc:
                self._attempt += 1
                self.reconnects += self.state != "connecting"
                self.state = "connecting"
                delay = min(SLOWEST_RETRY, 0.1 * 2 ** min(self._attempt, 10)) * random.uniform(0.7, 1.0)
                why = one_line(exc, self.url)
                facts = {"attempt": self._attempt, "retry_in": f"{delay:.1f}s", **remedy(exc)}
                log.warning(event("database lost", why=why, **facts))
                self._pause(delay)
            finally:
                if connection is not None:
                    connection.close()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            select.select([self._wake_read], [], [], left)
            self._drain()

    def _drain(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

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
        while not (self._begun or self._stopping):
            select.select([connection.fileno(), self._wake_read], [], [])
            self._drain()
            connection.poll()  # raises if the line is cut
            connection.notifies.clear()

    def _serve(self, connection: Connection) -> None:
        self._send(connection)  # first, or the sweep would bring orders that are done
        self._sweep(connection)
        self._beat(connection)
        self._attempt = 0
        now = time.monotonic()
        # until that heartbeat others may have closed an order without this host: it is swept once more
        next_sweep, next_beat = now, now + HEARTBEAT
        next_poll = now + POLL if self.state == "polling" else float("inf")
        rung, deaf, deaf_until = False, 0.0, 0.0
        while True:
            # a notice may have come in with the answer to a query: then the socket is silent
            rung = self._rung(connection) or rung
            due = deaf_until if rung else min(next_sweep, next_poll, next_beat)
            doors = [self._wake_read] if rung else [self._wake_read, connection.fileno()]
            readable, _, _ = select.select(doors, [], [], max(0.0, due - time.monotonic()))
            rung = rung or self._rung(connection)
            if self._wake_read in readable:
                self._drain()
            self._send(connection)
            if self._stopping:
                query(connection, "retire", host=self.host, listener_id=self.listener_id)
                return
            if time.monotonic() >= next_sweep:
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
            if self._pending:
                next_beat = min(next_beat, time.monotonic() + HURRIED_HEARTBEAT)
                self._pending = False
            if time.monotonic() >= next_beat:
                self._beat(connection)
                # what another session holds still is tried again soon, not after this loop's next long wait
                next_beat = time.monotonic() + (HURRIED_HEARTBEAT if self._pending else HEARTBEAT)

    def _rung(self, connection: Connection) -> bool:
        """True if the doorbell rang since the last call; other channels' notices are dropped."""
        connection.poll()
        rung = any(notice.channel == "dagstop" for notice in connection.notifies)
        connection.notifies.clear()
        if rung:
            self.on_ring()
        return rung

    def _send(self, connection: Connection) -> None:
        """Reports first: they close orders. A report is dropped only once it was written."""
        while self._reports:
            batch = list(self._reports)[:200]
            query_many(connection, "write_report", batch)
            for _ in batch:
                self._reports.popleft()
        if self._wanted:
            wanted = {self._wanted.popleft() for _ in range(len(self._wanted))}
            self._fetch(connection, "open_orders", sweep=False, ids=sorted(wanted))

    def _sweep(self, connection: Connection) -> None:
        self._fetch(connection, "open_orders", sweep=True, ids=None)

    def _fetch(self, connection: Connection, name: str, *, sweep: bool, **which: Any) -> bool:
        """Read orders; whether one of them was not there the last time."""
        most = FULL_SWEEP + self._busy
        before = datetime.now().astimezone()
        rows = query(connection, name, host=self.host, max_orders=most, **which)
        after = datetime.now().astimezone()
        there = rows[0]["db_now"] if rows else before
        ahead = ((there - after).total_seconds(), (there - before).total_seconds())
        self._more = len(rows) >= most
        self._pending = self._pending or not all(row["cascaded"] for row in rows)
        orders = [order for row in rows if (order := _readable(row)) is not None]
        if orders or sweep:
            self.news.append(News(orders, ahead, sweep and not self._more))
            self.wake_main()
        before_ids, self._seen = self._seen, {row["id"] for row in rows}
        return not self._seen <= before_ids

    def _beat(self, connection: Connection) -> None:
        if self.dry_run:
            return
        rows = query(
            connection,
            "heartbeat",
            host=self.host,
            listener_id=self.listener_id,
            version=dagstop.__version__,
            detail=psycopg2.extras.Json(
                {"notices": self.state, "reconnects": self.reconnects, **self.details()}
            ),
        )
        health = rows[0] if rows else {}
        self._pending = health.get("pending", 0) > 0
        if health != self.health:
            if not health.get("triggers_ok", True):
                why = "a trigger on Airflow's tables is missing, disabled or outdated"
                log.error(event("triggers broken", why=why, do="run `dagstop install`"))
            if health.get("faults", 0) > self.health.get("faults", 0):
                log.error(event("faults in triggers", last=health["faults"], see="dagstop check"))
        self.health = health


def _readable(row: dict[str, Any]) -> StopOrder | None:
    """One order that cannot be read must not hold up the others."""
    try:
        return read_order(row)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        log.error(event("order unreadable", order=row.get("id"), why=f"{type(exc).__name__}: {exc}"))
        return None
