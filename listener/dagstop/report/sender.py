"""Stage 6: what this host has done goes to the database, over a connection of its own.

Reports, heartbeats and chores may be held up by whoever holds a lock; reading orders is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import connection as Connection
from psycopg2.extras import Json

import dagstop
from dagstop.config import ListenerConfig
from dagstop.database.connection import call, query, query_many, wait_readable
from dagstop.database.kept_connection import KeptConnection
from dagstop.database.outbox import Outbox, Report
from dagstop.feed.notices import OrderFeed
from dagstop.logs import event, log

HEARTBEAT = 10.0
"""Seconds between two heartbeats; a listener unseen for `live_seconds` (60) counts as gone."""
HURRIED_HEARTBEAT = 0.5
"""Seconds until the next heartbeat where an order waits for the chores: they fail its task instances."""
BATCH = 200
"""Reports sent at once."""
HELD_RETRY = 5.0
"""Seconds between two tries of reports whose rows another session has."""
MOST_BYTES = 1_000_000
"""How large a report may be; the database takes twice as much."""

_REFUSED = (
    psycopg2.DataError,
    psycopg2.IntegrityError,
    errors.ProgramLimitExceeded,
    ValueError,  # a text that cannot be sent: UnicodeEncodeError, or a NUL
)
"""What is wrong with one report, and would be each time that it is sent."""


class ReportSender:
    """Thread-safe: all that has no underscore."""

    def __init__(
        self,
        config: ListenerConfig,
        listener_id: str,
        outbox: Outbox,
        feed: OrderFeed,
    ) -> None:
        self._config = config
        self._host = config.host_name
        self._listener_id = listener_id
        self.outbox = outbox
        self._feed = feed  # while it reads no orders, no heartbeat is sent
        self.about: dict[str, Any] = {}  # what heartbeats say of this listener; replaced, never changed
        self.looked_at = time.monotonic()  # when it last looked at its host
        self._held_until = 0.0
        self._hurry = False
        self.health: dict[str, Any] = {}
        self.kept = KeptConnection(
            "reporting", config.database_url, f"dagstop report {self._host}", self._serve
        )

    def tell(self, report: Report) -> None:
        """Send a report (arguments of dagstop.write_report), now or once connected again."""
        self.outbox.put(report)
        self.kept.wake()

    def hurry(self) -> None:
        """Something waits for the chores."""
        self._hurry = True
        self.kept.wake()

    def _serve(self, connection: Connection) -> None:
        next_beat, first = time.monotonic(), True
        while True:
            self._send(connection)
            if self.kept.stopping:
                query(connection, "retire", host=self._host, listener_id=self._listener_id)
                return
            if self._hurry:
                self._hurry = False
                next_beat = min(next_beat, time.monotonic() + HURRIED_HEARTBEAT)
            if time.monotonic() >= next_beat and not self._feed.reads():
                next_beat = time.monotonic() + 1.0
            elif time.monotonic() >= next_beat:
                self._beat(connection)
                if first:
                    first = False
                    self._feed.sweep_soon()  # others may have closed an order without this host so far
                with self.kept.asking("chores"):
                    call(connection, "chores")
                self.kept.well()
                # what another session holds still is tried again soon, not after this loop's next long wait
                pending = self.health.get("pending", 0) > 0
                next_beat = time.monotonic() + (HURRIED_HEARTBEAT if pending else HEARTBEAT)
            due = min(next_beat, self._held_until if self.outbox.held else float("inf"))
            wait_readable([self.kept.woken.fileno()], max(0.0, due - time.monotonic()))
            self.kept.woken.drain()

    def _send(self, connection: Connection) -> None:
        """A report is dropped only once it was written, or cannot be. Final ones close their orders."""
        if time.monotonic() >= self._held_until:
            self.outbox.try_held()
        while batch := self.outbox.first(BATCH):
            written, held = batch, list[Report]()
            try:
                with self.kept.asking("write_report"):
                    query_many(connection, "write_report", batch)
            except (*_REFUSED, errors.LockNotAvailable):
                written, held = self._send_singly(connection, batch)
            self.outbox.sent(len(batch), held)
            if final := sorted({report["order_id"] for report in written if report["outcome"] is not None}):
                with self.kept.asking("settle"):
                    call(connection, "settle", ids=final)

    def _send_singly(
        self, connection: Connection, batch: Iterable[Report]
    ) -> tuple[list[Report], list[Report]]:
        """One at a time: those that were written, those that are held up. None holds up another."""
        written, held = list[Report](), list[Report]()
        orders = self.outbox.held
        for report in batch:
            if report["order_id"] in orders or len(orders) > 3:  # each costs a second
                held.append(report)
                continue
            try:
                with self.kept.asking("write_report"):
                    self._send_one(connection, report)
                written.append(report)
            except errors.LockNotAvailable as exc:
                log.warning(
                    event("report held up", order=report["order_id"], why=exc, retry_in=f"{HELD_RETRY}s")
                )
                orders.add(report["order_id"])
                held.append(report)
        self._held_until = time.monotonic() + HELD_RETRY
        return written, held

    def _send_one(self, connection: Connection, report: Report) -> None:
        """As it is, or as much of it as the database takes."""
        detail = report["detail"].adapted
        for attempt in (
            detail,
            ascii_only(cut(detail)),
            {"problem": "the database refused the report's detail"},
        ):
            try:
                query_many(connection, "write_report", [{**report, "detail": Json(attempt)}])
                return
            except _REFUSED as exc:
                log.warning(
                    event("report refused", order=report["order_id"], why=f"{type(exc).__name__}: {exc}")
                )
        log.error(event("report dropped", order=report["order_id"]))

    def _beat(self, connection: Connection) -> None:
        detail = {
            **self._feed.facts(),
            **self.about,
            # asked here: the answer may take a name server a while
            "host_names": sorted({*self._config.host_names, *self.about.get("host_names", ())}),
            # the main thread may hang: that must not go unseen
            "looked_ago": round(time.monotonic() - self.looked_at, 1),
        }
        with self.kept.asking("heartbeat"):
            rows = query(
                connection,
                "heartbeat",
                host=self._host,
                listener_id=self._listener_id,
                version=dagstop.__version__,
                detail=Json(detail),
            )
        health = rows[0] if rows else {}
        if health != self.health:
            if not health.get("triggers_ok", True):
                why = "a trigger on Airflow's tables is missing, disabled or outdated"
                log.error(event("triggers broken", why=why, do="run `dagstop install`"))
            if health.get("faults", 0) > self.health.get("faults", 0):
                log.error(event("faults in triggers", last=health["faults"], see="dagstop check"))
        self.health = health


def cut(detail: dict[str, Any], most: int = MOST_BYTES) -> dict[str, Any]:
    """A detail small enough to be taken: of its longest lists only the beginning, what lives first."""
    while len(json.dumps(detail)) > most:
        name = max(detail, key=lambda key: len(json.dumps(detail[key])))
        items = detail[name]
        if not isinstance(items, list) or len(items) < 2:
            detail = {**detail, name: [] if isinstance(items, list) else None}
            continue
        living_first = sorted(
            items, key=lambda item: isinstance(item, dict) and item.get("died_at") is not None
        )
        left_out = {**detail.get("left_out", {})}
        left_out[name] = left_out.get(name, 0) + len(items) - len(items) // 2
        detail = {**detail, name: living_first[: len(items) // 2], "left_out": left_out}
    return detail


def ascii_only(value: Any) -> Any:
    """The same with every other character written as an escape: what any database's encoding takes."""
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode("ascii", "backslashreplace").decode("ascii")
    if isinstance(value, dict):
        return {ascii_only(key): ascii_only(item) for key, item in value.items()}
    return [ascii_only(item) for item in value] if isinstance(value, list) else value
