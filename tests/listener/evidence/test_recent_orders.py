"""What was started after an order had ended: each process takes its order up again once, if any."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import recent_orders
from dagstop.evidence.recent_orders import LINGER, RecentOrders
from dagstop.evidence.watch import Watch
from dagstop.host.procfs import TICKS_PER_SECOND, ProcFS
from dagstop.model import Identity, StopOrder
from tests.support.fake_proc import ORDERED, FakeProc, order, tags

NOBODY: set[Identity] = set()
LATE = 600


class Host(FakeProc):
    """Its processes started so many seconds ago by the real clock."""

    def starts(self, pid: int, ago: float, **more: Any) -> Identity:
        start = ProcFS.now_ticks(self) - int(ago * TICKS_PER_SECOND)
        facts: dict[str, Any] = {"argv": ("sleep", "1"), "environ": tags()}
        self.add(pid, start=start, **(facts | more))
        return Identity(pid, start)


@pytest.fixture
def proc(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def recent(proc: Host, watch: Watch) -> RecentOrders:
    return RecentOrders(proc, watch)


def ended(recent: RecentOrders, asked: StopOrder, ago: float = 100.0, seen: set[Identity] = NOBODY) -> None:
    """It was reported on so many seconds ago."""
    recent.remember(asked, set(seen))
    assert asked.id is not None
    recent._orders[asked.id].at -= ago


def test_what_starts_after_the_end_takes_its_order_up_again_once(
    proc: Host, watch: Watch, recent: RecentOrders
) -> None:
    first, second = order(id=1), order(id=2, run_id="s", logical_date=None)
    for asked in (first, second):
        ended(recent, asked)
    assert recent.reopen() == set() and not recent.may_begin(first)
    proc.starts(LATE, 10)
    watch.look()
    assert recent.reopen() == {1}
    assert recent.reopen() == {1}, "until it is taken up"
    assert recent.may_begin(first) and not recent.may_begin(second)
    assert recent.reopen() == set() and not recent.may_begin(first)
    proc.starts(LATE + 1, 5)
    watch.look()
    assert recent.reopen() == {1}


def test_it_is_known_in_which_orders_a_late_starter_may_be(recent: RecentOrders) -> None:
    ended(recent, order(id=1))
    assert 1 in recent and 2 not in recent and None not in recent
    assert recent.may_begin(order(id=2))


@pytest.mark.parametrize(
    ("who", "again"),
    [
        ({}, True),
        ({"ago": 200.0}, False),  # it was there before
        ({"environ": tags(run="s")}, False),
        ({"environ": {**tags(), "DAGSTOP_SPARE": "1"}}, False),  # each of its children would be a report
        ({"argv": ["airflow task runner: d t r 7"]}, True),
        ({"argv": ["airflow task supervisor: ['airflow', 'tasks', 'run', 'd', 't', 'r', '--local']"]}, False),
    ],
    ids=["late", "early", "another run's", "asks to be spared", "a runner", "a supervisor"],
)
def test_who_is_a_late_starter(
    proc: Host, watch: Watch, recent: RecentOrders, who: dict[str, Any], again: bool
) -> None:
    ended(recent, order(id=1))
    proc.starts(LATE, **{"ago": 10.0, **who})
    watch.look()
    assert bool(recent.reopen()) is again


@pytest.mark.parametrize(("before", "again"), [(-0.5, True), (0.5, True), (1.5, False)])
def test_what_started_in_the_last_second_before_the_end_may_have_gone_unseen(
    proc: Host, watch: Watch, recent: RecentOrders, before: float, again: bool
) -> None:
    """Seconds before it: the last look is not the very end, and starts are counted in ticks."""
    started = proc.starts(LATE, 10)
    watch.look()
    ended(recent, order(id=1))
    recent._orders[1].at = time.monotonic() - proc.age(started.start) + before
    assert bool(recent.reopen()) is again


def test_what_the_order_has_seen_is_no_late_starter(proc: Host, watch: Watch, recent: RecentOrders) -> None:
    """Spared then, say, and still there."""
    seen, other = proc.starts(LATE, 10), proc.starts(LATE + 1, 10)
    watch.look()
    ended(recent, order(id=1), seen={seen, other})
    assert recent.reopen() == set()
    ended(recent, order(id=1), seen={seen})
    assert recent.reopen() == {1}
    assert recent.may_begin(order(id=1))
    proc.starts(LATE + 2, 10, environ=tags(run="s"))
    watch.look()
    assert recent.reopen() == set(), "each process once"


def test_an_order_that_is_remembered_again_is_looked_for_again(
    proc: Host, watch: Watch, recent: RecentOrders
) -> None:
    ended(recent, order(id=1))
    watch.look()
    assert recent.reopen() == set()
    proc.starts(LATE, 10)
    watch.look()
    assert recent.reopen() == {1} and recent.may_begin(order(id=1))
    ended(recent, order(id=1))
    assert recent.reopen() == {1}, "its new report did not name it"


def test_what_was_left_alone_stays_so(proc: Host, watch: Watch, recent: RecentOrders) -> None:
    ended(recent, order(id=1, hands_off="observe only"))
    proc.starts(LATE, 10)
    watch.look()
    assert recent.reopen() == set()


def test_late_starters_are_looked_for_as_long_as_the_fence_stands(
    proc: Host, watch: Watch, recent: RecentOrders
) -> None:
    ended(recent, order(id=1), ago=LINGER - 60)
    ended(recent, order(id=2), ago=LINGER + 1)
    proc.starts(LATE, 10)
    watch.look()
    assert recent.reopen() == {1}
    assert 1 in recent and 2 not in recent


def test_an_order_of_that_number_from_a_new_install_is_another_one(recent: RecentOrders) -> None:
    ended(recent, order(id=1))
    assert recent.may_begin(order(id=1, created_at=ORDERED + timedelta(seconds=1)))
    assert 1 not in recent


def test_of_more_than_it_keeps_the_oldest_is_forgotten(
    recent: RecentOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_orders, "MOST", 2)
    for number in (1, 2, 1, 3):  # the first was taken up again since
        ended(recent, order(id=number))
    assert [number in recent for number in (1, 2, 3)] == [True, False, True]


def test_the_same_host_is_not_searched_twice(
    proc: Host, watch: Watch, recent: RecentOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(recent, order(id=1))
    proc.starts(LATE, 200)
    watch.look()
    recent.reopen()
    monkeypatch.setattr(proc, "age", lambda _: pytest.fail("it searched again"))
    recent.reopen()
