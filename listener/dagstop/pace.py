"""How soon to read again what comes now and then, and on a busy host all the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """At once after a rest, and so on for a burst; then only as often as a share of a core allows.

    All in seconds, but for `share`.
    """

    least: float  # between two readings
    most: float
    burst: float  # of the processor's time, after a rest
    share: float  # of a core, in the long run
    _owed: float = 0.0  # of the processor's time
    _at: float = 0.0

    def rest(self, took: float, now: float) -> float:
        """How long to rest after a reading that took so much of the processor's time; now: monotonic."""
        self._owed = max(0.0, self._owed - (now - self._at) * self.share) + took
        self._at = now
        rest = (self._owed - self.burst) / self.share
        self._owed = min(self._owed, self.burst + self.most * self.share)
        return min(self.most, max(self.least, rest))
