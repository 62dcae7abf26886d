"""Daemons that give up parents, session and environment within milliseconds, and a run that is failed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.fence import Fence, FencedTasks
from tests.support.forks import STORM
from tests.support.listener import Listener, remembered, show
from tests.support.marks import one_server, shape_2
from tests.support.watch import hold, wait_until

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]
TASKS = 8
RUN = f"run{os.getpid()}"
"""No other test of the machine, whose processes are seen here, has one of that name."""
ESCAPES = """
(env -i setsid sleep {0}01 &)
(env -i setsid bash -c 'setsid sleep {0}02 & exit' &)
(env -i python3 -c 'import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0)
os.execvpe("sleep", ["sleep", "{0}03"], {{}})' &)
(env -i setsid bash -c '(setsid sleep {0}04 &) & sleep 0.02' &)
for _ in 1 2; do (env -i setsid sleep {0}05 &); sleep 0.05; done
{1}
exec sleep {0}00
"""
OF_EACH = 7
ROUNDS = 3
HOP = "echo >> $(dirname $0)/$1; sleep 0.05; env -i setsid bash $0 $1 & exit"


def begin(tasks: FencedTasks, run: str, number: int, hop: Path | None = None) -> None:
    """A bash task that lets six daemons go, and goes on itself; `hop`: another one hops from pid to pid."""
    more = f"(env -i setsid bash {hop} {run} &)" if hop is not None else ""
    tasks.bash(ESCAPES.format(number, more), tasks.environment("dag", run, "a"))


def sleeps(fence: Fence, number: int) -> list[str]:
    return [words for words in fence.commands() if words.startswith(f"sleep {number}0")]


def wait_for_sleeps(fence: Fence, number: int, count: int) -> None:
    wait_until(lambda: len(sleeps(fence, number)) == count, 20, lambda: str(fence.commands()))


def remembered_sleeps(fence: Fence, listener: Listener) -> bool:
    """Whether the listener has written down each sleep of run 1; what lives for a moment it writes down, too."""
    known = {row[0] for row in remembered(listener.state_dir, "labels")}
    pids = []
    for pid in fence.living():
        with contextlib.suppress(OSError):  # it has ended
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            pids += [pid] if words[0] == b"sleep" and words[1].startswith(b"10") else []
    return len(pids) == OF_EACH and known.issuperset(pids)


def told(listener: Listener, db: AirflowDatabase) -> bool:
    """Whether the heartbeat says that the kernel tells it of forks."""
    query = "select (detail -> 'process_events' ->> 'told')::boolean from dagstop.listener"
    wait_until(lambda: db.rows(query), 20, listener.log)
    return bool(db.one(query))


@pytest.mark.parametrize("allowed", [True, False])
def test_none_outlives_its_run_where_the_kernel_tells(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, allowed: bool
) -> None:
    airflow_db.add_running(RUN)
    airflow_db.add_running("other", number=1)
    hop = fence.home / "hop.sh"
    hop.write_text(HOP)
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, fence=fence.within(told=allowed)) as listener,
    ):
        assert told(listener, airflow_db) == (initial and allowed)
        tasks.start(["bash", "-c", "(env -i setsid sleep 3001 &)"], {}, session=True).wait()
        for _ in range(TASKS):
            begin(tasks, RUN, 1)
            begin(tasks, "other", 2)
        begin(tasks, RUN, 1, hop)
        begin(tasks, "other", 2, hop)
        everything = (TASKS + 1) * OF_EACH
        wait_until(
            lambda: len(sleeps(fence, 1)) == len(sleeps(fence, 2)) == everything,
            30,
            lambda: f"{len(sleeps(fence, 1))} and {len(sleeps(fence, 2))} of {everything}",
        )
        airflow_db.set_run("failed", RUN)
        (report,) = listener.wait_for_reports(1)
        outlived = sleeps(fence, 1)
        if initial and allowed:
            assert not outlived, show(report)
            assert report["outcome"] == "stopped", show(report)
            hopped = Path(fence.home, RUN).stat().st_size  # would grow within a second
            hold(lambda: Path(fence.home, RUN).stat().st_size == hopped or pytest.fail(show(report)), 1)
        else:
            assert len(outlived) > TASKS, "nothing escaped: is this still a test of it?"
        assert len(sleeps(fence, 2)) == everything and len(sleeps(fence, 3)) == 1
        hopped = Path(fence.home, "other").stat().st_size
        wait_until(lambda: Path(fence.home, "other").stat().st_size > hopped, 5, lambda: "the hopper is gone")


def test_what_asks_to_be_spared_and_services_live(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool
) -> None:
    """By the rules of what descends from a living parent: a child of what asks to be spared is spared, too."""
    airflow_db.add_running(RUN)
    asks = (
        "export DAGSTOP_SPARE=1; exec bash -c '(sleep 0.5; exec env -i setsid sleep 2001) & exec sleep 2002'"
    )
    serves = "(exec -a /usr/sbin/sshd bash -c '(env -i setsid sleep 2003 &); sleep 2004; :' &)"
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, fence=fence.within(told=True)) as listener,
    ):
        assert told(listener, airflow_db) == initial
        tasks.bash(
            f"({asks}) & {serves}; (env -i setsid sleep 1001 &); exec sleep 1002",
            tasks.environment("dag", RUN, "a"),
        )
        wait_until(
            lambda: len(sleeps(fence, 1)) == 2 and len(sleeps(fence, 2)) == 4,
            20,
            lambda: str(fence.commands()),
        )
        airflow_db.set_run("failed", RUN)
        (report,) = listener.wait_for_reports(1)
        assert sorted(sleeps(fence, 2)) == [f"sleep 200{number}" for number in (1, 2, 3, 4)], show(report)
        assert not sleeps(fence, 1) or not initial  # a look may meet it before its parent has ended
        assert report["outcome"] == "spared", show(report)


def test_what_was_told_outlives_the_listener(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool
) -> None:
    """SIGKILLed and started again: what it was told of it remembers, though nothing in /proc shows it."""
    airflow_db.add_running(RUN)
    airflow_db.add_running("other", number=1)
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, fence=fence.within(told=True)) as listener,
    ):
        assert told(listener, airflow_db) == initial
        begin(tasks, RUN, 1)
        begin(tasks, "other", 2)
        wait_until(lambda: len(sleeps(fence, 2)) == OF_EACH, 20, lambda: str(fence.commands()))
        listener.wait_until_remembered(2)
        if initial:
            wait_until(lambda: remembered_sleeps(fence, listener), 20, listener.log)
        listener.kill()
        listener.start()
        airflow_db.set_run("failed", RUN)
        (report,) = listener.wait_for_reports(1)
        assert len(sleeps(fence, 2)) == OF_EACH
        if initial:
            assert not sleeps(fence, 1) and report["outcome"] == "stopped", show(report)
            evidence = {proof for item in report["detail"]["processes"] for proof in item["evidence"]}
            assert "remembered" in evidence, show(report)


def test_after_a_storm_that_nobody_could_note_everything_is_looked_at(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool
) -> None:
    airflow_db.add_running(RUN)
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, fence=fence.within(told=True)) as listener,
    ):
        assert told(listener, airflow_db) == initial
        begin(tasks, RUN, 1)
        wait_until(lambda: len(sleeps(fence, 1)) == OF_EACH, 20, lambda: str(fence.commands()))
        listener.wait_until_remembered(OF_EACH if initial else 1)
        assert listener.process is not None
        listener.process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 60
        for _ in range(60_000 if initial else 1):
            try:  # a fork and an exit each, and no exec
                os.posix_spawn("/dev/null/none", ["none"], {})
            except OSError:
                pass
            assert time.monotonic() < until
        listener.process.send_signal(signal.SIGCONT)
        if initial:
            listener.wait_until_gap("events of the kernel were lost")
        begin(tasks, RUN, 1)
        wait_until(lambda: len(sleeps(fence, 1)) == 2 * OF_EACH, 20, lambda: str(fence.commands()))
        airflow_db.set_run("failed", RUN)
        (report,) = listener.wait_for_reports(1)
        if initial:
            assert not sleeps(fence, 1) and report["outcome"] == "stopped", show(report)


def test_none_is_lost_beside_a_program_that_forks_all_the_time(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool
) -> None:
    airflow_db.add_running(RUN)
    storm = [*fence.within(), sys.executable, "-c", STORM, "2000"]
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, fence=fence.within(told=True)) as listener,
        subprocess.Popen(storm, stdout=subprocess.PIPE, text=True, cwd="/") as forking,
    ):
        assert told(listener, airflow_db) == initial
        assert forking.stdout is not None and forking.stdout.readline() == "there\n"
        for _ in range(3):
            begin(tasks, RUN, 1)
        wait_until(lambda: len(sleeps(fence, 1)) == 3 * OF_EACH, 30, lambda: str(fence.commands()))
        airflow_db.set_run("failed", RUN)
        (report,) = listener.wait_for_reports(1)
        assert forking.poll() is None
        forking.kill()
        if initial and "process events lost" not in listener.log():  # that is another test's
            assert not sleeps(fence, 1) and report["outcome"] == "stopped", show(report)


def test_only_what_was_let_go_while_no_listener_ran_outlives_its_run(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool
) -> None:
    """SIGKILLed and started again, several times; log and report say when none ran, and name it as unknown."""
    airflow_db.add_running(RUN)
    orders = fence.home / "orders"
    os.mkfifo(orders)
    os.chown(orders, fence.uid, fence.uid)
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, fence=fence.within(told=True)) as listener,
        open(os.open(orders, os.O_RDWR), "w", buffering=1) as task,
    ):
        assert told(listener, airflow_db) == initial
        lets_go = f"while read -r words; do (env -i setsid $words &); done < {orders}"
        tasks.bash(lets_go, tasks.environment("dag", RUN, "a"))
        listener.wait_until_remembered(1)
        for number in range(1, ROUNDS + 1):
            task.write(f"sleep 10{number}\n")
            wait_for_sleeps(fence, 1, number)
            listener.wait_until_remembered(1 + number if initial else 1)
            listener.kill()
            task.write(f"sleep 20{number}\n")
            wait_for_sleeps(fence, 2, number)
            before = len(listener.log())
            listener.start()
            assert "no listener ran since=" in listener.log(before)
        airflow_db.set_run("failed", RUN)
        (report,) = listener.wait_for_reports(1)
        assert len(sleeps(fence, 2)) == ROUNDS, show(report)
        assert not sleeps(fence, 1) or not initial, show(report)  # a look may meet one before it is let go
        named = {item["command"] for item in report["detail"]["spared"] if "may be the run's" in item["why"]}
        let_go = {f"sleep 20{number}" for number in range(1, ROUNDS + 1)}
        assert let_go <= named and report["outcome"] == "spared", show(report)
        gaps = [gap["why"] for gap in report["detail"]["not_told"]]
        assert gaps.count("no listener ran") == ROUNDS, show(report)
        if initial:
            assert named == let_go, show(report)
