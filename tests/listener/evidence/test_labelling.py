"""Which of two signs counts, and what a sign passes on: by forks, sessions, folders and memory."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from dagstop.evidence.labelling import _one_try
from dagstop.evidence.match import ELSEWHERE
from dagstop.evidence.memory import Known
from dagstop.evidence.watch import Watch
from dagstop.host.procfs import Stat
from dagstop.model import Identity, Label, Process, Role
from tests.support.airflow_trees import BASH, BASH_ARGV, RUNNER, SCHEDULER, SLEEP, airflow_2
from tests.support.fake_proc import (
    HOME,
    KEY,
    LISTENER,
    UID,
    UUID,
    FakeEvents,
    FakeProc,
    order,
    process,
    row,
    site,
    tags,
    watch_of,
)

OURS = Label(dag_id="d", run_id="r", task_id="t")


def test_a_run_that_a_task_started_and_left_is_its_own(proc: FakeProc, events: FakeEvents) -> None:
    """The kernel says who forked it; what speaks for that task, or against it, says nothing of this one."""
    airflow_2(proc)
    proc.become(BASH, BASH_ARGV, {**tags(), "DAGSTOP_SPARE": "1"})
    watch = watch_of(proc, events=events)
    watch.look()
    events.forked(BASH, 700)
    events.forked(700, 800)
    events.ended(700)
    proc.add(800, argv=["airflow task runner: e u s 9"])
    watch.look()
    seen = watch.processes[800]
    assert seen.label is not None and (seen.label.dag_id, seen.label.job_id) == ("e", 9)
    assert seen.runner is None and not seen.kin_spared and seen.evidence == ("title",)


@pytest.mark.parametrize("kin", ["session", "group", "fork", "parent"])
def test_what_started_before_its_kin_was_known_is_known_with_it(
    proc: FakeProc, events: FakeEvents, kin: str
) -> None:
    """A runner sets its title once it runs. Each sign counts by itself, in the very look that finds it."""
    facts: dict[str, dict[str, Any]] = {
        "session": {"sid": 600, "pgid": 601},
        "group": {"sid": 1, "pgid": 600},
        "fork": {},
        "parent": {"ppid": 600},
    }
    watch = watch_of(proc, events=events if kin == "fork" else None)
    proc.add(600, argv=("python", "/srv/run.py"), sid=600 if kin == "session" else 1)
    watch.look()
    events.forked(600, 601)
    proc.add(601, argv=("sleep", "1"), **facts[kin])
    for _ in range(3):
        watch.look()
    assert watch.processes[601].label is None
    proc.become(600, ["airflow task runner: d t r 4"])
    events.renamed(600)
    watch._restless.add(600)
    watch.look()
    label = watch.processes[601].label
    assert label is not None and label.job_id == 4


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_is_remembered_and_lives_nobody_knows_where_is_doubted(
    proc: FakeProc, watch: Watch, number: int
) -> None:
    """It shows nothing itself, and descends from nothing that lives: it is asked for all the same."""
    proc.add(300, argv=("sleep", "1"), start=400)
    proc.refused[300, "ns/pid"] = number
    watch.restore({Identity(300, 400): Known(OURS)})
    watch.look()
    assert watch.processes[300].label == OURS
    assert "/proc/300/ns/pid cannot be read" in watch.processes[300].unread["ns/pid"]


def test_what_is_remembered_is_in_its_session_again(proc: FakeProc, watch: Watch) -> None:
    proc.add(300, argv=("sleep", "1"), start=400)
    watch.restore({Identity(300, 400): Known(OURS)})
    watch.look()
    proc.add(301, pgid=300, sid=300, argv=("sleep", "2"), start=401)
    watch.look()
    assert watch.processes[301].label == OURS


CONTAINER = Identity(200, 20)


def in_container(
    proc: FakeProc, runner: Process | None = None, init: Identity | None = CONTAINER, **remembered: Any
) -> Watch:
    """A process of a container of ours, pid 300, as a later listener first sees it."""
    watch = watch_of(proc, init_of=lambda pid: init, hostname_of=lambda init: "worker")
    proc.add(300, argv=("sleep", "1"), start=400, namespace="pid:[2]")
    doubts: dict[str, Any] = {
        "trusted": True,
        "contrary": None,
        "spare": False,
        "uid": UID,
        "vouchers": [],
        "inner": [],
    }
    watch.restore({Identity(300, 400): Known(OURS, runner, {**doubts, **remembered})})
    watch.look()
    return watch


def test_what_lived_in_a_container_is_found_in_it_again(proc: FakeProc) -> None:
    runner = process(OURS, role=Role.RUNNER, contrary=ELSEWHERE)
    seen = in_container(proc, runner, contrary=ELSEWHERE).processes[300]
    assert (seen.place, seen.contrary) == (CONTAINER, None)
    assert (runner.place, runner.contrary) == (CONTAINER, None)


def test_what_lived_in_a_container_that_is_not_found_again_is_still_elsewhere(proc: FakeProc) -> None:
    runner = process(OURS, role=Role.RUNNER, contrary=ELSEWHERE)
    seen = in_container(proc, runner, init=None, contrary=ELSEWHERE).processes[300]
    assert (seen.place, seen.contrary) == (None, ELSEWHERE)
    assert (runner.place, runner.contrary) == (None, ELSEWHERE)


@pytest.mark.parametrize("unread", [False, True])
def test_who_lives_beside_the_listener_or_nobody_knows_where_is_in_no_container(
    proc: FakeProc, unread: bool
) -> None:
    watch = watch_of(proc, init_of=lambda pid: CONTAINER)
    proc.add(300, argv=("bash",), environ=tags())
    if unread:
        proc.refused[300, "ns/pid"] = errno.EACCES
    watch.look()
    assert watch.processes[300].label is not None and watch.processes[300].place is None


def test_what_speaks_against_its_runner_still_does(proc: FakeProc) -> None:
    above = process(OURS, role=Role.RUNNER, contrary=ELSEWHERE)
    runner = process(OURS, role=Role.RUNNER, contrary="it is part of the test run by hand", runner=above)
    in_container(proc, runner, contrary=ELSEWHERE)
    assert (runner.place, runner.contrary) == (None, "it is part of the test run by hand")
    assert (above.place, above.contrary) == (None, ELSEWHERE)


def test_a_runner_of_which_another_container_is_known_is_not_brought_into_this_one(proc: FakeProc) -> None:
    another = Identity(900, 1)
    runner = process(OURS, role=Role.RUNNER, contrary=ELSEWHERE, place=another)
    in_container(proc, runner, contrary=ELSEWHERE)
    assert (runner.place, runner.contrary) == (another, ELSEWHERE)


def test_what_speaks_against_one_in_a_container_still_does(proc: FakeProc) -> None:
    """Also where what it descends from says in which container it lives."""
    watch = watch_of(proc, init_of=lambda pid: CONTAINER)
    proc.add(300, argv=["airflow task runner: d t r 4"], namespace="pid:[2]")
    proc.add(301, ppid=300, argv=("sleep", "1"), start=2000, namespace="pid:[2]")
    doubts: dict[str, Any] = {"trusted": True, "contrary": "by hand", "spare": False, "uid": UID}
    watch.restore({Identity(301, 2000): Known(OURS, None, doubts)})
    watch.look()
    assert (watch.processes[301].place, watch.processes[301].contrary) == (CONTAINER, "by hand")


def test_what_ended_in_a_container_is_told_by_its_host_name(proc: FakeProc) -> None:
    watch = in_container(proc, contrary=ELSEWHERE)
    proc.end(300)
    watch.look()
    here, elsewhere = (order(targets=(row(hostname=name),), present=()) for name in ("worker", "other"))
    assert [label.task_id for label in watch.departed.of(here, site())] == ["t"]
    assert list(watch.departed.of(elsewhere, site())) == []


def test_a_namespace_that_a_task_made_is_no_container_after_a_restart(proc: FakeProc) -> None:
    """It was forked by what lives here, or it would have been remembered as in a container."""
    seen = in_container(proc).processes[300]
    assert (seen.place, seen.contrary) == (None, None)


def test_what_lives_in_a_container_is_in_the_one_of_what_it_descends_from(proc: FakeProc) -> None:
    """Also in a pid namespace that the task made inside; and its pids count as in there."""
    watch = watch_of(proc, init_of=lambda pid: CONTAINER if pid < 302 else Identity(pid, 1))
    inside: dict[str, Any] = {"namespace": "pid:[2]"}
    title = ["airflow task runner: d t r 4"]
    proc.add(290, argv=("sh",), inner=30, **inside)
    proc.add(300, ppid=290, argv=title, inner=31, **inside)
    proc.add(301, ppid=300, argv=title, inner=35, **inside)
    proc.add(302, ppid=301, argv=("unshare",), inner=36, namespace="pid:[3]")
    proc.add(289, ppid=290, argv=("bash",), environ=tags(), inner=40, **inside)
    watch.look()
    assert watch.processes[289].inner == {30, 40}, "it descends from nothing that is known"
    seen = watch.processes
    assert [seen[pid].place for pid in (300, 301, 302)] == [CONTAINER] * 3
    assert [set(seen[pid].inner) for pid in (300, 301, 302)] == [{30, 31}, {30, 31, 35}, {30, 31, 35, 36}]


def test_the_container_that_something_lives_in_stays_known(proc: FakeProc) -> None:
    """Also when it shows it no more, at its end."""
    there: list[Identity | None] = [CONTAINER]
    watch = watch_of(proc, init_of=lambda pid: there[0])
    proc.add(300, argv=("bash",), environ=tags(), namespace="pid:[2]", inner=7)
    watch.look()
    there[0] = None
    watch._stir([300])
    watch.look()
    assert (watch.processes[300].place, watch.processes[300].contrary) == (CONTAINER, None)


def test_a_pid_namespace_that_a_task_made_is_no_container_once_its_parents_are_gone(proc: FakeProc) -> None:
    watch = watch_of(proc, init_of=lambda pid: Identity(301, 1))
    proc.add(300, argv=("bash",), environ=tags())
    proc.add(301, ppid=300, argv=("sh",), environ=tags(), namespace="pid:[3]", inner=1)
    watch.look()
    proc.end(300)
    watch._stir([301])
    watch.look()
    assert (watch.processes[301].place, watch.processes[301].contrary) == (None, None)


def test_what_started_a_container_says_nothing_of_what_is_inside(proc: FakeProc) -> None:
    watch = watch_of(proc, init_of=lambda pid: Identity(200, 20))
    inside: dict[str, Any] = {"namespace": "pid:[2]"}
    proc.add(190, argv=("sh",), start=10, environ={"AIRFLOW_HOME": "/srv/b"})
    proc.add(200, ppid=190, start=20, argv=("dumb-init",), **inside)
    proc.add(300, ppid=200, argv=["airflow task runner: d t r 4"], **inside)
    watch.look()
    label = watch.processes[300].label
    assert label is not None and label.airflow_home is None
    proc.become(200, ("dumb-init",), {"AIRFLOW_HOME": HOME})
    watch.look()
    proc.add(301, ppid=200, argv=["airflow task runner: d t r 5"], **inside)
    watch.look()
    label = watch.processes[301].label
    assert label is not None and label.airflow_home == HOME


def test_a_session_of_zombies_takes_nobody_in(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    watch.look()
    proc.end(SLEEP)
    proc.becomes_zombie(BASH)
    watch.look()
    proc.add(700, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    watch.look()
    watch.look()
    assert watch.processes[700].label is None


@pytest.mark.parametrize("first", [1, 2])
def test_what_pid_1_adopted_does_not_run_under_it(proc: FakeProc, watch: Watch, first: int) -> None:
    """In a container of Airflow a scheduler may be pid 1; so may what shows another AIRFLOW_HOME. With an init
    of the engine's it is the second.
    """
    if first == 2:
        proc.add(2, start=1)
    proc.become(first, ("airflow", "scheduler"), {"AIRFLOW_HOME": "/srv/b"})
    silent = {name: value for name, value in tags().items() if name != "AIRFLOW_HOME"}
    proc.add(600, ppid=first, argv=("bash",), environ=silent)
    watch.look()
    seen = watch.processes[600]
    assert seen.label is not None and (seen.contrary, seen.label.airflow_home) == (None, None)


def test_home_and_database_come_from_the_nearest_that_shows_them(proc: FakeProc, watch: Watch) -> None:
    proc.add(80, argv=("sh",), environ={"AIRFLOW_HOME": "/srv/b", "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql://h/b"})  # fmt: skip
    proc.add(81, ppid=80, argv=("sh",), environ={"AIRFLOW_HOME": HOME})
    proc.add(82, ppid=81, argv=("sh",))
    proc.add(83, ppid=82, argv=["airflow task runner: d t r 4"])
    watch.look()
    label = watch.processes[83].label
    assert label is not None and (label.airflow_home, label.database) == (HOME, "h:5432/b")


@pytest.mark.parametrize("silent", ["AIRFLOW_HOME", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
def test_who_shows_one_of_home_and_database_has_the_other_from_above(
    proc: FakeProc, watch: Watch, silent: str
) -> None:
    proc.add(81, argv=("sh",), environ={silent: tags()[silent]})
    own = {name: value for name, value in tags().items() if name != silent}
    proc.add(82, ppid=81, argv=("bash",), environ=own)
    watch.look()
    label = watch.processes[82].label
    assert label is not None and (label.airflow_home, label.database) == (HOME, KEY)


def test_a_title_counts_for_more_than_what_its_process_was_started_with(proc: FakeProc, watch: Watch) -> None:
    """A runner that a bash task started inherits that one's environment; only the Airflow of it counts."""
    proc.add(600, argv=["airflow task runner: e u s 9"], environ=tags())
    watch.look()
    label = watch.processes[600].label
    assert label == Label(dag_id="e", run_id="s", task_id="u", job_id=9, airflow_home=HOME, database=KEY)


def test_the_child_of_a_3_x_runner_that_another_one_started_is_of_the_inner_one(
    proc: FakeProc, watch: Watch
) -> None:
    inner = UUID.replace("0", "f")
    proc.add(SCHEDULER, argv=("python", "airflow", "scheduler"), environ={"AIRFLOW_HOME": HOME})
    proc.add(600, ppid=SCHEDULER, argv=[f"airflow worker -- {UUID}"])
    proc.add(601, ppid=600, argv=[f"airflow worker -- {UUID}"])  # a fork: multiprocessing, say
    proc.add(602, ppid=600, argv=[f"airflow worker -- {inner}"])
    proc.add(603, ppid=602, argv=("sleep", "1"))
    watch.look()
    seen = watch.processes
    found = {pid: label.ti_id for pid in (600, 601, 602, 603) if (label := seen[pid].label) is not None}
    assert found == {600: UUID, 601: UUID, 602: inner, 603: inner}
    assert seen[601].line == {600, 601, SCHEDULER}, "Airflow recorded the one that it was forked from"
    assert seen[602].line == {602, 600}, "its parent is another runner"
    assert seen[603].runner is seen[602]
    assert all(seen[pid].role is Role.RUNNER and seen[pid].with_runner for pid in (600, 601, 602))


@pytest.mark.parametrize(
    ("above", "title", "same"),
    [
        (f"airflow worker -- {UUID}", f"airflow worker -- {UUID}", True),
        (f"airflow worker -- {UUID}", f"airflow worker -- {UUID.replace('0', 'f')}", False),
        ("airflow task runner: d t r 4", "airflow task runner: d t r 4", True),
        ("airflow task runner: d t r 4", "airflow task runner: d t r 5", False),
        ("airflow task runner: d t r 4", "airflow task runner: e t r 4", False),
        ("airflow task runner: d t r 4", "airflow task runner: d u r 4", False),
        ("airflow task runner: d t r 4", "airflow task runner: d t s 4", False),
        ("airflow task runner: d t r 4", f"airflow worker -- {UUID}", False),
    ],
)
def test_what_becomes_a_runner_behind_a_sudo_is_of_the_very_try_that_started_it(
    proc: FakeProc, watch: Watch, above: str, title: str, same: bool
) -> None:
    """With run_as_user it is another user's, and believed for what started it; another try's is not."""
    proc.add(600, argv=[above], environ={"AIRFLOW_HOME": HOME})
    proc.add(601, ppid=600, argv=("sudo", "-u", "etl", "python"), uid=0)
    proc.add(602, ppid=601, argv=[title], uid=4711)
    watch.look()
    real = watch.processes[602]
    assert (real.trusted, real.runner is watch.processes[600]) == (same, same)


def test_what_could_not_be_read_of_itself_stays_said_and_of_its_kin_only_what_decides(
    proc: FakeProc, watch: Watch
) -> None:
    airflow_2(proc)
    proc.refused = {(BASH, "environ"): errno.EACCES, (BASH, "cmdline"): errno.EACCES}
    watch.look()
    assert watch.processes[BASH].unread.keys() == {"environ", "cmdline"}
    assert watch.processes[SLEEP].unread.keys() == {"cmdline", "parent"}, "its environment is its own"


def test_the_runner_that_is_remembered_stays_where_kin_knows_of_none(proc: FakeProc, watch: Watch) -> None:
    """What speaks for or against that runner goes on to speak for what it started."""
    proc.add(300, argv=("bash",), environ=tags())
    proc.add(301, ppid=300, pgid=300, sid=300, argv=("sleep", "1"), start=2000)
    runner = process(OURS, role=Role.RUNNER)
    watch.restore({Identity(301, 2000): Known(OURS, runner)})
    watch.look()
    assert watch.processes[301].evidence == ("remembered", "child of 300")
    assert watch.processes[301].runner is runner


def test_what_was_believed_stays_so_under_what_is_not(proc: FakeProc, watch: Watch) -> None:
    """It was seen under its runner by an earlier listener."""
    proc.add(300, argv=("bash",), environ=tags(), uid=4711)
    proc.add(301, ppid=300, argv=("sleep", "1"), uid=4711, start=2000)
    proc.add(302, ppid=300, argv=("sleep", "1"), uid=4711)
    watch.restore({Identity(301, 2000): Known(OURS)})
    watch.look()
    assert [watch.processes[pid].trusted for pid in (300, 301, 302)] == [False, True, False]


def test_who_does_not_know_where_he_lives_himself_says_of_nobody_that_he_lives_here(
    proc: FakeProc,
) -> None:
    proc.refused = {(LISTENER, "ns/pid"): errno.EACCES, (600, "ns/pid"): errno.EACCES}
    watch = watch_of(proc)
    proc.add(600, argv=("bash",), environ=tags(), namespace="pid:[2]")
    watch.look()
    assert not watch.processes[600].here


def test_a_run_that_a_docker_exec_of_a_task_began_is_its_own(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(700, argv=["airflow task runner: e u s 9"])
    proc.add(701, argv=("sleep", "1"))
    watch.look()
    for pid in (700, 701):
        watch.claim(watch.processes[pid].identity, watch.processes[BASH])
    seen, other = watch.processes[700], watch.processes[701]
    assert seen.evidence == ("title",) and seen.runner is None
    assert other.evidence == (f"docker exec by {BASH}",) and other.runner is watch.processes[RUNNER]


def test_what_descends_from_a_task_may_have_a_parent_that_is_not_shown(proc: FakeProc, watch: Watch) -> None:
    """Whose it is its session says; who stands above one that only says so itself has to be known."""
    proc.add(300, argv=("bash",), environ=tags())
    proc.add(301, ppid=4711, pgid=300, sid=300, argv=("sleep", "1"))
    proc.add(302, ppid=4711, argv=("sleep", "1"), environ=tags())
    proc.add(303, ppid=4711, argv=["airflow task runner: d t r 4"])
    watch.look()
    assert watch.processes[301].label is not None and watch.processes[301].unread == {}
    assert watch.processes[303].label is not None and watch.processes[303].unread == {}, (
        "a runner stands alone"
    )
    assert watch.processes[302].unread.keys() == {"parent"}


@pytest.mark.parametrize(("parent", "unknown"), [(0, False), (1, False), (2, False), (3, True)])
def test_what_runs_under_nothing_of_this_host_runs_under_nothing_unknown(
    proc: FakeProc, watch: Watch, parent: int, unknown: bool
) -> None:
    """0 is above what another namespace started."""
    proc.add(302, ppid=parent, argv=("sleep", "1"), environ=tags())
    watch.look()
    assert ("parent" in watch.processes[302].unread) is unknown


def test_what_a_service_or_a_test_by_hand_starts_is_not_labelled_as_its_child(
    proc: FakeProc, watch: Watch
) -> None:
    """Though a task started the service, whose environment shows that."""
    proc.add(300, argv=("/usr/sbin/sshd", "-D"), environ=tags())
    proc.add(301, ppid=300, argv=("sleep", "1"))
    watch.look()
    assert watch.processes[300].label is not None and watch.processes[301].label is None


def test_who_was_seen_here_stays_here_whatever_his_kin_shows(proc: FakeProc, watch: Watch) -> None:
    proc.add(300, argv=("bash",))
    proc.add(301, ppid=300, argv=("sleep", "1"), environ=tags())
    watch.look()
    proc.refused[300, "ns/pid"] = errno.EACCES
    proc.become(300, ("bash", "-c", "sleep 1"), tags())
    watch._stir([300, 301])
    watch.look()
    assert watch.processes[301].evidence == ("environment", "child of 300")
    assert watch.processes[301].here and not watch.processes[300].here


def test_a_parent_that_is_younger_is_none_and_hides_nothing(proc: FakeProc, watch: Watch) -> None:
    """A pid that was given out again between two files; the process was adopted."""
    proc.add(170, ppid=180, argv=("bash",), environ=tags(), start=500)
    proc.add(180, argv=("/usr/sbin/sshd",), start=900)
    watch.look()
    seen = watch.processes[170]
    assert seen.label is not None and (seen.contrary, seen.unread) == (None, {})


def test_what_its_parent_forked_in_the_tick_of_its_own_start_is_its_child(
    proc: FakeProc, watch: Watch
) -> None:
    """Start times are exact to 10 ms."""
    proc.add(600, argv=("bash",), environ=tags(), start=500)
    proc.add(601, ppid=600, argv=("sleep", "1"), start=500)
    watch.look()
    assert watch.processes[601].evidence == ("child of 600",)


def test_what_was_adopted_while_it_was_read_is_its_parents(
    proc: FakeProc, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent died between the reading of the two files; it was read before."""
    proc.add(600, argv=("bash",), environ=tags())
    proc.add(601, ppid=600, argv=("sleep", "1"))
    stat = proc.stat

    def adopted(pid: int) -> Stat | None:
        found = stat(pid)
        return replace(found, ppid=1) if found is not None and pid == 601 else found

    monkeypatch.setattr(proc, "stat", adopted)
    watch.look()
    assert watch.processes[601].evidence == ("child of 600",)


@pytest.mark.parametrize("had", [600, 3])
def test_who_adopted_it_since_is_its_parent_where_the_one_that_it_had_is_gone(
    proc: FakeProc, watch: Watch, monkeypatch: pytest.MonkeyPatch, had: int
) -> None:
    proc.add(601, ppid=had, argv=("sleep", "1"), environ=tags())
    stat = proc.stat

    def adopted(pid: int) -> Stat | None:
        found = stat(pid)
        return replace(found, ppid=1) if found is not None and pid == 601 else found

    monkeypatch.setattr(proc, "stat", adopted)
    watch.look()
    assert watch.processes[601].ppid == 1 and watch.processes[601].unread == {}


def test_only_the_first_two_pids_are_nobodys_parents(proc: FakeProc, watch: Watch) -> None:
    """In a container the third is a process like others."""
    proc.add(3, argv=("bash",), environ=tags())
    proc.add(601, ppid=3, argv=("sleep", "1"))
    watch.look()
    assert watch.processes[601].evidence == ("child of 3",)


def test_a_session_goes_on_while_its_leader_lives(proc: FakeProc, watch: Watch) -> None:
    """Though nothing of the leader has changed for long."""
    airflow_2(proc)
    for _ in range(4):
        watch.look()
    proc.add(700, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    watch.look()
    watch.look()
    assert watch.processes[700].label is not None


@pytest.mark.parametrize(
    ("title", "label", "same"),
    [
        (Label(dag_id="d", task_id="t", job_id=7), Label(dag_id="d", task_id="t", job_id=7), True),
        (Label(dag_id="d", task_id="t", job_id=7), Label(dag_id="d", task_id="t", job_id=8), False),
        (Label(dag_id="d", task_id="t", job_id=7), Label(dag_id="e", task_id="t", job_id=7), False),
        (Label(dag_id="d", task_id="t", job_id=7), Label(dag_id="d", task_id="u", job_id=7), False),
        (Label(dag_id="d", task_id="t"), Label(dag_id="d", task_id="t"), False),  # of any try
        (Label(ti_id=UUID), Label(ti_id=UUID), True),
        (Label(ti_id=UUID), Label(dag_id="d", task_id="t", job_id=7), False),
    ],
)
def test_a_title_names_a_try_by_its_job_or_uuid(title: Label, label: Label, same: bool) -> None:
    assert _one_try(title, label) is same


@pytest.mark.parametrize(
    ("stands", "claimed", "kin"),
    [
        ({}, False, False),
        ({}, True, True),  # a `docker exec` runs it
        ({"ppid": BASH}, False, True),
        ({"ppid": SCHEDULER}, False, False),  # which is nobody's
        ({"ppid": 4711}, False, False),  # which is gone
        ({"sid": BASH}, False, True),
        ({"pgid": BASH}, False, True),
    ],
)
def test_only_what_stands_beside_something_labelled_is_looked_at_once_more(
    proc: FakeProc, watch: Watch, stands: dict[str, int], claimed: bool, kin: bool
) -> None:
    airflow_2(proc)
    watch.look()
    one = process(identity=Identity(700, 5000), **{"ppid": 1, "pgid": 700, "sid": 700, **stands})
    if claimed:
        watch._labelling.claimed[one.identity] = watch.processes[BASH]
    assert not watch._labelling.may_inherit(one), "it has a label"
    one.label = None
    assert watch._labelling.may_inherit(one) is kin


def test_who_shows_its_airflow_alone_is_known_by_what_it_descends_from(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(700, ppid=BASH, argv=("sleep", "1"), environ={"AIRFLOW_HOME": HOME})
    watch.look()
    assert watch.processes[700].evidence == (f"child of {BASH}",)


def test_what_was_known_of_another_task_fills_no_gap_of_its_new_words(proc: FakeProc, watch: Watch) -> None:
    proc.add(300, argv=("bash",), environ=tags(AIRFLOW_CTX_MAP_INDEX="3"))
    watch.look()
    other = {name: value for name, value in tags(run="s").items() if name != "AIRFLOW_CTX_TRY_NUMBER"}
    proc.become(300, ("bash", "-c", "true"), other)
    watch._stir([300])
    watch.look()
    label = watch.processes[300].label
    assert label is not None and (label.run_id, label.map_index, label.try_number) == ("s", None, None)


def test_a_leader_that_became_a_service_takes_nobody_into_its_session(proc: FakeProc, watch: Watch) -> None:
    proc.add(300, argv=("bash",), environ=tags())
    watch.look()
    began = proc.now
    proc.become(300, ("/usr/sbin/sshd", "-D"), {"AIRFLOW_HOME": HOME})
    watch._stir([300])
    proc.add(301, pgid=300, sid=300, argv=("sleep", "1"), start=began)
    watch.look()
    assert [watch.processes[pid].label for pid in (300, 301)] == [None, None]


@pytest.mark.parametrize("environ", [{}, {"AIRFLOW_HOME": HOME}])
def test_what_a_stranger_runs_as_airflows_user_is_believed_no_more_than_he_is(
    proc: FakeProc, watch: Watch, environ: dict[str, str]
) -> None:
    proc.add(300, argv=("bash",), environ=tags(), uid=4711)
    proc.add(301, ppid=300, argv=("sleep", "1"), environ=environ)
    watch.look()
    assert watch.processes[301].label == watch.processes[300].label
    assert not watch.processes[301].trusted and watch.processes[301].vouchers == {4711}


def test_a_fork_that_lost_its_parents_is_of_the_runner_whose_memory_it_shares(
    proc: FakeProc, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python daemon, say. It bears the title; of which Airflow it is, only the runner shows."""
    monkeypatch.setattr(proc, "layout", lambda pid: (min(pid, 602),))
    title = ["airflow task runner: d t r 4"]
    proc.add(603, argv=title, environ={"AIRFLOW_HOME": HOME})
    watch.look()
    proc.add(604, argv=title)
    proc.add(601, argv=title)  # of another Airflow, perhaps
    watch.look()
    fork, other = watch.processes[604], watch.processes[601]
    assert fork.evidence == ("title", "fork of runner 603") and fork.line == {604, 1, 603}
    assert fork.label is not None and fork.label.airflow_home == HOME
    assert other.evidence == ("title",) and other.label is not None and other.label.airflow_home is None


def test_what_stays_in_the_session_of_its_runner_is_with_it(proc: FakeProc, watch: Watch) -> None:
    """A failure callback, say, which has time to end; what the operator started has a session of its own."""
    airflow_2(proc)
    proc.add(700, ppid=RUNNER, sid=SCHEDULER, argv=("sh",))
    proc.add(701, ppid=700, sid=SCHEDULER, argv=("sleep", "1"))
    proc.add(702, ppid=700, argv=("sleep", "1"))
    watch.look()
    found = {pid: watch.processes[pid].with_runner for pid in (RUNNER, 700, 701, 702, BASH, SLEEP)}
    assert found == {RUNNER: True, 700: True, 701: True, 702: False, BASH: False, SLEEP: False}


def test_as_whom_a_remembered_process_runs_is_asked_anew(proc: FakeProc, watch: Watch) -> None:
    proc.add(300, argv=("sleep", "1"), start=400)
    watch.restore({Identity(300, 400): Known(OURS)})
    watch.look()
    assert (watch.processes[300].uid, watch.processes[300].vouchers) == (UID, {UID})
