"""What the watch makes of process trees, and what it still knows when they fall apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.evidence.memory import Known
from dagstop.evidence.watch import Watch
from dagstop.model import Identity, Label, Process, Role
from tests.support.airflow_trees import (
    BASH,
    BASH_ARGV,
    CLOBBERED,
    RUNNER,
    SCHEDULER,
    SLEEP,
    SUPERVISOR,
    WORKER,
    airflow_1_10_0,
    airflow_2,
)
from tests.support.fake_proc import HOME, KEY, UID, UUID, FakeProc, tags, watch_of


def job_of(watch: Watch, pid: int) -> int | None:
    label = watch.processes[pid].label
    return label.job_id if label is not None else None


def test_a_whole_tree_is_labelled_in_one_look(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    seen = watch.look()
    assert {pid: p.role for pid, p in seen.items()} == {
        1: Role.SERVICE, 90: Role.OTHER, SCHEDULER: Role.SERVICE, WORKER: Role.SERVICE,
        SUPERVISOR: Role.SUPERVISOR, RUNNER: Role.RUNNER, BASH: Role.OTHER, SLEEP: Role.OTHER,
    }  # fmt: skip
    assert {p.pid for p in watch.labelled()} == {SUPERVISOR, RUNNER, BASH, SLEEP}
    assert seen[SLEEP].label == Label(
        dag_id="d", run_id="r", task_id="t", try_number=1, job_id=4, airflow_home=HOME, database=KEY
    )
    assert seen[SLEEP].evidence == ("environment", f"child of {BASH}")
    assert seen[SLEEP].line == {RUNNER, SUPERVISOR}
    assert [seen[pid].with_runner for pid in (RUNNER, BASH, SLEEP)] == [True, False, False]
    assert all(seen[pid].trusted and seen[pid].contrary is None for pid in (RUNNER, BASH, SLEEP))


def test_a_label_outlives_every_ancestor(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    watch.look()
    for pid in (SCHEDULER, SUPERVISOR, RUNNER, BASH):
        proc.end(pid)
    watch.tick()
    watch.look()
    assert {p.pid for p in watch.labelled()} == {SLEEP}
    assert job_of(watch, SLEEP) == 13 and watch.processes[SLEEP].contrary is None


def test_a_double_fork_stays_in_its_session(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    watch.look()
    proc.add(160, ppid=1, pgid=BASH, sid=BASH, argv=("sleep", "6002"))  # its parent came and went
    watch.look()
    watch.look()
    assert job_of(watch, 160) == 13
    assert watch.processes[160].evidence == (f"session {BASH}",)


def test_a_double_fork_of_one_that_was_seen_to_die(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    proc.end(SLEEP)
    watch.look()
    proc.add(160, ppid=BASH, pgid=BASH, sid=BASH, argv=("sleep", "6002"))
    watch.died(watch.processes[BASH].identity)
    proc.end(BASH)
    watch.look()
    assert job_of(watch, 160) == 13


def test_setsid_under_a_known_parent(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    proc.add(160, ppid=BASH, argv=("sleep", "6003"))
    watch.look()
    proc.end(BASH)
    proc.add(161, ppid=160, argv=("sleep", "6004"))
    watch.look()
    assert job_of(watch, 160) == job_of(watch, 161) == 13


def test_a_pid_used_again_is_another_process(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    watch.look()
    proc.end(SLEEP)
    proc.add(SLEEP, ppid=1, argv=("sleep", "6001"))
    watch.look()
    assert watch.processes[SLEEP].label is None


def test_a_parent_pid_used_again_is_no_parent(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    watch.look()
    proc.add(170, ppid=RUNNER, argv=("stranger",), start=5)
    watch.look()
    assert watch.processes[170].label is None


def test_a_session_number_used_again_is_another_session(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    watch.look()
    for pid in (SLEEP, BASH):
        proc.end(pid)
    watch.tick()
    other = tags(dag="e", run="s", task="u")
    proc.add(BASH, ppid=1, argv=("bash", "-c", "x"), environ=other)
    proc.add(171, ppid=1, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    for _ in range(3):
        watch.look()
    assert watch.processes[171].label == watch.processes[BASH].label
    assert watch.processes[BASH].label == Label(
        dag_id="e", run_id="s", task_id="u", try_number=1, airflow_home=HOME, database=KEY
    )


def test_a_session_that_ended_takes_nobody_in(proc: FakeProc, watch: Watch) -> None:
    airflow_1_10_0(proc)
    watch.look()
    for pid in (SLEEP, BASH):
        proc.end(pid)
    watch.look()
    proc.add(172, ppid=1, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    watch.look()
    watch.look()
    assert watch.processes[172].label is None


def test_a_session_that_ended_long_ago_is_forgotten(proc: FakeProc, watch: Watch) -> None:
    """And a process group: who keeps all of them for ever has one for each task that there was."""
    airflow_2(proc)
    watch.look()
    for pid in (SLEEP, BASH):
        proc.end(pid)
    labelling = watch._labelling
    watch.look()
    assert BASH in labelling._sessions and BASH in labelling._groups
    proc.now += 100 * 3600
    watch.look()
    assert BASH not in labelling._sessions and BASH not in labelling._groups


def test_the_schedulers_session_says_nothing(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(173, ppid=SCHEDULER, sid=SCHEDULER, pgid=SCHEDULER, argv=("git", "pull"), environ=CLOBBERED)
    watch.look()
    watch.look()
    assert watch.processes[173].label is None


def test_a_fork_gets_its_words_when_it_has_them(proc: FakeProc, watch: Watch) -> None:
    """Supervisor -> runner -> bash: each bears its parent's words until it changes them."""
    airflow_2(proc)
    proc.become(RUNNER, ["airflow task supervisor: ['airflow', 'tasks', 'run', 'd', 't', 'r', '--local']"])
    proc.become(BASH, ["airflow task runner: d t r 4"], CLOBBERED)
    watch.tick()
    proc.become(RUNNER, ["airflow task runner: d t r 4"])
    proc.become(BASH, BASH_ARGV, tags())
    watch.tick()
    watch.tick()
    roles = [watch.processes[pid].role for pid in (SUPERVISOR, RUNNER, BASH)]
    assert roles == [Role.SUPERVISOR, Role.RUNNER, Role.OTHER]
    assert job_of(watch, BASH) == 4 and not watch.processes[BASH].with_runner


def test_an_executors_worker_goes_from_task_to_task(proc: FakeProc, watch: Watch) -> None:
    """3.x: its title names the task of the moment; none of them sticks."""
    other = UUID.replace("0", "f")
    proc.add(SCHEDULER, argv=("python", "airflow", "scheduler"), environ={"AIRFLOW_HOME": HOME})
    proc.add(WORKER, ppid=SCHEDULER, sid=SCHEDULER, argv=["airflow worker -- LocalExecutor: <idle>"])
    watch.tick()
    assert watch.processes[WORKER].role is Role.SERVICE and watch.processes[WORKER].label is None
    proc.become(WORKER, [f"airflow worker -- LocalExecutor: {UUID}"])
    proc.add(RUNNER, ppid=WORKER, sid=SCHEDULER, argv=[f"airflow worker -- LocalExecutor: {UUID}"])
    watch.tick()
    assert {watch.processes[pid].role for pid in (WORKER, RUNNER)} == {Role.SUPERVISOR}
    proc.become(RUNNER, [f"airflow worker -- {UUID}"])
    watch.tick()
    runner = watch.processes[RUNNER]
    assert (runner.role, runner.label) == (Role.RUNNER, Label(ti_id=UUID, airflow_home=HOME))
    proc.end(RUNNER)
    proc.become(WORKER, [f"airflow worker -- LocalExecutor: {other}"])
    watch.tick()
    assert watch.processes[WORKER].label == Label(ti_id=other, airflow_home=HOME)
    proc.become(WORKER, ["airflow worker -- LocalExecutor: <idle>"])
    watch.tick()
    assert watch.processes[WORKER].label is None


def test_a_celery_runner_is_known_however_late_it_says_so(proc: FakeProc, watch: Watch) -> None:
    proc.add(WORKER, argv=["[celeryd: celery@host:ForkPoolWorker-1]"])
    proc.add(RUNNER, ppid=WORKER, argv=["[celeryd: celery@host:ForkPoolWorker-1]"])
    for _ in range(5):
        watch.tick()
    proc.become(RUNNER, ["airflow task runner: d t r 4"])
    watch.tick()
    assert watch.processes[RUNNER].role is Role.RUNNER and job_of(watch, RUNNER) == 4


def test_what_execs_is_still_the_tasks(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    watch.tick()
    proc.become(BASH, ("python", "train.py"), {})
    watch.tick()
    watch.tick()
    assert job_of(watch, BASH) == 4


def test_an_orphan_of_systemd_user_is_the_tasks(proc: FakeProc, watch: Watch) -> None:
    proc.add(80, argv=("/lib/systemd/systemd", "--user"))
    airflow_2(proc)
    proc.end(RUNNER)
    proc.end(BASH, adopted_by=80)
    watch.look()
    assert watch.processes[SLEEP].label is not None and watch.processes[SLEEP].contrary is None


def test_what_an_earlier_listener_knew(proc: FakeProc, watch: Watch) -> None:
    proc.add(80, argv=("/usr/sbin/cron",))
    proc.add(300, ppid=80, argv=("sleep", "1"), uid=1000, start=400)
    proc.add(301, argv=["airflow worker -- LocalExecutor: <idle>"], start=401)
    proc.add(302, argv=("sleep", "1"), start=402)
    known = Label(dag_id="d", run_id="r", task_id="t")
    identities = (Identity(300, 400), Identity(301, 401), Identity(302, 1))
    watch.restore(dict.fromkeys(identities, Known(known)))
    watch.look()
    sleep = watch.processes[300]
    assert (sleep.label, sleep.evidence, sleep.trusted, sleep.contrary) == (
        known,
        ("remembered",),
        True,
        None,
    )
    assert watch.processes[301].label is None and watch.processes[302].label is None


def test_as_whom_tasks_run_is_seen_by_their_runners(proc: FakeProc) -> None:
    """But root, as whom much else runs, and who is not believed."""
    watch = watch_of(proc, trusted=(0, 1, UID))
    for number, uid in enumerate((0, 1, UID, 1000)):
        proc.add(600 + number, argv=[f"airflow task runner: d t r {number}"], uid=uid)
    proc.add(610, argv=("sleep", "1"), environ=tags(), uid=2)
    proc.add(611, argv=["airflow task runner: d t r 9"], uid=UID + 1, namespace="pid:[2]")
    watch.look()
    assert watch.users() == {1, UID}


def test_it_says_when_there_is_something_new_to_save(proc: FakeProc, watch: Watch) -> None:
    watch.look()
    assert not watch.changed
    airflow_2(proc)
    watch.tick()
    assert watch.changed


pids = st.integers(1, 12)
environments = st.sampled_from(
    [b"", CLOBBERED, b"\xff=\xfe\0AIRFLOW_CTX_DAG_ID=\xff\0AIRFLOW_CTX_DAG_RUN_ID=\n\0"]
) | st.builds(
    lambda d, r: "".join(f"{k}={v}\0" for k, v in tags(d, r).items()).encode(), *[st.sampled_from("de")] * 2
)
commands = st.sampled_from(
    ["airflow task runner: d t d 4", "airflow task runner: e t e 4", f"airflow worker -- {UUID}", "sleep 1",
     "airflow scheduler", "airflow tasks test d t d", "airflow worker -- LocalExecutor", "/usr/sbin/sshd", "",
     "airflow task supervisor: ['airflow', 'tasks', 'run', 'd', 't', 'd', '--local']"]
)  # fmt: skip
births = st.tuples(st.just("born"), pids, pids, pids, pids, commands, environments)
changes = st.tuples(st.sampled_from(["dies", "execs", "tick", "look"]), pids, commands, environments)


@given(st.lists(births | changes, max_size=25))
def test_no_history_of_a_host_breaks_it(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[Any, ...]]
) -> None:
    proc = FakeProc(tmp_path_factory.mktemp("proc"))
    watch = watch_of(proc)
    for what, pid, *rest in history:
        pid += 300
        alive = pid in proc.pids()
        if what == "born" and not alive:
            ppid, pgid, sid, argv, environ = rest
            proc.add(pid, ppid=ppid + 300, pgid=pgid + 300, sid=sid + 300, argv=(argv,), environ=environ)
        elif what == "dies" and alive:
            proc.end(pid)
        elif what == "execs" and alive:
            proc.become(pid, (rest[0],), rest[1])
        elif what in {"tick", "look"}:
            getattr(watch, what)()
            for process in watch.processes.values():
                check(process)


def check(process: Process) -> None:
    """What holds for every process at every moment."""
    if process.label is None:
        return
    assert process.pid > 2 and process.label.names_a_run()
    if process.role in {Role.SERVICE, Role.TEST}:
        assert process.contrary is not None
    if process.title is not None and process.title.dag_id is not None:
        assert process.label.dag_id == process.title.dag_id
    own = process.environ.get("AIRFLOW_CTX_DAG_ID")
    if process.title is None and own and process.environ.get("AIRFLOW_CTX_DAG_RUN_ID"):
        assert process.label.dag_id == own
