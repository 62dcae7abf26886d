"""What the page says: asked of the database by one thread, at most once a second whoever looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection

from dagstop.database.asking import ask, open_database
from dagstop.database.failures import remedy
from dagstop.errors import DagstopError
from dagstop.install.health import OBSERVE_ONLY, in_database, without_listener

YOUNG = 1.0
"""Seconds for which an answer is given again; the page asks every two."""
YOUNG_CHECKS = 5.0
"""The same for what a check looks at, and the numbers of the day: they cost the database more."""
REST = 20
OLDEST = 30.0
"""An answer is also given again for as long as it took, times REST, but for OLDEST seconds at most: however
much there is to read and however many look, the database works for the page a twentieth of the time."""
PATIENCE = 5.0
"""Seconds that a request waits for the database."""
HANGS = 30.0
"""A listener that sends heartbeats counts as hanging after so many seconds without a look at processes."""
LIMIT = 40
"""Orders in one answer."""
EVERY_ORDER = {"before": None, "words": "", "only": "", "dag_id": None, "run_id": None, "date": None}
"""What may be asked of the orders, and how to ask for all; `date` is the run's execution or logical date."""

Answer = TypeVar("Answer")


class NoAnswer(DagstopError):
    """The database has not answered for a while."""


@dataclass(frozen=True, slots=True)
class Here:
    """This process, for those who look at it."""

    host: str
    version: str
    database: str  # without its password


@dataclass(slots=True)
class Snapshot:
    """What is so now; rows as the queries of sql/page.sql and sql/queries.sql give them."""

    now: datetime
    numbers: dict[str, Any]
    findings: list[dict[str, Any]]
    listeners: list[dict[str, Any]]
    triggers: list[dict[str, Any]]
    uncovered: list[dict[str, Any]]
    open: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)

    @property
    def able(self) -> bool:
        return all(finding["ok"] for finding in self.findings)


class Source:
    """The page's one connection. Thread-safe; all that is asked waits `PATIENCE` at most."""

    def __init__(self, url: str, here: Here) -> None:
        self.here = here
        self._url = url
        self._connection: Connection | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._lock = threading.Lock()
        self._pending: Future[Snapshot] | None = None
        self._good_until = 0.0
        self._checks: Snapshot | None = None
        self._checks_good_until = 0.0

    def close(self) -> None:
        """Close the connection, and end the thread."""
        self._worker.shutdown()
        if self._connection is not None:
            self._connection.close()

    def snapshot(self) -> Snapshot:
        """What is so now. Raises DagstopError in one line."""
        with self._lock:
            if self._pending is None or (self._pending.done() and time.monotonic() > self._good_until):
                self._pending = self._worker.submit(self._try, self._look)
            pending = self._pending
        return _result(pending)

    def orders(self, **chosen: Any) -> list[dict[str, Any]]:
        """Older or chosen orders, by the names in EVERY_ORDER. Raises DagstopError."""
        asked = {**EVERY_ORDER, **chosen, "limit": LIMIT}
        return _result(self._worker.submit(self._try, lambda: self._ask("page_orders", **asked)))

    def order(self, number: int) -> dict[str, Any] | None:
        """One order with all its evidence; None if there is none of that number. Raises DagstopError."""
        return _result(self._worker.submit(self._try, lambda: self._order(number)))

    def _try(self, look: Callable[[], Answer]) -> Answer:
        """Look; a connection that was lost since the last time is made again once."""
        had_one = self._connection is not None
        try:
            return look()
        except DagstopError:
            if not had_one or self._connection is None or not self._connection.closed:
                raise
        self._connection = None
        return look()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = open_database(self._url, f"page {self.here.host}")
        return self._connection

    def _ask(self, name: str, **values: Any) -> list[dict[str, Any]]:
        file = "page" if name.startswith("page_") else "queries"
        return ask(self._connected(), self._url, name, file=file, **values)

    def _look(self) -> Snapshot:
        began = time.monotonic()
        try:
            return self._look_now()
        finally:
            self._good_until = _good_until(began, YOUNG)

    def _look_now(self) -> Snapshot:
        began = time.monotonic()
        if self._checks is None or began > self._checks_good_until:
            self._checks = self._look_closely()
            self._checks_good_until = _good_until(began, YOUNG_CHECKS)
        return replace(
            self._checks,
            now=self._ask("page_now")[0]["db_now"],
            open=self._ask("page_open"),
            orders=self._ask("page_orders", **EVERY_ORDER, limit=LIMIT),
        )

    def _look_closely(self) -> Snapshot:
        listeners = self._ask("listeners")
        findings = [asdict(finding) for finding in in_database(self._connected(), self._url)]
        findings += [
            {"name": f"listener {row['host']}", "ok": False, "said": said, "do": "see its log, restart it"}
            for row in listeners
            if row["live"] and (said := hanging(row))
        ]
        return Snapshot(
            now=datetime.now(timezone.utc),
            numbers=self._ask("page_numbers")[0],
            findings=findings,
            listeners=listeners,
            triggers=self._ask("trigger_health"),
            uncovered=without_listener(listeners, self._ask("task_hosts")),
        )

    def _order(self, number: int) -> dict[str, Any] | None:
        rows = self._ask("page_order", id=number)
        if not rows:
            return None
        return {
            **rows[0],
            "reports": self._ask("page_reports", id=number),
            "targets": self._ask("page_targets", id=number),
            "refused": self._ask("page_refused", id=number),
        }


def _good_until(began: float, young: float) -> float:
    ended = time.monotonic()
    return ended + max(young, min(OLDEST, REST * (ended - began)))


def hanging(listener: dict[str, Any]) -> str:
    """What to say of a listener that sends heartbeats while its main loop hangs; else empty."""
    ago = listener["detail"].get("looked_ago", 0)
    return f"last looked for processes {ago:.0f} s ago" if ago > HANGS else ""


def health(host: str | None, snapshot: Snapshot) -> tuple[bool, str]:
    """Whether a run can be stopped on that host (None: everywhere), and one line of reason."""
    if any(finding["name"] == OBSERVE_ONLY for finding in snapshot.findings):
        return False, "observe-only: nothing is stopped until `dagstop config observe_only off`"
    for row in snapshot.triggers:
        if row["status"] != "installed":
            name = f"{row['table_name']}.{row['trigger_name']}"
            return False, f"trigger {name} is {row['status']}: run `dagstop install`"
    if host is None:
        red = [finding for finding in snapshot.findings if not finding["ok"]]
        return not red, "; ".join(f"{f['name']}: {f['said']}" for f in red) or "everything can be stopped"
    own = [row for row in snapshot.listeners if host in {row["host"], *row["detail"].get("host_names", ())}]
    if not own:
        return False, f"no listener of {host} has ever reported"
    if not own[0]["live"]:
        return False, f"the listener of {host} does not reach the database"
    if said := hanging(own[0]):
        return False, f"the listener of {host} {said}"
    return True, f"{host} can stop what runs on it ({own[0]['detail'].get('notices')})"


def _result(pending: Future[Answer]) -> Answer:
    try:
        return pending.result(PATIENCE)
    except Late:
        raise NoAnswer(f"The database has not answered for {PATIENCE:.0f} s") from None
    except psycopg2.Error as exc:
        do = remedy(exc).get("do", "")
        why = f"The database cannot be asked: {str(exc).splitlines()[0]}"
        raise NoAnswer(f"{why}: {do}" if do else why) from exc
