"""Whose a process is, from the forks that the kernel reports, once parents, session and environment are gone."""

from __future__ import annotations

import itertools

import pytest

from dagstop.evidence.lineage import Lineage
from dagstop.evidence.watch import Watch
from dagstop.host.process_events import EXIT, FORK, Batch, Event
from dagstop.model import Role
from tests.support.airflow_trees import BASH, RUNNER, SCHEDULER, airflow_2
from tests.support.fake_proc import HOME, FakeEvents, FakeProc, tags, watch_of


@pytest.fixture
def watch(proc: FakeProc, events: FakeEvents) -> Watch:
    """On a host where a task of Airflow 2 runs, and has been seen."""
    airflow_2(proc)
    watch = watch_of(proc, events=events)
    watch.look()
    return watch


def escapes(proc: FakeProc, events: FakeEvents, pid: int, *between: int, by: int = BASH, **more: str) -> None:
    """A daemon: forked by what ended at once, its session its own, its environment gone."""
    for child in (*between, pid):
        events.forked(by, child)
        by = child
    for child in between:
        events.ended(child)
    proc.add(pid, ppid=1, argv=("sleep", "100"), **more)  # type: ignore[arg-type]
    proc.now += 1
    events.executed(pid)


def told(watch: Watch, pid: int) -> str | None:
    label = watch.processes[pid].label
    return label.task_id if label is not None else None


@pytest.mark.parametrize("how", ["tick", "look", "attend"])
def test_what_gave_up_everything_is_its_tasks(
    proc: FakeProc, events: FakeEvents, watch: Watch, how: str
) -> None:
    escapes(proc, events, 800, 700, 701)
    proc.now += 5
    getattr(watch, how)()
    assert told(watch, 800) == "t"
    daemon = watch.processes[800]
    assert f"forked by a child of {BASH}, which has ended" in daemon.evidence
    assert daemon.trusted and daemon.contrary is None and not daemon.with_runner


def test_without_the_kernels_word_it_is_nobodys(proc: FakeProc) -> None:
    airflow_2(proc)
    watch = watch_of(proc)
    watch.look()
    proc.add(800, ppid=1, argv=("sleep", "100"))
    watch.tick()
    watch.look()
    assert told(watch, 800) is None


def test_a_daemons_own_children_are_the_tasks_too(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    escapes(proc, events, 800, 700)
    watch.tick()
    proc.end(800)
    for number in range(30):  # each forks the next one and ends
        events.forked(800 + number, 801 + number)
        events.ended(800 + number)
    proc.add(830, ppid=1, argv=("sleep", "100"))
    watch.tick()
    assert told(watch, 830) == "t"


def test_a_pid_that_was_given_out_again_is_another_process(
    proc: FakeProc, events: FakeEvents, watch: Watch
) -> None:
    escapes(proc, events, 800, 700)
    watch.tick()
    proc.end(800)
    events.ended(800)
    events.forked(90, 800)
    proc.add(800, ppid=1, argv=("sleep", "100"))
    events.forked(800, 801)
    proc.add(801, ppid=1, argv=("sleep", "100"))
    watch.tick()
    watch.look()
    assert told(watch, 800) is None and told(watch, 801) is None


def test_what_started_after_it_was_told_of_is_not_that(
    proc: FakeProc, events: FakeEvents, watch: Watch
) -> None:
    """The pid is given out again between the message and the reading: its own fork is still to be told."""
    events.forked(BASH, 800)
    proc.now += 50
    proc.add(800, ppid=1, argv=("sleep", "100"))
    watch.tick()
    assert told(watch, 800) is None


def test_what_was_forked_before_the_title_was_read(proc: FakeProc, events: FakeEvents) -> None:
    """A runner sets its title once it runs; what it forked by then is its task's all the same."""
    watch = watch_of(proc, events=events)
    watch.look()
    events.forked(1, 600)
    proc.add(600, argv=("python", "/srv/run.py"), environ={"AIRFLOW_HOME": HOME})
    escapes(proc, events, 800, 700, by=600)
    watch.tick()
    assert told(watch, 800) is None
    proc.become(600, ("airflow task runner: d t manual__1 4",))
    watch.tick()
    watch.look()
    assert told(watch, 800) == "t"


def test_a_service_that_a_task_started_and_its_children(
    proc: FakeProc, events: FakeEvents, watch: Watch
) -> None:
    """As for what descends from a living parent: a service is never a task's, nor what it starts."""
    escapes(proc, events, 800, 700)
    proc.become(800, ("/usr/sbin/sshd", "-D"))
    watch.tick()
    assert watch.processes[800].role is Role.SERVICE
    events.forked(800, 801)
    proc.add(801, ppid=800, argv=("-bash",))
    watch.tick()
    proc.end(800)
    events.ended(800)
    events.forked(801, 802)
    proc.add(802, ppid=1, argv=("sleep", "1"))
    watch.tick()
    watch.look()
    assert [told(watch, pid) for pid in (801, 802)] == [None, None]


def test_an_exec_makes_it_another_thing(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    escapes(proc, events, 800, 700)
    watch.tick()
    watch.tick()
    watch.tick()
    assert told(watch, 800) == "t"
    proc.become(800, ("/usr/sbin/sshd", "-D"))
    events.executed(800)
    watch.attend()
    assert watch.processes[800].role is Role.SERVICE and told(watch, 800) is None


def test_who_asks_to_be_spared_is_and_so_is_what_it_forks(
    proc: FakeProc, events: FakeEvents, watch: Watch
) -> None:
    events.forked(BASH, 700)
    proc.add(700, ppid=BASH, argv=("bash",), environ={"DAGSTOP_SPARE": "1"})
    proc.now += 1
    watch.attend()
    proc.end(700)
    escapes(proc, events, 800, by=700)
    events.ended(700)
    watch.tick()
    assert told(watch, 800) == "t" and watch.processes[800].kin_spared


def test_another_airflow_contradicts(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    theirs = tags(AIRFLOW_HOME="/srv/other")
    escapes(proc, events, 800, 700, environ=theirs)  # type: ignore[arg-type]
    watch.tick()
    assert "AIRFLOW_HOME differs" in (watch.processes[800].contrary or "")


def test_what_a_scheduler_forks_is_no_tasks(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    escapes(proc, events, 800, 700, by=SCHEDULER)
    watch.tick()
    watch.look()
    assert told(watch, 800) is None


def test_after_a_gap_only_what_was_read_is_known(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    escapes(proc, events, 800, 700)
    watch.tick()
    events.forked(BASH, 701)
    events.overflows()
    watch.attend()  # 701 ended, and its pid was given out again: both untold
    proc.add(701, ppid=1, argv=("sleep", "100"), start=proc.now + 500)
    events.forked(701, 702)
    proc.now += 600
    proc.add(702, ppid=1, argv=("sleep", "100"))
    watch.tick()
    watch.tick()
    assert (told(watch, 800), told(watch, 701), told(watch, 702)) == ("t", None, None)
    escapes(proc, events, 900, 901)
    watch.tick()
    assert told(watch, 900) == "t"


def test_a_look_follows_what_is_forked_during_it(
    proc: FakeProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that forks the next and ends, between the listing and the reading of a look."""
    escapes(proc, events, 800, 700)
    pids = proc.pids

    def listed() -> list[int]:
        found = pids()
        monkeypatch.setattr(proc, "pids", pids)
        proc.end(800)
        escapes(proc, events, 801, by=800)
        events.ended(800)
        return found

    monkeypatch.setattr(proc, "pids", listed)
    watch.look()
    assert told(watch, 801) == "t"


def test_what_was_read_before_its_fork_was_told(
    proc: FakeProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = proc.pids

    def listed() -> list[int]:
        monkeypatch.setattr(proc, "pids", pids)
        escapes(proc, events, 800, 700)
        return pids()

    monkeypatch.setattr(proc, "pids", listed)
    watch.look()
    watch.tick()
    assert told(watch, 800) == "t"


def test_a_tick_goes_by_what_was_told(
    proc: FakeProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.tick()  # proves that the kernel tells
    monkeypatch.setattr(proc, "pids", lambda: pytest.fail("it listed /proc"))
    escapes(proc, events, 800, 700)
    watch.tick()
    assert told(watch, 800) == "t"
    proc._stat(800, "Z", [1, 800, 800], watch.processes[800].identity.start)
    events.ended(800)
    watch.tick()
    assert watch.processes[800].state == "Z"
    monkeypatch.undo()
    proc.end(800)  # its parent has waited for it, of which nobody is told
    monkeypatch.setattr(proc, "pids", lambda: pytest.fail("it listed /proc"))
    watch.tick()
    assert 800 not in watch.processes and watch.told


def test_a_kernel_that_ceases_to_tell_is_no_longer_believed(
    proc: FakeProc, events: FakeEvents, watch: Watch
) -> None:
    watch.tick()
    watch._prove_at = 0.0
    events.forked(BASH, 800)
    proc.add(800, ppid=BASH, argv=("sleep", "1"))
    watch.tick()
    events.forked(BASH, 700)
    events.ended(700)
    watch.tick()
    proc.add(700, ppid=BASH, state="Z")  # nobody waits for it
    watch._prove_at = 0.0
    watch.tick()
    assert watch.told
    watch._prove_at = 0.0
    proc.add(801, ppid=BASH, argv=("sleep", "1"))
    watch.tick()
    assert not watch.told and told(watch, 801) == "t"
    proc.add(802, ppid=BASH, argv=("sleep", "1"))
    watch.tick()
    assert told(watch, 802) == "t"


def test_a_long_chain_of_short_lives_is_forgotten() -> None:
    lineage = Lineage({})
    second = 10**9
    for number in range(20_000):
        at = number * second // 50
        lineage.take([Event(FORK, number + 1, number, at), Event(EXIT, number, 0, at)], 0)
    lineage.attended()
    node = lineage._nodes[20_000]
    length = 0
    while node.parent is not None:
        node, length = node.parent, length + 1
    assert length < 1500 and len(lineage._nodes) == 1


def test_home_and_database_come_with_the_label(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    escapes(proc, events, 800, 700)
    watch.tick()
    label = watch.processes[800].label
    assert label is not None and label.airflow_home == HOME and label.job_id == 4


def test_a_fork_of_a_runner_executes_something_after_the_runners_end(
    proc: FakeProc, events: FakeEvents, watch: Watch
) -> None:
    """It bore the runner's title; what it becomes does not, and belongs to the task."""
    events.forked(RUNNER, 700)
    proc.add(700, ppid=RUNNER, argv=["airflow task runner: d t r 4"], sid=SCHEDULER)
    watch.tick()
    assert watch.processes[700].role is Role.RUNNER
    proc.end(RUNNER)
    events.ended(RUNNER)
    proc.become(700, ("gzip", "x"))
    events.executed(700)
    watch.tick()
    assert watch.processes[700].role is Role.OTHER and told(watch, 700) == "t"


def test_how_a_docker_client_ended_is_told_once(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    for pid, argv in ((800, ("docker", "run", "-d", "image")), (801, ("sleep", "1"))):
        events.forked(BASH, pid)
        proc.add(pid, ppid=BASH, argv=argv)
        events.executed(pid)
    kin = watch.attend()
    assert {process.pid for process in kin} == {800, 801} and watch.client_ends() == []
    for pid in (800, 801):
        events.ended(pid, status=256)
        proc.end(pid)
    watch.attend()
    (end,) = watch.client_ends()
    assert (end.process.pid, end.status) == (800, 256)
    assert watch.client_ends() == []


def test_what_a_task_starts_as_another_user(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    """`su -c 'sleep 100 &' somebody`: su is root's, the shell and the daemon are somebody's."""
    events.forked(BASH, 700)
    proc.add(700, ppid=BASH, argv=("su", "-c", "sleep 100 &", "somebody"), uid=0)
    proc.now += 1
    events.executed(700)
    watch.attend()
    proc.end(700)
    events.forked(700, 701)
    events.ended(700)
    events.forked(701, 800)
    events.ended(701)
    proc.add(800, ppid=1, argv=("sleep", "100"), uid=4711)
    watch.tick()
    assert told(watch, 800) == "t"
    assert watch.processes[800].trusted and watch.processes[800].contrary is None


def test_what_podman_runs_is_its_tasks(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    """As rootful podman 4.3.1 was seen to do it: conmon leaves its parents, the container's init is its child."""
    escapes(proc, events, 801, 800)
    proc.become(801, ("/usr/bin/conmon", "--api-version", "1"))
    events.forked(801, 802)
    proc.add(802, ppid=801, argv=("sleep", "100"), namespace="pid:[2]")
    proc.now += 1
    events.executed(802)
    watch.attend()
    for pid in (801, 802):
        assert told(watch, pid) == "t" and watch.processes[pid].contrary is None


def test_a_look_follows_from_generation_to_generation(
    proc: FakeProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is forked while the one before it is read."""
    read, next_pid = events.read, itertools.count(800)
    by = BASH

    def forks_meanwhile() -> Batch:
        nonlocal by
        pid = next(next_pid)
        if pid < 805:
            events.forked(by, pid)
            proc.add(pid, argv=("sleep", "1"))
            by = pid
        return read()

    watch.look()
    monkeypatch.setattr(events, "read", forks_meanwhile)
    watch.look()
    assert [told(watch, pid) for pid in range(800, 805)] == ["t"] * 5
