"""Reports on their way: the thread that kills puts them in, one sends them, one reads orders beside them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

Report = dict[str, Any]
"""The arguments of dagstop.write_report."""


class Outbox:
    """Reports that the database does not have yet, in the order that they came. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Report] = deque()
        self._held: list[Report] = []  # another session has their rows

    def put(self, report: Report) -> None:
        with self._lock:
            self._waiting.append(report)

    def first(self, most: int) -> list[Report]:
        """The next ones to be sent; they stay here until `sent`."""
        with self._lock:
            return [self._waiting[n] for n in range(min(most, len(self._waiting)))]

    def sent(self, count: int, held: Sequence[Report] = ()) -> None:
        """So many of the first are done with, but for those that were `held` up."""
        with self._lock:
            self._held += held
            for _ in range(count):
                self._waiting.popleft()

    def try_held(self) -> None:
        """What was held up is the next to be sent."""
        with self._lock:
            self._waiting.extendleft(reversed(self._held))
            self._held.clear()

    @property
    def held(self) -> set[int]:
        """The orders of which a report is held up."""
        with self._lock:
            return {report["order_id"] for report in self._held}

    @property
    def unsent(self) -> set[int]:
        """The orders on which a report is still to be written."""
        return {report["order_id"] for report in self._all()}

    @property
    def final(self) -> set[int]:
        """The orders on which a final report is still to be written."""
        return {report["order_id"] for report in self._all() if report["outcome"] is not None}

    def _all(self) -> list[Report]:
        with self._lock:
            return [*self._held, *self._waiting]
