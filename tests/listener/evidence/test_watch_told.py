"""The cost of a look where the kernel reports events: only the reported processes are read."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest

from dagstop.evidence.watch import PROVE, SHARE, Watch
from dagstop.host.process_events import Batch
from dagstop.model import Role
from tests.support.airflow_trees import BASH, SCHEDULER, airflow_2
from tests.support.fake_proc import HOME, FakeEvents, FakeProc, tags, watch_of


def never() -> bool:
    """No order has been read yet."""
    return False


class CountedProc(FakeProc):
    """Writes down what is read."""

    def __init__(self, *arguments: object) -> None:
        self.read_of: list[int | str] = []
        super().__init__(*arguments)  # type: ignore[arg-type]

    def _bytes(self, pid: int | str, name: str) -> bytes:
        self.read_of.append(pid)
        return super()._bytes(pid, name)

    def pids(self) -> list[int]:
        self.read_of.append("everything")
        return super().pids()


@pytest.fixture
def proc(tmp_path: object) -> CountedProc:
    return CountedProc(tmp_path)


@pytest.fixture
def watch(proc: CountedProc, events: FakeEvents) -> Watch:
    """At rest on a host where Airflow 2 runs a task."""
    airflow_2(proc)
    watch = watch_of(proc, events=events)
    watch.look()
    for _ in range(3):
        watch.tick()
    proc.read_of.clear()
    return watch


def test_at_rest_nothing_is_read(proc: CountedProc, watch: Watch) -> None:
    """Of Airflow's own processes neither, which change their titles: the kernel tells of that, too."""
    assert not watch.restless
    watch.tick()
    watch.catch_up(never)
    assert proc.read_of == []


def test_a_look_reads_again_what_has_executed_something(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    events.forked(1, 900)
    proc.add(900, argv=("sh",))
    for _ in range(3):
        watch.tick()
    proc.become(900, ("bash",), tags(run="another"))
    events.executed(900)
    watch.look()
    label = watch.processes[900].label
    assert label is not None and label.run_id == "another"


def test_a_look_asks_once_more_what_was_forked_during_it_and_no_more_if_nothing_was(
    events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    read = events.read

    def counted() -> Batch:
        nonlocal asked
        asked += 1
        return read()

    monkeypatch.setattr(events, "read", counted)
    watch.look()
    assert asked == 2


def test_without_the_kernels_word_airflows_own_processes_are_read_each_time(proc: CountedProc) -> None:
    airflow_2(proc)
    watch = watch_of(proc)
    watch.look()
    watch.tick()
    watch.tick()
    proc.read_of.clear()
    watch.tick()
    assert watch.restless and {SCHEDULER, "everything"} <= set(proc.read_of)


def test_a_title_is_read_when_it_is_told_of_and_once_more(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    """The name may be told of before the words are written."""
    events.forked(SCHEDULER, 900)
    proc.add(900, ppid=SCHEDULER, argv=("/usr/bin/python3", "/opt/airflow/bin/airflow", "scheduler"))
    for _ in range(3):
        watch.tick()
    assert not watch.restless and watch.processes[900].role is Role.SERVICE
    events.renamed(900)
    watch.tick()
    assert watch.restless
    proc.become(900, ("airflow task runner: d t manual__1 9",), {"AIRFLOW_HOME": HOME})
    watch.tick()
    assert watch.processes[900].role is Role.RUNNER and not watch.restless


def test_a_title_that_nobody_told_of_is_found_by_the_next_listing(proc: CountedProc, watch: Watch) -> None:
    proc.become(SCHEDULER, ("airflow task runner: d t manual__1 9",))
    watch.tick()
    assert watch.processes[SCHEDULER].role is Role.SERVICE
    watch._prove_at = 0.0
    watch.tick()
    assert watch.processes[SCHEDULER].role is Role.RUNNER


def test_what_was_executed_while_events_were_lost_is_read(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    proc.add(900, argv=("sh",))
    events.forked(1, 900)
    for _ in range(3):
        watch.tick()
    proc.become(900, ("bash",), tags(run="another"))
    proc._stat(900, "R", [1, 900, 900], watch.processes[900].identity.start)
    events.overflows()
    watch.tick()
    label = watch.processes[900].label
    assert label is not None and label.run_id == "another"


def test_a_thread_of_the_kernels_is_read_once(proc: CountedProc, events: FakeEvents, watch: Watch) -> None:
    """It has no words, and never will."""
    events.forked(2, 5)
    proc.add(5, ppid=2)
    stat = proc.path / "5" / "stat"
    stat.write_text(stat.read_text().replace(" 0 0 0 ", f" 0 0 {0x208040} ", 1))
    watch.tick()
    assert not watch.restless


def test_what_has_begun_is_known_when_an_order_comes(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    """Without a listing: by its words, though no task forked it, and by what forked it."""
    events.forked(1, 900)
    proc.add(900, argv=("bash",), environ=tags(run="another"))
    events.forked(BASH, 901)
    events.forked(901, 902)
    events.ended(901)
    proc.add(902, argv=("sleep", "1"))
    watch.attend()
    watch.catch_up(never)
    found = {process.pid: process.label for process in watch.labelled()}
    assert found[900] is not None and found[900].run_id == "another"
    assert found[902] is not None and found[902].task_id == "t"
    assert "everything" not in proc.read_of


def test_an_order_that_is_here_waits_for_no_strangers(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    """What tasks have forked is read before; of the rest a few at a time, until the order has been read."""
    strangers = range(1000, 1100)
    for pid in strangers:
        events.forked(1, pid)
        proc.add(pid, argv=("sleep", "1"))
    events.forked(BASH, 900)
    proc.add(900, ppid=BASH, argv=("sleep", "1"))
    assert [process.pid for process in watch.attend()] == [900]
    watch.catch_up(lambda: True)
    assert not set(proc.read_of) & set(strangers)
    watch.catch_up(lambda: 1009 in watch.processes)
    assert 1000 in watch.processes and 1020 not in proc.read_of
    watch.tick()
    assert {900, *strangers} <= watch.processes.keys() and "everything" not in proc.read_of


def test_what_an_airflow_forked_is_read_first_and_each_after_what_forked_it(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    """A runner that nobody has read yet is to be signalled before what it started."""
    for pid in range(1000, 1100):
        events.forked(1, pid)
        proc.add(pid, argv=("sleep", "1"))
    events.forked(SCHEDULER, 950)
    proc.add(
        950, ppid=SCHEDULER, argv=("airflow task runner: d t manual__1 9",), environ={"AIRFLOW_HOME": HOME}
    )
    events.forked(950, 900)
    proc.add(900, ppid=950, argv=("bash",), environ=tags())
    watch.attend()
    watch.catch_up(lambda: 900 in watch.processes)
    assert watch.processes[950].role is Role.RUNNER and watch.processes[900].runner is watch.processes[950]
    assert 1000 not in proc.read_of


def test_how_the_concerned_stand_is_seen_without_a_listing(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    proc.becomes_zombie(BASH)
    watch.tick([BASH])
    assert watch.processes[BASH].state == "Z" and "everything" not in proc.read_of


def test_after_a_gap_an_order_waits_for_no_listing(
    proc: CountedProc, events: FakeEvents, watch: Watch
) -> None:
    events.forked(1, 900)
    proc.add(900, argv=("sleep", "1"))
    events.overflows()
    watch.catch_up(never)
    assert proc.read_of == []
    watch.tick()
    assert "everything" in proc.read_of


def test_a_gap_during_a_listing_is_no_silence(
    proc: CountedProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not told of then is among what was lost: the kernel goes on to be believed."""
    pids = proc.pids

    def listed() -> list[int]:
        monkeypatch.setattr(proc, "pids", pids)
        proc.add(900, argv=("sh",))
        events.overflows()
        return pids()

    watch._prove_at = 0.0
    monkeypatch.setattr(proc, "pids", listed)
    watch.tick()
    assert watch.told and 900 in watch.processes


def test_what_is_asked_for_is_kept_apart(proc: CountedProc, events: FakeEvents, watch: Watch) -> None:
    """Of a host of many the few that orders ask for: the same as a search through all would find."""
    for number in range(20):
        proc.add(1000 + number, argv=("sleep", "1"))
        events.forked(1, 1000 + number)
    events.forked(1, 2000)
    proc.add(2000, argv=("python", "x"), environ={"AIRFLOW_HOME": "/srv/other"})
    proc.refused[(1003, "environ")] = proc.refused[(1004, "environ")] = 13
    proc.become(1004, ("airflow", "scheduler"))

    def agree() -> None:
        everybody = watch.processes.values()
        assert {p.pid for p in watch.labelled()} == {p.pid for p in everybody if p.label is not None}
        homes = {p.pid for p in everybody if "AIRFLOW_HOME" in p.environ}
        assert {p.pid for p in watch.at_homes()} == homes | ({1004} & watch.processes.keys())
        assert {p.pid for p in watch.unread()} == {p.pid for p in everybody if "environ" in p.unread}

    watch.tick()
    assert {p.pid for p in watch.unread()} == {1003, 1004}
    agree()
    proc.become(1010, ("bash",), tags())
    events.executed(1010)
    del proc.refused[(1003, "environ")]
    events.executed(1003)
    proc.become(2000, ("python", "y"), {})
    events.executed(2000)
    watch.tick()
    agree()
    for pid in (1004, 1010, BASH):
        proc.end(pid)
        events.ended(pid)
    watch.tick()
    agree()


def test_what_is_forked_when_events_are_lost_waits_for_the_next_look(
    proc: CountedProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a look: whose it is cannot be said by forks of which some were not told."""
    pids = proc.pids

    def listed() -> list[int]:
        monkeypatch.setattr(proc, "pids", pids)
        found = pids()
        events.forked(BASH, 900)
        proc.add(900, ppid=BASH, argv=("sleep", "1"))
        events.overflows()
        return found

    monkeypatch.setattr(proc, "pids", listed)
    watch.look()
    assert 900 not in watch.processes
    watch.tick()
    assert watch.processes[900].label is not None


def test_what_a_task_may_have_let_go_while_nobody_listened_is_in_doubt(proc: CountedProc) -> None:
    """By where the task's processes were at the first look, though they may be gone by now."""
    airflow_2(proc)
    proc.add(900, ppid=1, argv=("sleep", "1"))
    for pid in (BASH, 900):
        (proc.path / str(pid) / "cgroup").write_text("0::/system.slice/airflow.service\n")
    watch = watch_of(proc)
    watch.begin(datetime(1970, 1, 1, tzinfo=timezone.utc))
    bash = watch.processes[BASH].identity
    (proc.path / str(BASH) / "cgroup").unlink()
    ((one, verdict),) = watch.gaps.doubtful([bash], watch.processes)
    assert one.pid == 900 and "while no listener ran" in verdict.reason


@pytest.mark.parametrize(("took", "pause"), [(0.0, PROVE), (1000 * PROVE * SHARE, 1000 * PROVE)])
def test_the_more_a_listing_costs_the_later_comes_the_next(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, took: float, pause: float
) -> None:
    """By the time of the processor that it took, not by what the listener had used before."""
    used = iter([1e6, 1e6 + took])
    monkeypatch.setattr(time, "thread_time", lambda: next(used))
    watch.prove_soon()
    before = time.monotonic()
    watch.tick()
    assert before + pause - 1 <= watch._prove_at <= time.monotonic() + pause + 1


def test_what_is_told_of_during_a_listing_was_not_kept_from_us(
    proc: CountedProc, events: FakeEvents, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = proc.pids

    def listed() -> list[int]:
        monkeypatch.setattr(proc, "pids", pids)
        events.forked(90, 900)
        proc.add(900, argv=("sh",))
        return pids()

    watch._prove_at = 0.0
    monkeypatch.setattr(proc, "pids", listed)
    watch.tick()
    assert watch.told and 900 in watch.processes


def test_where_nobody_tells_an_order_waits_for_no_reading(proc: CountedProc) -> None:
    airflow_2(proc)
    watch = watch_of(proc)
    watch.look()
    proc.read_of.clear()
    watch.catch_up(never)
    assert watch.restless and proc.read_of == []


def test_a_look_reads_airflows_own_processes_whatever_was_told(proc: CountedProc, watch: Watch) -> None:
    proc.become(SCHEDULER, ("airflow task runner: d t manual__1 9",))
    watch.look()
    assert watch.processes[SCHEDULER].role is Role.RUNNER
