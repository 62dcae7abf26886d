"""Tasks of which processes were seen here and have ended: Airflow may still say that they run.

What is asked for here was seen dead, or gone from /proc; what never was seen is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from dagstop.evidence.match import names_order
from dagstop.evidence.site import Site
from dagstop.model import Label, Process, StopOrder

KEPT = 3600.0
"""Seconds; by then Airflow has noticed, too."""
MOST = 2000


class Departed:
    """The labels of processes that ended, the latest last."""

    def __init__(self) -> None:
        self._ended: dict[tuple[Label, str | None], float] = {}  # monotonic seconds

    def add(self, process: Process, hostname: str | None = None) -> None:
        """A process that is gone from the host; it counts only if it certainly belonged to its task.

        hostname: of its container, if that is ours; twins in others have the same labels.
        """
        label = process.label
        if label is None or process.contrary is not None:
            return
        if not process.trusted if process.place is None else hostname is None:
            return
        key = (label, hostname if process.place is not None else None)
        self._ended.pop(key, None)
        self._ended[key] = time.monotonic()
        while len(self._ended) > MOST:
            del self._ended[next(iter(self._ended))]

    def of(self, order: StopOrder, site: Site) -> Iterator[Label]:
        """The labels that name the order's run and task, of this Airflow."""
        oldest = time.monotonic() - KEPT
        hosts = {row.hostname for row in order.rows}
        for (label, hostname), ended in self._ended.items():
            ours = site.may_be_ours(label) if hostname is None else hostname in hosts
            if ended >= oldest and ours and names_order(order, label):
                yield label
