"""How often all of /proc is read for an order: where the kernel tells, once, when all that is known is dead."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from dagstop.cases.stopping import Stopping
from dagstop.config import ListenerConfig
from dagstop.evidence.clock import Clock
from dagstop.evidence.places import Places
from dagstop.evidence.watch import Watch
from dagstop.feed.notices import News
from dagstop.kill.endings import Ending
from dagstop.model import Identity, Process
from tests.support.airflow_trees import BASH, RUNNER, airflow_2
from tests.support.fake_proc import HOME, UID, URL, FakeEvents, FakeProc, order, row, watch_of
from tests.support.watch import wait_until


class Host:
    """In place of Endings, on a host where Airflow 2 runs a task; writes down what is done, in order."""

    def __init__(self, proc: FakeProc, watch: Watch) -> None:
        self.proc = proc
        self.done: list[str] = []
        self.endings: dict[Identity, Ending] = {}
        self.dying: list[Ending] = []
        look = watch.look

        def looked() -> dict[int, Process]:
            self.done.append("all of /proc")
            return look()

        watch.look = looked  # type: ignore[method-assign]

    def take(self, process: Process) -> Ending | None:
        ending = self.endings.setdefault(process.identity, Ending(process, None))
        return ending if ending.alive else None

    def hold(self, ending: Ending) -> None:
        ending.holders += 1

    def release(self, ending: Ending) -> None:
        ending.holders -= 1

    def stop(self, ending: Ending, *, hard: bool, before: Any) -> None:
        if ending.first_signal is None:
            ending.first_signal = time.monotonic()
            self.done.append(f"signal {ending.process.pid}")

    def state(self, ending: Ending) -> str:
        return "S" if ending.alive else ""

    def ends(self) -> None:
        """All that were signalled end, and their parents wait for them."""
        for ending in self.endings.values():
            self.proc.end(ending.process.pid)
            self.dying.append(ending)

    def reap(self) -> list[Ending]:
        dead, self.dying = self.dying, []
        for ending in dead:
            ending.died_at, ending.died = datetime.now(timezone.utc), time.monotonic()
        return dead


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


@pytest.fixture(params=["told", "looks"])
def watch(proc: FakeProc, request: pytest.FixtureRequest) -> Watch:
    airflow_2(proc)
    watch = watch_of(proc, events=FakeEvents(proc) if request.param == "told" else None)
    watch.look()
    watch.tick()
    return watch


def test_the_last_look_alone_is_at_everything(proc: FakeProc, watch: Watch) -> None:
    host = Host(proc, watch)
    aside: Any = MagicMock()
    aside.journal.of.return_value = []
    containers: Any = MagicMock(any_engine=False, answers=[], claims=[])
    pool: Any = host
    config = ListenerConfig(URL, (HOME,), task_users=(UID,))
    stopping = Stopping(
        config, proc, Clock(proc), watch, pool, containers, aside, aside, aside, Places(proc, ())
    )
    moment = datetime.now(timezone.utc)
    rows: Any = {"targets": (row(job_id=4),), "present": (row(job_id=4, state="failed"),)}
    one = order(created_at=moment, db_now=moment, **rows)
    stopping.prepare()
    stopping.take(News([one], (0.0, 0.0), sweep=False, chores=False))
    assert [f"signal {RUNNER}", f"signal {BASH}"] == host.done[:2] and "all of /proc" not in host.done
    until = time.monotonic() + 0.3  # some rounds with all of it alive

    def gone_on() -> bool:
        stopping.step()
        return time.monotonic() > until

    wait_until(gone_on, 20, lambda: str(host.done))
    assert ("all of /proc" in host.done) is not watch.told
    host.ends()

    def reported() -> bool:
        stopping.step()
        return not stopping.under_way

    wait_until(reported, 20, lambda: str(host.done))
    assert host.done[-1] == "all of /proc"
    if watch.told:
        assert host.done.count("all of /proc") == 1
