"""From commit to last death: the moments that a traced listener wrote down, as stages."""

from __future__ import annotations

from pathlib import Path

from tests.bench.stage import Side
from tests.bench.table import median

# what is looked for in the trace, and what a reader is told; the first such moment after the commit
MOMENTS = (
    ("OrderFeed._rung ended", "the doorbell rang (NOTIFY reached the listener)"),
    ("OrderFeed._fetch ended", "the orders were read from the database"),
    ("Stopping.prepare ended", "what is new was read until then, where the kernel tells"),
    ("Stopping.take begun", "the main thread has them"),
    ("Watch.tick ended", "the first look after the signals has ended (tick)"),
    ("Endings._send begun", "first signal goes out"),
    ("Watch.look begun", "the closer look begins"),
    ("Watch.look ended", "all of /proc was read"),
)


class Trace:
    """Collects one line of stages for each kill."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._moments: dict[str, list[float]] = {}

    def add(self, after: float, took: float, side: Side) -> None:
        """`after`: a moment before the UPDATE; `took`: ms from commit to the last death."""
        lines = [line.partition(" ")[::2] for line in self._path.read_text().splitlines()]
        events = [(float(at), words) for at, words in lines if float(at) >= after]
        before = side.failed_at
        self._note("UPDATE with its triggers begins", -side.statement_ms)
        self._note("commit", 0.0)
        self._note("commit answered", side.commit_ms)
        for words, shown in MOMENTS:
            at = next((at for at, name in events if name == words and at > before), None)
            if at is not None:
                self._note(shown, (at - before) * 1000)
        signals = [at for at, name in events if name == "Endings._send ended"]
        if signals:
            self._note("last signal sent", (max(signals) - before) * 1000)
        self._note("last death", took)

    def _note(self, stage: str, at: float) -> None:
        self._moments.setdefault(stage, []).append(at)

    def stages(self) -> list[tuple[str, float, float]]:
        """(stage, when in ms from the commit, ms since the stage before), in order of time."""
        medians = sorted((median(at), stage) for stage, at in self._moments.items())
        previous = [medians[0][0], *(at for at, _ in medians)] if medians else []
        return [(stage, at, at - before) for (at, stage), before in zip(medians, previous, strict=False)]
