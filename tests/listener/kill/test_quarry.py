"""One process at the end of a signal: identity first, death as it was seen, with a pidfd and without."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dagstop.evidence.watch import Watch
from dagstop.kill.quarry import Quarries, now
from dagstop.model import Identity, Process
from dagstop.outside.procfs import ProcFS

PROC = ProcFS()


@pytest.fixture(params=["pidfd", "no pidfd"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Quarries:
    """As on Linux 5.3 and later, and as on older kernels."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    return Quarries(PROC)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "7601"])
    yield process
    process.kill()
    process.wait()


def seen(child: subprocess.Popen[bytes]) -> Process:
    watch = Watch(PROC, trusted_uids=frozenset, own_pid=os.getpid())
    return watch.look()[child.pid]


def reaped(pool: Quarries, timeout: float = 5.0) -> int:
    until = time.monotonic() + timeout
    while not (dead := pool.reap()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return len(dead)


def test_sigterm_then_seen_dead_as_a_zombie(pool: Quarries, child: subprocess.Popen[bytes]) -> None:
    quarry = pool.take(seen(child))
    assert quarry is not None and pool.take(quarry.process) is quarry
    pool.stop(quarry, hard=False)
    pool.stop(quarry, hard=False)
    assert [name for name, _ in quarry.signals] == ["SIGTERM"]
    assert quarry.alive or quarry.died_at
    assert reaped(pool) == 1  # its parent, this test, has not waited for it
    assert not quarry.alive and pool.take(quarry.process) is None
    pool.release(quarry)


def test_a_reused_pid_is_not_touched(pool: Quarries, child: subprocess.Popen[bytes]) -> None:
    process = seen(child)
    older = replace(process, identity=Identity(process.pid, process.identity.start - 1))
    assert pool.take(older) is None
    assert child.poll() is None


@pytest.mark.parametrize("pool", ["no pidfd"], indirect=True)  # a pidfd is the process itself
def test_a_pid_reused_between_look_and_signal_is_not_touched(
    pool: Quarries, child: subprocess.Popen[bytes]
) -> None:
    quarry = pool.take(seen(child))
    assert quarry is not None
    quarry.process = replace(quarry.process, identity=Identity(child.pid, 1))
    pool.stop(quarry, hard=True)
    assert child.poll() is None and not quarry.alive and quarry.signals == []


def test_what_is_gone_is_no_error(pool: Quarries, child: subprocess.Popen[bytes]) -> None:
    quarry = pool.take(seen(child))
    assert quarry is not None
    child.kill()
    child.wait()
    pool.stop(quarry, hard=True)
    assert quarry.died_at is not None or reaped(pool) == 1


def test_dry_run_sends_nothing(child: subprocess.Popen[bytes]) -> None:
    pool = Quarries(PROC, dry_run=True)
    quarry = pool.take(seen(child))
    assert quarry is not None
    pool.stop(quarry, hard=True)
    assert child.poll() is None and quarry.signals == []


def test_forgotten_with_the_last_order_that_hunts_it(pool: Quarries, child: subprocess.Popen[bytes]) -> None:
    quarry = pool.take(seen(child))
    assert quarry is not None
    for _ in range(2):
        pool.hold(quarry)
    pool.release(quarry)
    assert pool.take(quarry.process) is quarry
    pool.release(quarry)
    assert quarry.pidfd is None and pool.take(quarry.process) is not quarry


def test_what_ends_by_itself_before_anybody_hunts_it_is_forgotten(
    pool: Quarries, child: subprocess.Popen[bytes]
) -> None:
    quarry = pool.take(seen(child))
    assert quarry is not None
    child.kill()
    assert reaped(pool) == 1
    assert pool.take(quarry.process) is None and not quarry.alive


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_signal_that_was_only_written_down_is_sent_again(
    pool: Quarries, child: subprocess.Popen[bytes], name: str
) -> None:
    """The listener before this one was killed between the note and the signal."""
    quarry = pool.take(seen(child))
    assert quarry is not None
    pool.resume(quarry, [(name, now())])
    assert [sent for sent, _ in quarry.signals] == [name, name]
    assert reaped(pool) == 1
