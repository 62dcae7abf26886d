"""Orders that this host has ended, remembered for what their runs start afterwards.

A message still in an executor's queue when its run was failed may start its task minutes later; the
database refuses its state (the fence), and the process is stopped by the order that it came after.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

from dagstop.evidence.index import Index, names_of
from dagstop.evidence.match import asks_to_be_spared
from dagstop.evidence.watch import Watch
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Process, Role, StopOrder

LINGER = 600.0
"""Seconds for which late starters are looked for; as long as the fence stands (fence_seconds)."""


MOST = 5000
"""How many ended orders are remembered; beyond that the oldest are forgotten first."""


@dataclass(slots=True)
class _Ended:
    """No more than it takes to find late starters: there may be thousands."""

    created_at: datetime
    names: tuple[Hashable, ...]  # under which an index has what may be the order's
    at: float  # monotonic seconds
    looked_at: set[Identity] | None


class RecentOrders:
    """What was reported on lately, by order id."""

    def __init__(self, proc: ProcFS, watch: Watch) -> None:
        self._proc = proc
        self._watch = watch
        self._orders: dict[int, _Ended] = {}
        self._reopening: set[int] = set()
        self._searched: Index[Process] | None = None  # the index in which they were looked for last

    def remember(self, order: StopOrder, looked_at: set[Identity]) -> None:
        assert order.id is not None
        self._orders.pop(order.id, None)
        # what was left alone stays so, whatever it starts and whatever the settings say by then
        names = names_of(order) if order.hands_off is None else ()
        self._orders[order.id] = _Ended(order.created_at, names, time.monotonic(), looked_at or None)
        if len(self._orders) > MOST:
            del self._orders[next(iter(self._orders))]
        self._searched = None

    def __contains__(self, order_id: int | None) -> bool:
        """True for an order that was ended here lately: it is taken up again for a late starter."""
        return order_id in self._orders

    def may_begin(self, order: StopOrder) -> bool:
        """False for an order that was ended here and has no late starter."""
        assert order.id is not None
        ended = self._orders.get(order.id)
        if ended is not None and ended.created_at != order.created_at:
            del self._orders[order.id]  # dagstop was uninstalled and installed again: ids start over
        elif ended is not None and order.id not in self._reopening:
            return False
        self._reopening.discard(order.id)
        return True

    def reopen(self) -> set[int]:
        """The orders that a process started after their end may belong to; each process once."""
        moment = time.monotonic()
        for number in [n for n, ended in self._orders.items() if ended.at < moment - LINGER]:
            del self._orders[number]
        index = self._watch.index()
        if not self._orders or index is self._searched:
            return set(self._reopening)
        self._searched = index
        for number, ended in self._orders.items():
            for process in index.named(ended.names):
                age = self._proc.age(process.identity.start)
                started_after = age < moment - ended.at + 1.0
                if (
                    started_after
                    and process.role is not Role.SUPERVISOR
                    and not asks_to_be_spared(process)  # or each of its children would be a report
                    and process.identity not in (ended.looked_at or ())
                ):
                    ended.looked_at = {*(ended.looked_at or ()), process.identity}
                    self._reopening.add(number)
        return set(self._reopening)
