"""Labelled things by the run they name: one pass over the host serves a whole batch of orders."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from dagstop.airflow_names import parse_date
from dagstop.model import Label, StopOrder

Thing = TypeVar("Thing")


class Index(Generic[Thing]):
    """Processes or containers, found by dag and run, by dag and date, or by task instance uuid."""

    def __init__(self, things: Iterable[Thing], label_of: Callable[[Thing], Label | None]) -> None:
        self._things: dict[Hashable, list[Thing]] = {}
        for thing in things:
            label = label_of(thing)
            if label is not None:
                for key in _keys(label):
                    self._things.setdefault(key, []).append(thing)

    def of(self, order: StopOrder) -> Iterator[Thing]:
        """Everything that may concern the order, each once; `judge` decides."""
        return self.named(names_of(order))

    def named(self, names: Iterable[Hashable]) -> Iterator[Thing]:
        """Everything under one of these names (`names_of` an order), each once."""
        seen: set[int] = set()
        for key in names:
            for thing in self._things.get(key, ()):
                if id(thing) not in seen:
                    seen.add(id(thing))
                    yield thing


def names_of(order: StopOrder) -> tuple[Hashable, ...]:
    """The names under which an index has what may concern the order."""
    keys = _keys(order.label())
    if (date := parse_date(order.run_id)) is not None:
        keys.append(("date", order.dag_id, date))  # a run_id that a title shows as a date
    keys += [("ti", row.ti_id) for row in order.rows]
    return tuple(dict.fromkeys(keys))


def _keys(label: Label) -> list[Hashable]:
    keys: list[Hashable] = []
    if label.ti_id is not None:
        keys.append(("ti", label.ti_id))
    if label.dag_id is not None and label.run_id is not None:
        keys.append(("run", label.dag_id, label.run_id))
    if label.dag_id is not None and label.logical_date is not None:
        keys.append(("date", label.dag_id, label.logical_date))
    return keys
