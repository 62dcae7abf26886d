"""What only looks like the task's: strangers, tests by hand, containers, another Airflow inside a task."""

from __future__ import annotations

from typing import Any

import pytest

from dagstop.evidence.match import asks_to_be_spared
from dagstop.evidence.watch import Watch
from dagstop.model import Role
from tests.support.airflow_trees import (
    BASH,
    BASH_ARGV,
    CLOBBERED,
    RUNNER,
    airflow_2,
)
from tests.support.fake_proc import HOME, UUID, FakeProc, tags


@pytest.mark.parametrize(
    "service", ["/usr/sbin/sshd", "/usr/sbin/cron", "[celeryd: x]", "gunicorn: master [a]"]
)
def test_a_shell_of_somebody_with_a_tasks_environment_is_spared(
    proc: FakeProc, watch: Watch, service: str
) -> None:
    proc.add(80, argv=(service,))
    proc.add(81, ppid=80, argv=("bash",), environ=tags())
    proc.add(82, ppid=81, argv=("sleep", "1"), environ=tags())
    watch.look()
    for pid in (81, 82):
        assert "it runs under" in str(watch.processes[pid].contrary)


def test_a_shell_of_somebody_is_spared_however_deep_below_a_service(proc: FakeProc, watch: Watch) -> None:
    """And the home is found there, however far up it is shown."""
    proc.add(80, argv=("/usr/sbin/sshd",))
    proc.add(1000, ppid=80, argv=("bash",), environ={"AIRFLOW_HOME": "/srv/other"})
    for pid in range(1001, 1100):
        proc.add(pid, ppid=pid - 1, argv=("bash",))
    words = {name: value for name, value in tags().items() if name.startswith("AIRFLOW_CTX")}
    proc.add(1100, ppid=1099, argv=("sleep", "1"), environ=words)
    watch.look()
    seen = watch.processes[1100]
    assert "it runs under '/usr/sbin/sshd'" in str(seen.contrary)
    assert seen.label is not None and seen.label.airflow_home == "/srv/other"


def test_processes_that_are_each_others_parents_end_no_look(proc: FakeProc, watch: Watch) -> None:
    """As they may seem while pids are given out again."""
    proc.add(600, ppid=601, argv=("bash",), environ=tags(), start=500)
    proc.add(601, ppid=600, argv=("bash",), start=500)
    watch.look()
    assert watch.processes[600].label is not None


def test_a_test_by_hand_is_spared_with_all_it_starts(proc: FakeProc, watch: Watch) -> None:
    proc.add(80, argv=("airflow", "tasks", "test", "d", "t", "r"), environ={"AIRFLOW_HOME": HOME})
    proc.add(81, ppid=80, argv=BASH_ARGV, environ=tags())
    watch.tick()
    proc.become(80, [f"airflow worker -- {UUID}"])  # 3.x
    proc.add(82, ppid=80, argv=[f"airflow worker -- {UUID}"])
    watch.tick()
    assert watch.processes[80].role is Role.TEST
    for pid in (81, 82):
        assert "test run by hand" in str(watch.processes[pid].contrary)


def test_a_container_is_left_to_its_engine(proc: FakeProc, watch: Watch) -> None:
    proc.add(80, argv=("/usr/bin/containerd-shim-runc-v2", "-id", "x"))
    proc.add(81, ppid=80, argv=("sleep", "1"), environ=tags(), namespace="pid:[2]")
    proc.add(82, ppid=1, argv=["airflow task runner: d t r 4"], namespace="pid:[2]")
    watch.look()
    for pid in (81, 82):
        assert watch.processes[pid].contrary == "it lives in another pid namespace"


def test_a_namespace_that_the_task_itself_made_is_the_tasks(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(160, ppid=BASH, argv=("unshare", "--pid"), environ=tags(), namespace="pid:[2]")
    watch.look()
    assert watch.processes[160].contrary is None


def test_another_airflow_started_by_a_task_is_not_the_tasks(proc: FakeProc, watch: Watch) -> None:
    """A bash task starts a scheduler; what that runs has nothing to do with the outer run."""
    airflow_2(proc)
    inner: Any = {"pgid": BASH, "sid": BASH, "environ": CLOBBERED}
    proc.add(200, ppid=BASH, argv=("python", "airflow", "scheduler"), pgid=BASH, sid=BASH, environ=tags())
    proc.add(201, ppid=200, argv=["airflow executor -- LocalExecutor"], **inner)
    proc.add(202, ppid=200, argv=[f"airflow worker -- LocalExecutor: {UUID}"], **inner)
    proc.add(203, ppid=202, argv=[f"airflow worker -- {UUID}"], **inner)
    proc.add(204, ppid=203, argv=BASH_ARGV, environ=tags(dag="e", run="s", task="u"))
    proc.add(205, ppid=200, argv=[f"airflow worker -- {UUID}"], **inner)
    proc.add(206, ppid=BASH, argv=[f"airflow worker -- {UUID}"], **inner)
    watch.look()
    watch.look()
    assert watch.processes[200].role is Role.SERVICE
    assert watch.processes[201].label is None
    for pid in (202, 203, 205, 206):
        label = watch.processes[pid].label
        assert label is not None and (label.ti_id, label.dag_id) == (UUID, None)
    label = watch.processes[204].label
    assert label is not None and (label.dag_id, label.ti_id, label.job_id) == ("e", UUID, None)


def test_a_daemon_scheduler_started_by_a_task_leads_no_session(proc: FakeProc, watch: Watch) -> None:
    proc.add(200, ppid=1, argv=("python", "airflow", "scheduler"), environ=tags())
    proc.add(201, ppid=1, pgid=200, sid=200, argv=("helper",))
    watch.look()
    watch.look()
    assert watch.processes[201].label is None


def test_a_run_started_by_a_task_is_its_own(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    words = ("python", "airflow", "tasks", "run", "e", "u", "s")
    proc.add(200, ppid=BASH, argv=(*words, "--local"), pgid=BASH, sid=BASH, environ=tags())
    proc.add(201, ppid=200, argv=["airflow task runner: e u s 9"], sid=BASH, environ=CLOBBERED)
    proc.add(202, ppid=201, argv=BASH_ARGV, environ=tags(dag="e", run="s", task="u"))
    proc.add(203, ppid=201, argv=("stray",), environ=tags())  # says it is of the outer run
    proc.add(204, ppid=203, argv=("stray", "child"), environ=tags())
    watch.look()
    for pid in (200, 201, 202):
        label = watch.processes[pid].label
        assert label is not None and label.dag_id == "e"
        assert watch.processes[pid].contrary is None
    for pid in (203, 204):
        assert "differs" in str(watch.processes[pid].contrary)


def test_another_airflow_home_below_a_task_is_anothers(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    environ = {**tags(), "AIRFLOW_HOME": "/srv/b", "DAGSTOP_AIRFLOW_HOME": HOME}
    words = ("python", "airflow", "run", "d", "t", "2026-11-22", "--raw")
    proc.add(200, ppid=BASH, argv=words, environ=environ)
    proc.add(201, ppid=200, argv=BASH_ARGV, environ=environ)
    watch.look()
    label = watch.processes[200].label
    assert label is not None and label.airflow_home == "/srv/b"
    assert "AIRFLOW_HOME differs" in str(watch.processes[201].contrary)


def test_a_strangers_environment_is_not_believed(proc: FakeProc, watch: Watch) -> None:
    proc.add(300, argv=("sleep", "1"), environ=tags(), uid=1000)
    proc.add(301, argv=["airflow task runner: d t r 4"], uid=1000)
    proc.add(302, ppid=301, argv=("sudo", "x"), uid=50000)  # setuid: no more than who called it
    watch.look()
    assert [watch.processes[pid].trusted for pid in (300, 301, 302)] == [False, False, False]


def test_a_task_that_runs_as_another_user_is_believed(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(300, ppid=RUNNER, argv=("sudo", "-u", "etl", "x"), uid=0)
    proc.add(301, ppid=300, argv=("x",), uid=1000)
    watch.look()
    assert watch.processes[300].trusted and watch.processes[301].trusted


def test_what_is_amid_an_exec_asks_as_its_parent_does(proc: FakeProc, watch: Watch) -> None:
    """For that moment /proc shows no environment; what gave its own up shows none for good."""
    airflow_2(proc)
    spared = {**tags(), "DAGSTOP_SPARE": "1"}
    proc.become(BASH, BASH_ARGV, spared)
    child: Any = {"pgid": BASH, "sid": BASH}
    proc.add(500, ppid=BASH, argv=BASH_ARGV, **child)
    proc.add(501, ppid=500, argv=("sleep", "1"), **child)
    proc.add(502, ppid=BASH, argv=("sleep", "1"), environ={**tags(), "DAGSTOP_SPARE": "0"}, **child)
    seen = watch.look()
    assert [asks_to_be_spared(seen[pid]) for pid in (RUNNER, BASH, 500, 501, 502)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    proc.become(BASH, BASH_ARGV, b"")
    proc.become(500, ("sleep", "2"), tags())
    watch.tick()
    assert not asks_to_be_spared(seen[500])
    proc.end(500)
    proc.add(503, ppid=502, argv=("sleep", "3"), **child)
    watch.tick()
    assert [asks_to_be_spared(seen[pid]) for pid in (BASH, 501, 503)] == [True, True, False]
