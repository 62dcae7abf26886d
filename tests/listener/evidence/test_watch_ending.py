"""A first look at an Airflow that is just dying: what shows no words any more may have been the runner."""

from __future__ import annotations

import errno

import pytest

from dagstop.evidence.memory import Known
from dagstop.evidence.watch import Watch
from dagstop.host.procfs import parse_ending
from tests.support.airflow_trees import BASH_ARGV
from tests.support.fake_proc import HOME, UUID, FakeEvents, FakeProc, tags, watch_of

CELERY, SUPERVISOR, RUNNER, BASH, SLEEP = 100, 120, 130, 140, 150


def dying(proc: FakeProc, *, state: str = "Z", runner: tuple[str, ...] = ()) -> None:
    proc.add(CELERY, argv=("[celeryd: celery@worker:MainProcess]",))
    proc.add(RUNNER, ppid=CELERY, argv=runner, state=state)
    proc.add(BASH, ppid=RUNNER, argv=BASH_ARGV, environ=tags())
    proc.add(SLEEP, ppid=BASH, argv=("sleep", "1"), pgid=BASH, sid=BASH, environ=tags())


def test_orphans_of_a_runner_that_frees_its_memory_are_asked_for_again(proc: FakeProc, watch: Watch) -> None:
    dying(proc)
    for _ in range(3):
        seen = watch.look()
        for pid in (BASH, SLEEP):
            assert seen[pid].above_ends and seen[pid].contrary is None
            assert seen[pid].unread == {"parent": f"what it runs under is ending: pid {RUNNER}"}
    proc.end(RUNNER)
    watch.tick()
    for pid in (BASH, SLEEP):
        assert not seen[pid].above_ends and seen[pid].contrary is None and not seen[pid].unread
        assert seen[pid].trusted


def test_an_orphan_of_what_was_asked_for_again_is_a_tasks_once_both_above_it_are_gone(
    proc: FakeProc, events: FakeEvents
) -> None:
    """A daemon gave up its environment; its parent was read in a moment in which its own parent was ending."""
    dying(proc)
    watch = watch_of(proc, events=events)
    watch.look()
    events.forked(BASH, SLEEP + 1)
    proc.add(SLEEP + 1, ppid=BASH, argv=("sleep", "2"))
    watch.attend()
    assert watch.processes[SLEEP + 1].above_ends
    for pid in (BASH, RUNNER):
        proc.end(pid)
        events.ended(pid)
    for see in (watch.attend, watch.tick, watch.look):
        see()
    seen = watch.processes[SLEEP + 1]
    assert seen.label is not None and not seen.unread and not seen.above_ends and seen.contrary is None


def test_whose_environment_cannot_be_read_while_its_runner_ends_says_nothing_of_what_it_starts(
    proc: FakeProc, watch: Watch
) -> None:
    dying(proc)
    proc.refused[SLEEP, "environ"] = errno.EACCES
    proc.add(SLEEP + 1, ppid=SLEEP, argv=("sleep", "2"), pgid=BASH, sid=BASH, environ=tags())
    watch.look()
    assert watch.processes[SLEEP].unread.keys() == {"environ", "parent"}
    assert watch.processes[SLEEP + 1].unread.keys() == {"parent"}


def test_a_shell_that_shows_no_words_but_lives_is_looked_through(proc: FakeProc, watch: Watch) -> None:
    dying(proc, state="S")
    watch.look()
    assert "it runs under" in str(watch.processes[BASH].contrary)


def test_what_runs_under_a_worker_stays_spared_once_its_parent_is_gone(proc: FakeProc, watch: Watch) -> None:
    """Seen while all lived: a shell by hand is not a task's, whatever ends above it."""
    dying(proc, state="S", runner=("bash",))
    watch.look()
    proc.end(RUNNER)
    watch.look()
    assert "it runs under" in str(watch.processes[SLEEP].contrary)


def test_what_was_remembered_is_not_doubted(proc: FakeProc, watch: Watch) -> None:
    dying(proc)
    watch.look()
    labels = {p.identity: Known(p.label) for p in watch.labelled() if p.label is not None}
    again = Watch(proc, trusted_uids=lambda: frozenset({50000}), own_pid=90)
    again.restore(labels)
    again.look()
    assert not again.processes[BASH].above_ends and not again.processes[BASH].unread


def test_a_runner_that_ends_takes_nothing_from_what_it_started(proc: FakeProc, watch: Watch) -> None:
    """3.x's runner is read again at each look; at its end the kernel shows its namespace no more."""
    proc.add(SUPERVISOR, argv=(f"airflow worker -- LocalExecutor: {UUID}",))
    proc.add(RUNNER, ppid=SUPERVISOR, argv=(f"airflow worker -- {UUID}",), environ={"AIRFLOW_HOME": HOME})
    proc.add(BASH, ppid=RUNNER, argv=BASH_ARGV, environ=tags())
    watch.look()
    proc.end(SUPERVISOR)
    proc.becomes_zombie(RUNNER)
    for look in (watch.tick, watch.look):
        look()
        for pid in (RUNNER, BASH):
            assert not watch.processes[pid].unread and watch.processes[pid].contrary is None
        assert watch.processes[BASH].runner is watch.processes[RUNNER]


def test_a_user_is_asked_for_again_after_the_exec(proc: FakeProc, watch: Watch) -> None:
    """`runuser -u airflow` forks as root, and is Airflow's user when its command runs."""
    pid = proc.add(160, argv=("runuser",), environ=tags(), uid=0)
    watch.tick()
    assert not watch.processes[pid].trusted
    proc.becomes_user(pid, 50000)
    proc.become(pid, ("sleep", "1"))
    watch.tick()
    assert watch.processes[pid].trusted and watch.processes[pid].uid == 50000


@pytest.mark.parametrize(
    ("state", "flags", "ending"),
    [("S", 0x400000, False), ("Z", 0, True), ("X", 0, True), ("R", 0x400004, True), ("D", 0x4, True)],
)
def test_what_a_stat_says_of_an_end(state: str, flags: int, ending: bool) -> None:
    assert parse_ending(f"5 (a ) Z) {state} 1 5 5 0 -1 {flags} 0".encode()) is ending
    assert not parse_ending(b"")
