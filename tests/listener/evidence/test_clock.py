"""The database's clock, as far as an exchange of messages can tell it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from dagstop.evidence.clock import Clock
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity
from tests.support.fake_proc import FakeProc, process


def test_a_slow_answer_moves_no_clock() -> None:
    clock = Clock(ProcFS())
    clock.bound(-3.0, 0.001)  # the answer took three seconds; the clocks may well be equal
    assert clock.offset == 0.0


def test_the_offset_is_moved_no_further_than_it_must() -> None:
    clock = Clock(ProcFS())
    clock.bound(599.0, 600.5)
    assert clock.offset == 599.0
    clock.bound(599.9, 602.0)
    assert clock.offset == 599.9
    clock.bound(590.0, 605.0)
    assert clock.offset == 599.9
    clock.bound(-1.0, 1.0)  # somebody set it right
    assert clock.offset == 1.0
    assert clock.from_db(clock.to_db(now := clock.now())) == now


def test_only_that_very_process_lives_and_no_zombie_does(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.add(600, start=100)
    clock = Clock(proc)
    assert clock.lives(Identity(600, 100))
    assert not clock.lives(Identity(600, 101)) and not clock.lives(Identity(601, 100))
    proc.becomes_zombie(600)
    assert not clock.lives(Identity(600, 100))
    proc.add(602, start=100, state="X")  # the kernel is removing it
    assert not clock.lives(Identity(602, 100))


def test_when_a_process_began_is_told_on_the_databases_clock(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    clock = Clock(proc)
    clock.bound(3600.0, 3601.0)
    began = clock.started_at(process(identity=Identity(600, 100)))
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    booted = datetime.now(timezone.utc) - timedelta(seconds=up)
    assert abs(began - booted - timedelta(seconds=3601)) < timedelta(seconds=60)
