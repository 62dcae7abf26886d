"""No report is lost from sight between its writing and its sending."""

from __future__ import annotations

from typing import Any

from dagstop.database.outbox import Outbox


def report(order_id: int, outcome: str | None = "stopped") -> dict[str, Any]:
    return {"order_id": order_id, "outcome": outcome}


def outbox_of(*reports: dict[str, Any]) -> Outbox:
    outbox = Outbox()
    for one in reports:
        outbox.put(one)
    return outbox


def test_reports_go_in_the_order_that_they_came() -> None:
    outbox = outbox_of(report(1), report(2), report(3))
    assert outbox.first(2) == [report(1), report(2)]
    assert outbox.first(2) == [report(1), report(2)]  # nothing leaves before it is said to be sent
    outbox.sent(2)
    assert outbox.first(2) == [report(3)]
    outbox.sent(1)
    assert outbox.first(2) == [] and outbox.unsent == set()


def test_what_is_held_up_is_unsent_and_is_tried_before_what_came_later() -> None:
    outbox = outbox_of(report(1), report(2), report(3))
    outbox.sent(2, [report(1)])
    assert outbox.held == {1} and outbox.unsent == outbox.final == {1, 3}
    assert outbox.first(9) == [report(3)]
    outbox.try_held()
    assert outbox.first(9) == [report(1), report(3)] and outbox.held == set()


def test_only_a_report_with_an_outcome_is_final() -> None:
    outbox = outbox_of(report(1, None), report(2))
    assert outbox.unsent == {1, 2} and outbox.final == {2}
    outbox.put(report(1))
    outbox.sent(2, [report(1, None)])
    assert outbox.unsent == {1} and outbox.final == {1}
