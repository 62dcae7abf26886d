"""What a listener has done since it started, counted: each heartbeat carries it to /metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from dagstop.model import Outcome

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms in seconds; one more bucket holds all that took longer."""


class Counters:
    """Written by the thread that reports; `facts` may be called by another one."""

    def __init__(self) -> None:
        self._outcomes = Counter({outcome.value: 0 for outcome in Outcome})
        self._first_signal = _Times()
        self._last_death = _Times()

    def done(
        self,
        outcome: str,
        created_at: datetime,
        first_signal_at: datetime | None,
        last_death_at: datetime | None,
    ) -> None:
        """One order ended here; all times on one clock."""
        self._outcomes[outcome] += 1
        self._first_signal.add(first_signal_at, created_at)
        self._last_death.add(last_death_at, created_at)

    def facts(self) -> dict[str, Any]:
        """For JSON: counts by outcome; two histograms, each counts per bucket (not summed up) and a sum."""
        return {
            "outcomes": dict(self._outcomes),
            "first_signal": self._first_signal.facts(),
            "last_death": self._last_death.facts(),
        }


class _Times:
    """A histogram of the seconds that passed since a commit."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, moment: datetime | None, since: datetime) -> None:
        if moment is None:
            return
        seconds = max(0.0, (moment - since) / timedelta(seconds=1))  # two hosts' clocks differ a little
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def facts(self) -> dict[str, Any]:
        return {"counts": list(self._counts), "sum": round(self._sum, 6)}
