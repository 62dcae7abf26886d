"""One process at the end of a signal: identity first, death as it was seen, with a pidfd and without."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dagstop.evidence.watch import Watch
from dagstop.host.procfs import TICKS_PER_SECOND, ProcFS
from dagstop.kill.endings import Ending, Endings, now, spared_reason
from dagstop.model import Identity, Process
from tests.support.fake_proc import FakeProc, watch_of
from tests.support.watch import wait_until

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


def reaped(pool: Endings, timeout: float = 60.0) -> int:
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


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "resumed"])
def test_what_is_gone_is_no_error(pool: Endings, child: subprocess.Popen[bytes], how: str) -> None:
    ending = pool.take(seen(child))
    assert ending is not None
    child.kill()
    child.wait()
    if how == "resumed":
        pool.resume(ending, [("SIGTERM", now())])
    else:
        pool.stop(ending, hard=how == "SIGKILL")
    assert names(ending) == (["SIGTERM"] if how == "resumed" else [])
    assert ending.died_at is not None or reaped(pool) == 1


def test_dry_run_sends_nothing(child: subprocess.Popen[bytes]) -> None:
    pool = Endings(PROC, dry_run=True)
    ending = pool.take(seen(child))
    assert ending is not None
    pool.stop(ending, hard=True)
    assert child.poll() is None and ending.signals == []


def is_kept(identity: Identity) -> bool:
    """True if anything still knows the ending of that process."""
    gc.collect()
    return any(type(one) is Ending and one.identity == identity for one in gc.get_objects())


def test_forgotten_with_the_last_order_that_hunts_it(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    process, held = seen(child), set(os.listdir("/proc/self/fd"))
    ending = pool.take(process)
    assert ending is not None
    for _ in range(2):
        pool.hold(ending)
    pool.release(ending)
    assert pool.take(process) is ending
    pool.release(ending)
    assert set(os.listdir("/proc/self/fd")) <= held
    again = pool.take(process)
    assert again is not None and again is not ending
    pool.release(again)
    del ending, again
    assert not is_kept(process.identity)


def test_what_ends_by_itself_before_anybody_hunts_it_is_forgotten(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    process = seen(child)
    ending = pool.take(process)
    assert ending is not None
    child.kill()
    assert reaped(pool) == 1
    assert pool.take(process) is None and not ending.alive
    del ending
    assert not is_kept(process.identity)


@pytest.mark.parametrize("pool", ["pidfd"], indirect=True)
def test_what_is_released_is_not_told_of_though_a_child_of_ours_holds_its_descriptor(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    """Between its fork and its exec it holds all that we have open."""
    ending = taken(pool, child)
    assert ending.pidfd is not None
    copy = os.dup(ending.pidfd)
    pool.release(ending)
    other = taken(pool, child)
    assert other.pidfd is not None
    child.kill()
    select.select([copy], [], [], 60)
    assert pool.reap() == [other] and pool.reap() == []
    os.close(copy)


@pytest.mark.parametrize("letter", ["X", "x"])
def test_nothing_is_sent_to_what_is_dead_and_still_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    """On older kernels the pid may be given out again at any moment."""
    sent: list[int] = []
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    proc = FakeProc(tmp_path)
    pool = Endings(proc)
    proc.add(601, start=7, argv=("sleep", "1"))
    process = watch_of(proc).look()[601]
    ending = pool.take(process)
    assert ending is not None
    proc.end(601)
    proc.add(601, start=7, argv=("sleep", "1"), state=letter)
    pool.stop(ending, hard=True)
    assert sent == [] and not ending.alive
    assert pool.take(process) is None and Endings(proc).take(process) is None


@pytest.mark.parametrize("letter", ["Z", "X", "x", "gone", "S"])
def test_on_an_older_kernel_a_death_is_read_from_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    proc = FakeProc(tmp_path)
    proc.add(601, start=7, argv=("sleep", "1"))
    pool = Endings(proc)
    ending = pool.take(watch_of(proc).look()[601])
    assert ending is not None and pool.reap() == []
    proc.end(601)
    if letter != "gone":
        proc.add(601, start=7, argv=("sleep", "1"), state=letter)
    assert pool.reap() == ([] if letter == "S" else [ending])
    assert ending.alive is (letter == "S") and pool.reap() == []


def test_another_process_with_its_pid_does_not_speak_for_it(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    ending = taken(pool, child)
    assert pool.state(ending) != "?"
    ending.process = replace(ending.process, identity=Identity(child.pid, 1))
    assert pool.state(ending) == "?"


def test_who_asks_for_deaths_does_not_wait_for_one(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    """The quickest of three: a busy machine may stop us."""
    pool.hold(taken(pool, child))
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert pool.reap() == []
        took.append(time.monotonic() - began)
    assert min(took) < 0.5


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


def shell(script: str) -> subprocess.Popen[bytes]:
    """One that has said that it is ready."""
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def deaf() -> Iterator[subprocess.Popen[bytes]]:
    """It ignores SIGTERM."""
    with shell("trap '' TERM; echo ready; exec sleep 7602") as process:
        yield process
        process.kill()


@pytest.fixture
def careful() -> Iterator[subprocess.Popen[bytes]]:
    """It handles SIGTERM, says so, and lives on."""
    with shell("trap 'echo cleaning up' TERM; echo ready; while :; do read x; done") as process:
        yield process
        process.kill()


def state(process: subprocess.Popen[bytes]) -> str:
    stat = PROC.stat(process.pid)
    return stat.state if stat is not None else "gone"


def stopped(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(process) == "T", 60, lambda: state(process))


def taken(pool: Endings, process: subprocess.Popen[bytes]) -> Ending:
    ending = pool.take(seen(process))
    assert ending is not None
    return ending


def names(ending: Ending) -> list[str]:
    return [name for name, _ in ending.signals]


def test_who_ignores_sigterm_is_killed_at_once(pool: Endings, deaf: subprocess.Popen[bytes]) -> None:
    ending, told = taken(pool, deaf), list[str]()
    pool.stop(ending, hard=False, before=told.append)
    assert names(ending) == told == ["SIGKILL"] and ending.killed is not None
    assert reaped(pool) == 1


def test_it_is_told_before_each_first_signal_and_killed_once(
    pool: Endings, careful: subprocess.Popen[bytes]
) -> None:
    ending, told = taken(pool, careful), list[str]()
    assert (ending.first_signal, ending.first_tick, ending.killed) == (None, None, None)
    pool.stop(ending, hard=False, before=told.append)
    assert careful.stdout is not None and careful.stdout.readline() == b"cleaning up\n"
    first = ending.first_signal
    assert first is not None and ending.first_tick is not None and ending.killed is None
    for _ in range(2):
        pool.stop(ending, hard=True, before=told.append)
    assert names(ending) == told == ["SIGTERM", "SIGKILL"] and ending.first_signal == first
    assert ending.killed is not None
    assert reaped(pool) == 1 and pool.reap() == []


def test_a_stopped_process_is_continued_for_its_sigterm(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    stopped(child)
    ending = taken(pool, child)
    pool.stop(ending, hard=False)
    assert names(ending) == ["SIGTERM", "SIGCONT"]
    assert reaped(pool) == 1


def test_who_stops_while_it_cleans_up_is_continued(pool: Endings, careful: subprocess.Popen[bytes]) -> None:
    ending = taken(pool, careful)
    pool.stop(ending, hard=False)
    pool.stop(ending, hard=False)
    assert names(ending) == ["SIGTERM"]
    stopped(careful)
    ending.process.state = "T"
    pool.stop(ending, hard=False)
    assert names(ending) == ["SIGTERM", "SIGCONT"]
    wait_until(lambda: state(careful) != "T", 60, lambda: "it is stopped")
    pool.stop(ending, hard=True)
    pool.stop(ending, hard=False)
    assert names(ending) == ["SIGTERM", "SIGCONT", "SIGKILL"]


@pytest.mark.parametrize("ahead", [False, True])
def test_a_clean_up_goes_on_under_the_next_listener(
    pool: Endings, careful: subprocess.Popen[bytes], ahead: bool
) -> None:
    """Its grace began with the first signal; a clock that was set back gives no more than a whole one."""
    ending, moment = taken(pool, careful), now()
    ages = (-60.0, -30.0) if ahead else (60.0, 30.0)
    sent = [
        ("SIGTERM", moment - timedelta(seconds=ages[0])),
        ("SIGCONT", moment - timedelta(seconds=ages[1])),
    ]
    before, tick = time.monotonic(), PROC.now_ticks()
    pool.resume(ending, sent)
    assert names(ending) == ["SIGTERM", "SIGCONT"] and ending.killed is None
    age = 0.0 if ahead else 60.0
    slack = time.monotonic() - before + 1.0
    assert ending.first_signal is not None and ending.first_tick is not None
    assert -slack <= ending.first_signal - (before - age) <= slack
    assert -slack <= (ending.first_tick - tick) / TICKS_PER_SECOND + age <= slack
    assert not ahead or (ending.first_signal >= before and ending.first_tick >= tick)


def test_a_stopped_one_gets_its_sigterm_from_the_next_listener(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    stopped(child)
    ending = taken(pool, child)
    pool.resume(ending, [("SIGTERM", now())])
    assert names(ending) == ["SIGTERM", "SIGTERM", "SIGCONT"]
    assert reaped(pool) == 1


@pytest.mark.parametrize("sent", [("SIGTERM",), ("SIGTERM", "SIGKILL")])
def test_the_next_listener_kills_who_is_deaf_or_was_to_be_killed(
    pool: Endings, deaf: subprocess.Popen[bytes], careful: subprocess.Popen[bytes], sent: tuple[str, ...]
) -> None:
    ending = taken(pool, deaf if len(sent) == 1 else careful)
    pool.resume(ending, [(name, now()) for name in sent])
    assert names(ending) == [*sent, "SIGKILL"]
    assert reaped(pool) == 1


def test_a_dry_run_counts_it_as_dead_and_writes_nothing_down(child: subprocess.Popen[bytes]) -> None:
    pool = Endings(PROC, dry_run=True)
    ending = taken(pool, child)
    pool.stop(ending, hard=False, before=lambda name: pytest.fail(f"{name} is written down"))
    assert not ending.alive and ending.first_signal is not None and names(ending) == []
    assert child.poll() is None


@pytest.mark.parametrize(("error", "refused"), [(PermissionError, True), (ProcessLookupError, False)])
def test_a_signal_that_is_refused_or_comes_too_late(
    pool: Endings,
    child: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: type[OSError],
    refused: bool,
) -> None:
    def fails(*_: object) -> None:
        raise error

    ending = taken(pool, child)
    with monkeypatch.context() as patched:
        patched.setattr(signal, "pidfd_send_signal", fails)
        patched.setattr(os, "kill", fails)
        pool.stop(ending, hard=False)
    assert names(ending) == [] and ending.alive is refused
    assert ("EPERM" in (ending.refused or "")) is refused


def test_a_zombie_is_not_taken_and_nothing_is_left_open(
    pool: Endings, child: subprocess.Popen[bytes]
) -> None:
    process = seen(child)
    child.kill()
    wait_until(lambda: state(child) == "Z", 60, lambda: state(child))
    held = set(os.listdir("/proc/self/fd"))
    assert pool.take(process) is None
    assert set(os.listdir("/proc/self/fd")) == held


FIRST_THREAD_ENDS = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
os.read(0, 1)
ctypes.CDLL(None).syscall(60, 0)
"""


@pytest.fixture
def threaded() -> Iterator[subprocess.Popen[bytes]]:
    """Its first thread ends with its standard input, another one stays."""
    with subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of exit(2)")
@pytest.mark.parametrize("pool", ["pidfd"], indirect=True)
def test_who_lives_on_in_another_thread_than_its_first_is_not_dead(
    pool: Endings, threaded: subprocess.Popen[bytes]
) -> None:
    """It looks like a zombie, and only a pidfd says that it is none."""
    process = seen(threaded)
    assert threaded.stdin is not None
    threaded.stdin.close()
    wait_until(lambda: state(threaded) == "Z", 60, lambda: state(threaded))
    ending = pool.take(process)
    assert ending is not None and pool.reap() == [] and ending.alive
    pool.stop(ending, hard=True)
    assert reaped(pool) == 1


def test_of_two_the_one_that_died_is_seen_dead(pool: Endings, child: subprocess.Popen[bytes]) -> None:
    other = subprocess.Popen(["sleep", "7604"])
    ending, living = taken(pool, child), taken(pool, other)
    for one in (ending, living):
        pool.hold(one)
    assert pool.reap() == [] and ending.died is None
    child.kill()
    assert reaped(pool) == 1
    assert not ending.alive and ending.died is not None and living.alive
    assert (pool.state(ending), living.pidfd is None) == ("Z", not hasattr(os, "pidfd_open"))
    assert ending.pidfd is None
    other.kill()
    other.wait()
    assert reaped(pool) == 1 and pool.state(living) == "?"


def test_its_descriptor_is_readable_at_a_death(child: subprocess.Popen[bytes]) -> None:
    pool = Endings(PROC)
    ending = taken(pool, child)
    assert select.select([pool.fileno()], [], [], 0)[0] == []
    pool.stop(ending, hard=True)
    assert select.select([pool.fileno()], [], [], 60)[0] == [pool.fileno()]
    assert pool.reap() == [ending]
    assert select.select([pool.fileno()], [], [], 0)[0] == []


def test_why_it_is_spared_says_what_it_had_got() -> None:
    assert spared_reason("cleared", None) == spared_reason("cleared", []) == "cleared"
    sent = [("SIGTERM", now()), ("SIGCONT", now())]
    assert spared_reason("cleared", sent) == "cleared; it had got SIGTERM, SIGCONT"
