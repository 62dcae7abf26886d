"""One process at the end of a signal: identity first, death as it was seen, with a pidfd and without."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dagstop.evidence.watch import Watch
from dagstop.host.procfs import ProcFS
from dagstop.kill.endings import Endings, now
from dagstop.model import Identity, Process

PROC = ProcFS()


@pytest.fixture(params=["pidfd", "no pidfd"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Endings:
    """As on Linux 5.3 and later, and as on older kernels."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    return Endings(PROC)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "7601"])
    yield process
    process.kill()
    process.wait()


def seen(child: subprocess.Popen[bytes]) -> Process:
    watch = Watch(PROC, trusted_uids=frozenset, own_pid=os.getpid())
    return watch.look()[child.pid]


def reaped(pool: Endings, timeout: float = 5.0) -> int:
    until = time.monotonic() + timeout
    while not (dead := pool.reap()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return len(dead)


def test_sigterm_then_seen_dead_as_a_zombie(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    ending = pool.take(seen(child))
    assert ending is not None and pool.take(ending.process) is ending
    pool.stop(ending, hard=False)
    pool.stop(ending, hard=False)
    assert [name for name, _ in ending.signals] == ["SIGTERM"]
    assert ending.alive or ending.died_at
    assert reaped(pool) == 1  # its parent, this test, has not waited for it
    assert not ending.alive and pool.take(ending.process) is None
    pool.release(ending)


def test_a_reused_pid_is_not_touched(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    process = seen(child)
    older = replace(process, identity=Identity(process.pid, process.identity.start - 1))
    assert pool.take(older) is None
    assert child.poll() is None


@pytest.mark.parametrize("pool", ["no pidfd"], indirect=True)  # a pidfd is the process itself
def test_a_pid_reused_between_look_and_signal_is_not_touched(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    ending = pool.take(seen(child))
    assert ending is not None
    ending.process = replace(ending.process, identity=Identity(child.pid, 1))
    pool.stop(ending, hard=True)
    assert child.poll() is None and not ending.alive and ending.signals == []


def test_what_is_gone_is_no_error(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    ending = pool.take(seen(child))
    assert ending is not None
    child.kill()
    child.wait()
    pool.stop(ending, hard=True)
    assert ending.died_at is not None or reaped(pool) == 1


def test_dry_run_sends_nothing(child: subprocess.Popen[bytes]) -> None:
    pool = Endings(PROC, dry_run=True)
    ending = pool.take(seen(child))
    assert ending is not None
    pool.stop(ending, hard=True)
    assert child.poll() is None and ending.signals == []


def test_forgotten_with_the_last_order_that_hunts_it(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    ending = pool.take(seen(child))
    assert ending is not None
    for _ in range(2):
        pool.hold(ending)
    pool.release(ending)
    assert pool.take(ending.process) is ending
    pool.release(ending)
    assert ending.pidfd is None and pool.take(ending.process) is not ending


def test_what_ends_by_itself_before_anybody_hunts_it_is_forgotten(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    ending = pool.take(seen(child))
    assert ending is not None
    child.kill()
    assert reaped(pool) == 1
    assert pool.take(ending.process) is None and not ending.alive


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_signal_that_was_only_written_down_is_sent_again(
    pool: Endings, child: subprocess.Popen[bytes], name: str
) -> None:
    """The listener before this one was killed between the note and the signal."""
    ending = pool.take(seen(child))
    assert ending is not None
    pool.resume(ending, [(name, now())])
    assert [sent for sent, _ in ending.signals] == [name, name]
    assert reaped(pool) == 1
