"""Orders that this host has ended, remembered for what their runs start afterwards.

A message still in an executor's queue when its run was failed may start its task minutes later; the
database refuses its state (the fence), and the process is stopped by the order that it came after.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from dagstop.evidence.watch import Watch
from dagstop.model import Identity, Role, StopOrder
from dagstop.outside.procfs import ProcFS
from dagstop.report import Findings

LINGER = 600.0
"""Seconds for which late starters are looked for; as long as the fence stands (fence_seconds)."""


@dataclass(slots=True)
class _Ended:
    order: StopOrder
    findings: Findings
    at: float  # monotonic seconds
    looked_at: set[Identity]


class EndedOrders:
    """What was reported on lately, by order id."""

    def __init__(self, proc: ProcFS, watch: Watch) -> None:
        self._proc = proc
        self._watch = watch
        self._orders: dict[int, _Ended] = {}
        self._reopening: set[int] = set()

    def remember(self, order: StopOrder, findings: Findings, looked_at: set[Identity]) -> None:
        assert order.id is not None
        self._orders[order.id] = _Ended(order, findings, time.monotonic(), looked_at)

    def may_begin(self, order_id: int) -> bool:
        """False for an order that was ended here and has no late starter."""
        if order_id in self._orders and order_id not in self._reopening:
            return False
        self._reopening.discard(order_id)
        return True

    def findings_of(self, order_id: int) -> Findings | None:
        ended = self._orders.get(order_id)
        return ended.findings if ended is not None else None

    def reopen(self) -> set[int]:
        """The orders that a process started after their end may belong to; each process once."""
        moment = time.monotonic()
        for number in [n for n, ended in self._orders.items() if ended.at < moment - LINGER]:
            del self._orders[number]
        if not self._orders:
            return set()
        index = self._watch.index()
        for number, ended in self._orders.items():
            for process in index.of(ended.order):
                age = self._proc.age(process.identity.start)
                started_after = age < moment - ended.at + 1.0
                if (
                    started_after
                    and process.role is not Role.SUPERVISOR
                    and process.identity not in ended.looked_at
                ):
                    ended.looked_at.add(process.identity)
                    self._reopening.add(number)
        return set(self._reopening)
