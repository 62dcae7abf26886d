"""Two clocks: this host's, by which processes start and die, and the database's, by which all reports go."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Process


class Clock:
    """Moves moments to the database's clock, by an offset that agrees with each exchange of messages.

    One thread bounds it; any may ask it.
    """

    def __init__(self, proc: ProcFS) -> None:
        self._proc = proc
        self.offset = 0.0  # seconds that the database is ahead of this host

    def bound(self, least: float, most: float) -> None:
        """The database is ahead by at least and at most so many seconds; what agrees with that stays."""
        self.offset = min(max(self.offset, least), most)

    def to_db(self, moment: datetime) -> datetime:
        return moment + timedelta(seconds=self.offset)

    def from_db(self, moment: datetime) -> datetime:
        return moment - timedelta(seconds=self.offset)

    def now(self) -> datetime:
        """The present moment on the database's clock."""
        return self.to_db(datetime.now(timezone.utc))

    def started_at(self, process: Process) -> datetime:
        """When a process started, on the database's clock; exact to a tick (10 ms)."""
        return self.now() - timedelta(seconds=self._proc.age(process.identity.start))

    def lives(self, identity: Identity) -> bool:
        """True if that very process runs; a zombie does not."""
        stat = self._proc.stat(identity.pid)
        return stat is not None and stat.start == identity.start and stat.state not in {"Z", "X"}
