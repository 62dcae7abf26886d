"""Processes that start, stop, hang or pass on their pid at the worst moment."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from dagstop.evidence.watch import Watch
from dagstop.host.procfs import ProcFS
from dagstop.kill.endings import Endings
from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show, signals_of
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.support.watch import wait_until
from tests.testbed import proc

PTRACE_ATTACH, PTRACE_DETACH = 16, 17

BREEDER = """
import signal, subprocess, sys, time
import setproctitle
setproctitle.setproctitle("airflow task runner: dag a run 7")
ends = [float("inf")]
def on_term(number, frame):
    ends[0] = time.monotonic() + 0.3
signal.signal(signal.SIGTERM, on_term)
children = []
while time.monotonic() < ends[0]:
    if len(children) < 300:
        children.append(subprocess.Popen(["sleep", "7911"], start_new_session=True))
    time.sleep(0.005)
"""

HYDRA = """
import os, signal, sys, time
def on_term(number, frame):
    if lives[0] and os.fork() == 0:
        os.setsid()
        lives[0] -= 1
    else:
        os._exit(0)
lives = [int(sys.argv[1])]
signal.signal(signal.SIGTERM, on_term)
open(sys.argv[2], "w").close()
while True:
    time.sleep(60)
"""

SPAWNER = """
import os, sys
os.posix_spawn("/bin/true", ["true"], dict(os.environ), file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])
"""


def is_stopped(pid: int) -> bool:
    return state_of(pid) == "T"


def state_of(pid: int) -> str:
    found = proc.read(pid)
    return found.state if found is not None else "gone"


@one_server
@shape_2
def test_what_a_runner_starts_until_its_last_moment_dies_with_it(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """Whatever instant the order meets, some child is between fork and exec, or not yet seen."""
    airflow_db.add_running("run")
    runner = tasks.start([sys.executable, "-c", BREEDER], tasks.environment("dag", "run", "a"), session=True)
    wait_until(lambda: len(find("sleep 7911")) > 10, 60, lambda: "no children")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=60)
        assert report["outcome"] == "stopped", show(report)
        assert not find("sleep 7911") and runner.wait(10) is not None
        assert all(item["died_at"] for item in report["detail"]["processes"])


@one_server
@shape_2
def test_a_bounded_fork_bomb_and_children_that_come_back(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    bomb = 'b() { [ "$1" -gt 0 ] || exec sleep 7921; b $(($1 - 1)) & b $(($1 - 1)) & wait; }; b 6'
    tasks.bash(bomb, tasks.environment("dag", "run", "a"))
    mark = tmp_path / "ready"
    tasks.start(
        [sys.executable, "-c", HYDRA, "12", str(mark)], tasks.environment("dag", "run", "a"), session=True
    )
    tasks.wait_for_file(mark, 60)
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")  # the bomb may still be going off
        (report,) = listener.wait_for_reports(1, timeout=60)
        assert report["outcome"] == "stopped", show(report)
        assert not find("sleep 7921") and not proc.find(HYDRA)


@one_server
@shape_2
def test_a_process_stopped_after_it_was_known_is_continued(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    process = tasks.bash("sleep 7931; :", tasks.environment("dag", "run", "a"))
    (sleep,) = wait_for("sleep 7931")
    with Listener(airflow_db.url, tmp_path, "--grace", "120") as listener:
        listener.wait_until_remembered(2)
        for pid in (process.pid, sleep):
            os.kill(pid, signal.SIGSTOP)
            wait_until(partial(is_stopped, pid), 10, lambda: "not stopped")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=60)  # not after its grace
    assert signals_of(report, process.pid) == ["SIGTERM", "SIGCONT"], show(report)


@one_server
@shape_2
def test_a_process_in_uninterruptible_sleep_dies_by_sigkill(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """A parent in vfork(2) is in state D until its child has exec'd: here never, it waits for a fifo."""
    airflow_db.add_running("run")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = tasks.start(
        [sys.executable, "-c", SPAWNER, str(fifo)], tasks.environment("dag", "run", "a"), session=True
    )
    wait_until(lambda: state_of(process.pid) == "D", 60, lambda: state_of(process.pid))
    with Listener(airflow_db.url, tmp_path, "--grace", "1") as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=60)
    assert report["outcome"] == "stopped" and len(report["detail"]["processes"]) == 2, show(report)
    assert signals_of(report, process.pid) == ["SIGTERM", "SIGKILL"], show(report)


@one_server
@shape_2
def test_a_process_held_by_a_debugger_dies_by_sigkill(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    process = tasks.bash("exec sleep 7941", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7941")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_ATTACH, process.pid, None, None) == 0, os.strerror(ctypes.get_errno())
    try:
        wait_until(lambda: state_of(process.pid) == "t", 10, lambda: state_of(process.pid))
        with Listener(airflow_db.url, tmp_path, "--grace", "1") as listener:
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1, timeout=60)
    finally:
        libc.ptrace(PTRACE_DETACH, process.pid, None, None)
    assert report["outcome"] == "stopped", show(report)
    assert signals_of(report, process.pid)[-1] == "SIGKILL", show(report)


@pytest.mark.parametrize("how", ["pidfd", "no pidfd"])
@pytest.mark.parametrize("taken", ["before its death", "after it"])
def test_who_got_the_pid_of_a_dead_task_lives(how: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid is given out again between look and signal: forced, by /proc/sys/kernel/ns_last_pid."""
    if how == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    known = ProcFS()
    pool = Endings(known)
    task = subprocess.Popen(["sleep", "7951"])
    seen = Watch(known, trusted_uids=frozenset, own_pid=os.getpid()).look()[task.pid]
    ending = pool.take(seen) if taken == "before its death" else None
    task.kill()
    task.wait()
    other = reuse(task.pid)
    try:
        ending = ending or pool.take(seen)
        if ending is not None:
            pool.stop(ending, hard=True)
            assert not ending.alive and ending.signals == []
        assert state_of(other.pid) in "RS"
    finally:
        other.kill()
        assert other.wait() == -signal.SIGKILL


def reuse(pid: int, timeout: float = 60.0) -> subprocess.Popen[bytes]:
    """A process with this pid, which was just set free."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        time.sleep(0.02)  # its start differs by a clock tick at least
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        except PermissionError as exc:
            missing(exc)
        process = subprocess.Popen(["sleep", "7952"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"pid {pid} was not given out again")
