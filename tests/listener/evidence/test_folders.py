"""A process whose working directory is in a bash task's private folder belongs to that task."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import memory
from dagstop.evidence.folders import KEPT, Folders
from dagstop.evidence.match import asks_to_be_spared
from dagstop.evidence.memory import Known
from dagstop.evidence.watch import Watch
from dagstop.host.procfs import parse_task_folder
from dagstop.model import Identity, Label
from tests.support.airflow_trees import BASH, BASH_ARGV, RUNNER, SLEEP, airflow_2
from tests.support.fake_proc import HOME, LISTENER, UID, FakeProc, process, tags, watch_of

FOLDER = "/tmp/airflowtmpk3_x9abc"
DAEMON = 300


@pytest.fixture
def task(proc: FakeProc) -> FakeProc:
    airflow_2(proc)
    proc.works_in(BASH, FOLDER)
    return proc


def daemon(proc: FakeProc, where: str = FOLDER, **more: object) -> int:
    """It gave up its environment and session, and its parents are gone."""
    proc.add(DAEMON, argv=("sleep", "1"), **more)  # type: ignore[arg-type]
    proc.works_in(DAEMON, where)
    return DAEMON


@pytest.mark.parametrize("where", [FOLDER, f"{FOLDER} (deleted)", f"{FOLDER}/sub", f"{FOLDER}/sub (deleted)"])
def test_a_daemon_is_of_the_task_in_whose_folder_it_works(task: FakeProc, watch: Watch, where: str) -> None:
    watch.look()
    daemon(task, where)
    task.add(DAEMON + 1, ppid=DAEMON, argv=("sleep", "2"))
    watch.tick()
    seen, leader = watch.processes[DAEMON], watch.processes[BASH]
    assert seen.evidence == (f"working directory {FOLDER}",) and seen.label == leader.label
    assert seen.trusted and seen.contrary is None
    assert watch.processes[DAEMON + 1].evidence == (f"child of {DAEMON}",)


@pytest.mark.parametrize("where", ["/tmp", "/tmp/airflowtmpk3_x9abd", "/srv/tmp/airflowtmpk3_x9abc", "/"])
def test_another_folder_says_nothing(task: FakeProc, watch: Watch, where: str) -> None:
    watch.look()
    daemon(task, where)
    watch.tick()
    assert watch.processes[DAEMON].label is None


def test_a_folder_whose_task_nobody_saw_says_nothing(proc: FakeProc, watch: Watch) -> None:
    daemon(proc)
    watch.look()
    assert watch.processes[DAEMON].label is None


def test_a_person_who_looks_around_there_is_none_of_it(task: FakeProc, watch: Watch) -> None:
    watch.look()
    daemon(task, terminal=34816)
    watch.tick()
    assert watch.processes[DAEMON].label is None


def test_a_service_that_works_there_is_no_tasks(task: FakeProc, watch: Watch) -> None:
    watch.look()
    task.add(DAEMON, argv=("/usr/sbin/sshd", "-D"))
    task.works_in(DAEMON, FOLDER)
    watch.tick()
    assert watch.processes[DAEMON].label is None


def test_what_is_older_than_the_task_is_none_of_it(task: FakeProc, watch: Watch) -> None:
    daemon(task, start=5)
    watch.look()
    assert watch.processes[DAEMON].label is None


def test_what_began_in_the_tick_of_its_tasks_leader_is_the_tasks(task: FakeProc, watch: Watch) -> None:
    leader = task.stat(BASH)
    assert leader is not None
    daemon(task, start=leader.start)
    watch.look()
    assert watch.processes[DAEMON].label is not None


def test_another_user_is_not_believed_by_the_folder_alone(task: FakeProc, watch: Watch) -> None:
    watch.look()
    daemon(task, uid=0)
    watch.tick()
    assert watch.processes[DAEMON].label is not None and not watch.processes[DAEMON].trusted


def test_another_namespace_is_not_the_tasks_by_the_folder_alone(task: FakeProc, watch: Watch) -> None:
    watch.look()
    daemon(task, namespace="pid:[2]")
    watch.tick()
    assert watch.processes[DAEMON].contrary == "it lives in another pid namespace"


def test_its_own_words_say_more(task: FakeProc, watch: Watch) -> None:
    watch.look()
    daemon(task, environ=tags(dag="e", run="s"))
    task.add(DAEMON + 1, argv=("sleep", "1"), environ={"AIRFLOW_HOME": "/srv/b"})
    task.works_in(DAEMON + 1, FOLDER)
    watch.tick()
    label = watch.processes[DAEMON].label
    assert label is not None and label.dag_id == "e" and watch.processes[DAEMON].contrary is None
    assert watch.processes[DAEMON + 1].label is None


def test_who_names_its_task_itself_is_judged_by_that_and_not_by_the_folder(
    task: FakeProc, watch: Watch
) -> None:
    task.become(BASH, BASH_ARGV, {**tags(), "DAGSTOP_SPARE": "1"})
    watch.look()
    daemon(task, environ=tags())
    watch.tick()
    seen = watch.processes[DAEMON]
    assert seen.evidence == ("environment",) and seen.runner is None and not asks_to_be_spared(seen)


def test_who_shows_another_airflow_is_none_of_the_folders_task(task: FakeProc, watch: Watch) -> None:
    watch.look()
    daemon(task, environ={"AIRFLOW_HOME": "/srv/b"})
    watch.tick()
    assert watch.processes[DAEMON].label is None


def test_words_that_name_no_run_do_not_speak_against_it(task: FakeProc, watch: Watch) -> None:
    watch.look()
    daemon(task, environ={"AIRFLOW_HOME": HOME})
    watch.tick()
    assert watch.processes[DAEMON].label == watch.processes[BASH].label


def test_a_leader_that_became_a_service_leads_nowhere(proc: FakeProc, watch: Watch) -> None:
    proc.add(BASH, argv=BASH_ARGV, environ=tags())
    proc.works_in(BASH, FOLDER)
    watch.look()
    proc.become(BASH, ("/usr/sbin/sshd", "-D"), {"AIRFLOW_HOME": HOME})
    watch._stir([BASH])
    daemon(proc, environ={"AIRFLOW_HOME": HOME})
    watch.look()
    assert [watch.processes[pid].label for pid in (BASH, DAEMON)] == [None, None]


def test_a_leader_whose_environment_cannot_be_read_leads_there(task: FakeProc, watch: Watch) -> None:
    """It is known by what forked it; of what else is unread it is in doubt."""
    task.refused[BASH, "environ"] = errno.EACCES
    watch.look()
    daemon(task)
    watch.tick()
    assert watch.processes[DAEMON].label is not None


@pytest.mark.parametrize(("uid", "trusted"), [(4711, True), (4712, False)])
def test_what_works_there_as_the_tasks_own_user_is_believed(
    task: FakeProc, watch: Watch, uid: int, trusted: bool
) -> None:
    """With run_as_user; anybody may go there."""
    task.becomes_user(BASH, 4711)
    watch.look()
    daemon(task, uid=uid)
    watch.tick()
    seen = watch.processes[DAEMON]
    assert seen.label is not None and seen.trusted is trusted
    assert (seen.vouchers == {UID, 4711}) is trusted, seen.vouchers


def test_what_works_there_as_airflows_user_is_believed_for_that(task: FakeProc, watch: Watch) -> None:
    """The task runs as another, by run_as_user."""
    task.becomes_user(BASH, 4711)
    watch.look()
    daemon(task, uid=UID)
    watch.tick()
    seen = watch.processes[DAEMON]
    assert seen.label is not None and seen.trusted and seen.vouchers == {UID}


def test_only_who_leads_a_session_leads_in_a_folder(task: FakeProc, watch: Watch) -> None:
    """Another task's process may go there: bash was started in its own."""
    task.works_in(BASH, "/srv")
    task.works_in(SLEEP, FOLDER)
    watch.look()
    daemon(task)
    watch.tick()
    assert watch.processes[DAEMON].label is None


@pytest.mark.parametrize("file", ["ns/pid", "cmdline"])
def test_a_leader_in_doubt_leads_nobody(task: FakeProc, watch: Watch, file: str) -> None:
    task.end(RUNNER)
    task.refused[BASH, file] = errno.EACCES
    watch.look()
    daemon(task)
    watch.tick()
    assert watch.processes[DAEMON].label is None


@pytest.mark.parametrize("stands", [{"uid": 4711}, {"ppid": 400}])
def test_a_leader_that_is_not_believed_leads_nobody(
    proc: FakeProc, watch: Watch, stands: dict[str, Any]
) -> None:
    """He runs as a stranger, or under a service."""
    proc.add(400, argv=("/usr/sbin/cron",))
    proc.add(BASH, argv=BASH_ARGV, environ=tags(), **stands)
    proc.works_in(BASH, FOLDER)
    watch.look()
    daemon(proc)
    watch.tick()
    assert watch.processes[BASH].label is not None and watch.processes[DAEMON].label is None


def test_a_runner_that_works_in_a_tasks_folder_does_not_make_it_its_own(task: FakeProc, watch: Watch) -> None:
    """The bash of the task began another task by hand."""
    task.add(200, ppid=BASH, argv=["airflow task runner: e u s 9"])
    task.works_in(200, FOLDER)
    watch.look()
    daemon(task)
    watch.tick()
    assert watch.processes[DAEMON].label == watch.processes[BASH].label


def test_a_folder_in_a_container_is_another_one_than_here(proc: FakeProc) -> None:
    init = Identity(200, 20)
    watch = Watch(proc, trusted_uids=lambda: frozenset({UID}), own_pid=LISTENER, init_of=lambda pid: init)
    proc.add(BASH, argv=BASH_ARGV, environ=tags(), namespace="pid:[2]")
    proc.works_in(BASH, FOLDER)
    watch.look()
    daemon(proc)
    watch.look()
    assert watch.processes[BASH].place == init and watch.processes[DAEMON].label is None


def test_what_lives_in_a_container_works_in_no_folder_of_this_host(proc: FakeProc) -> None:
    """Its folder has the same name by chance, and is another task's here."""
    watch = Watch(
        proc, trusted_uids=lambda: frozenset({UID}), own_pid=LISTENER, init_of=lambda pid: Identity(200, 20)
    )
    proc.add(BASH, argv=BASH_ARGV, environ=tags(task="u"))
    proc.works_in(BASH, FOLDER)
    proc.add(400, argv=["airflow task runner: d t r 4"], namespace="pid:[2]")
    proc.add(401, ppid=400, argv=("sleep", "1"), namespace="pid:[2]")
    watch.look()
    proc.end(400)
    proc.works_in(401, FOLDER)
    watch._stir([401])
    watch.look()
    assert watch.processes[401].evidence == ("child of 400",) and watch.processes[401].contrary is None


def test_what_runs_under_a_service_is_the_services(task: FakeProc, watch: Watch) -> None:
    watch.look()
    task.add(400, argv=("/usr/sbin/cron",))
    daemon(task, ppid=400)
    watch.tick()
    assert "it runs under" in str(watch.processes[DAEMON].contrary)


def test_a_folder_of_two_tasks_is_nobodys(task: FakeProc, watch: Watch) -> None:
    task.add(200, argv=BASH_ARGV, environ=tags(task="u"))
    task.works_in(200, FOLDER)
    watch.look()
    daemon(task)
    watch.tick()
    assert watch.processes[DAEMON].label is None


def test_a_daemon_of_what_asks_to_be_spared_is_spared(task: FakeProc, watch: Watch) -> None:
    task.become(BASH, BASH_ARGV, {**tags(), "DAGSTOP_SPARE": "1"})
    watch.look()
    daemon(task)
    watch.tick()
    assert asks_to_be_spared(watch.processes[DAEMON])
    assert watch.folders() == []


def test_a_folder_is_remembered_across_a_restart(task: FakeProc, watch: Watch, tmp_path: Path) -> None:
    watch.look()
    label = watch.processes[BASH].label
    state = tmp_path / "state"
    state.mkdir()
    memory.save(state, "boot", [], (), watch.folders())
    for pid in (BASH, 130, 120):
        task.end(pid)
    daemon(task)
    again = watch_of(task)
    known = memory.load(state, "boot")
    assert known.folders.keys() == {FOLDER}
    again.restore(known.processes, known.folders)
    again.look()
    assert again.processes[DAEMON].label == label and again.processes[DAEMON].trusted
    (row,) = again.folders()
    assert row[:5] == [FOLDER, BASH, known.folders[FOLDER].identity.start, UID, _facts(label)]
    assert row[5][0] == 130 and again.processes[DAEMON].runner is not None


def _facts(label: Label | None) -> dict[str, object]:
    assert label is not None and label.airflow_home == HOME
    return label.facts()


def test_a_folder_is_forgotten_once_it_is_empty_and_deleted(
    task: FakeProc, watch: Watch, tmp_path: Path
) -> None:
    there = tmp_path / "airflowtmpabcdefgh"
    there.mkdir()
    task.works_in(BASH, str(there))
    watch.look()
    daemon(task, str(there))
    watch.tick()
    for pid in (BASH, 150, DAEMON):
        task.end(pid)
    task.now += 7000
    watch.look()
    assert watch.folders() != []
    there.rmdir()
    task.now += 7000
    watch.look()
    assert watch.folders() == []


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/tmp/airflowtmpAb_9", "/tmp/airflowtmpAb_9"),
        ("/srv/a b/airflowtmpx1/t/airflowtmpx2", "/srv/a b/airflowtmpx1"),
        ("/airflowtmpx1", "/airflowtmpx1"),
        ("/tmp/airflowtmp", None),
        ("/tmp/airflowtmpx (other)", None),
        ("/tmp/my-airflowtmpx", None),
        ("airflowtmpx", None),
        ("", None),
    ],
)
def test_which_paths_are_a_tasks_folder(path: str, folder: str | None) -> None:
    assert parse_task_folder(path) == folder


def test_a_folder_in_which_only_its_leader_was_seen_is_forgotten_in_time(proc: FakeProc) -> None:
    leader = process(identity=Identity(DAEMON, 100))
    proc.add(DAEMON, start=100)
    proc.works_in(DAEMON, FOLDER)
    processes = {DAEMON: leader}
    folders = Folders(proc, processes)
    assert folders.note(leader, 1000)
    folders.forget_the_old(2000)  # it lives
    del processes[DAEMON]
    folders.forget_the_old(2000 + KEPT)
    assert [fact[0] for fact in folders.facts()] == [FOLDER]
    folders.forget_the_old(2001 + KEPT)
    assert folders.facts() == []


def test_a_folder_is_kept_while_anybody_who_works_there_lives(proc: FakeProc) -> None:
    """The task is over, its folder deleted; what it left behind starts another process."""
    leader, left = process(identity=Identity(DAEMON, 100)), process(identity=Identity(301, 100))
    for pid in (DAEMON, 301):
        proc.add(pid, start=100)
        proc.works_in(pid, f"{FOLDER} (deleted)")
    processes = {DAEMON: leader, 301: left}
    folders = Folders(proc, processes)
    folders.note(leader, 1000)
    assert folders.leader_of(left, 1000) == (leader, FOLDER)
    del processes[DAEMON]
    folders.forget_the_old(2 * KEPT)
    folders.forget_the_old(4 * KEPT)
    assert folders.leader_of(process(identity=Identity(302, 200)), 4 * KEPT) == (None, "")
    assert folders.leader_of(left, 4 * KEPT) == (leader, FOLDER)
    del processes[301]
    folders.forget_the_old(6 * KEPT)
    assert folders.leader_of(left, 6 * KEPT) == (None, "")


def test_a_pid_that_was_given_out_again_keeps_no_folder(proc: FakeProc) -> None:
    leader = process(identity=Identity(DAEMON, 100))
    proc.add(DAEMON, start=100)
    proc.works_in(DAEMON, FOLDER)
    folders = Folders(proc, {DAEMON: process(identity=Identity(DAEMON, 900))})
    folders.note(leader, 1000)
    folders.forget_the_old(1001 + KEPT)
    assert folders.facts() == []


def test_of_more_folders_than_it_keeps_the_oldest_are_forgotten(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagstop.evidence.folders.MOST", 2)
    leaders = {pid: process(identity=Identity(pid, 100)) for pid in (301, 302, 303)}
    folders = Folders(proc, leaders)
    for pid, leader in leaders.items():
        proc.add(pid, start=100)
        proc.works_in(pid, f"/tmp/airflowtmp{pid}")
        folders.note(leader, 1000)
    folders.forget_the_old(1000)
    assert [row[1] for row in folders.facts()] == [302, 303]
    folders.forget_the_old(1000)
    assert [row[1] for row in folders.facts()] == [302, 303]


def test_what_an_earlier_listener_remembered_is_forgotten_in_time(proc: FakeProc) -> None:
    folders = Folders(proc, {})
    folders.restore({FOLDER: process(identity=Identity(DAEMON, 100))}, 1000)
    folders.forget_the_old(1000 + KEPT)
    assert [row[0] for row in folders.facts()] == [FOLDER]
    folders.forget_the_old(1001 + KEPT)
    assert folders.facts() == []


def test_whether_a_folder_is_still_there_is_asked_once_nobody_was_in_it_for_long(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each look: there may be many, on a file system that is slow."""
    asked: list[str] = []

    def is_there(path: str) -> bool:
        asked.append(path)
        return True

    monkeypatch.setattr("os.path.isdir", is_there)
    leader = process(identity=Identity(DAEMON, 100))
    proc.add(DAEMON, start=100)
    proc.works_in(DAEMON, FOLDER)
    folders = Folders(proc, {})
    folders.note(leader, 1000)
    folders.forget_the_old(1000 + KEPT)
    assert asked == []
    for _ in range(2):
        folders.forget_the_old(1001 + KEPT)
    assert asked == [FOLDER]


def test_a_folder_names_its_leader_to_others_that_did_not_begin_before_it(proc: FakeProc) -> None:
    leader = process(identity=Identity(DAEMON, 100))
    for pid, start in ((DAEMON, 100), (301, 100), (302, 99)):
        proc.add(pid, start=start)
        proc.works_in(pid, FOLDER)
    folders = Folders(proc, {DAEMON: leader})
    folders.note(leader, 1000)
    assert folders.leader_of(leader, 1000) == (None, "")
    assert folders.leader_of(process(identity=Identity(301, 100)), 1000) == (leader, FOLDER)
    assert folders.leader_of(process(identity=Identity(302, 99)), 1000) == (None, "")


def test_a_folder_of_two_tasks_is_not_remembered(proc: FakeProc) -> None:
    folders = Folders(proc, {})
    for pid, task in ((DAEMON, "t"), (301, "u")):
        proc.add(pid, start=100)
        proc.works_in(pid, FOLDER)
        label = Label(dag_id="d", run_id="r", task_id=task, airflow_home=HOME)
        folders.note(process(label, identity=Identity(pid, 100)), 1000)
    assert folders.facts() == []


def test_a_folder_is_forgotten_by_the_watch_too(task: FakeProc, watch: Watch) -> None:
    watch.look()
    assert [row[0] for row in watch.folders()] == [FOLDER]
    task.end(SLEEP)
    task.end(BASH)
    watch.look()
    assert len(watch.folders()) == 1
    task.now += 2 * KEPT
    watch.look()
    assert watch.folders() == []


def test_an_orphan_that_names_its_task_leads_in_its_folder(task: FakeProc, watch: Watch) -> None:
    task.end(RUNNER)
    watch.look()
    daemon(task)
    watch.tick()
    assert watch.processes[DAEMON].label == watch.processes[BASH].label


ANOTHER = "/tmp/airflowtmpanother1"


def goes_on(proc: FakeProc, *pids: int) -> None:
    """Into the folder of a task that nobody saw, where something of that task works."""
    for pid in pids:
        proc.works_in(pid, ANOTHER)
    proc.add(DAEMON + 9, argv=("sleep", "1"))
    proc.works_in(DAEMON + 9, ANOTHER)


@pytest.mark.parametrize("environ", [{}, {"AIRFLOW_HOME": HOME}])
def test_who_is_known_by_a_folder_leads_nobody_into_another_one(
    task: FakeProc, watch: Watch, environ: dict[str, str]
) -> None:
    """Nor does what it starts there. What works there may be any task's."""
    watch.look()
    daemon(task, environ=environ)
    watch.look()
    task.add(DAEMON + 1, ppid=DAEMON, argv=("sleep", "2"))
    goes_on(task, DAEMON, DAEMON + 1)
    for _ in range(4):
        watch.look()
    ours = watch.processes[BASH].label
    assert [watch.processes[pid].label for pid in (DAEMON, DAEMON + 1)] == [ours, ours]
    assert watch.processes[DAEMON + 9].label is None


def test_who_was_known_by_a_folder_leads_nobody_into_another_one_after_a_restart_either(
    task: FakeProc, watch: Watch
) -> None:
    watch.look()
    daemon(task)
    watch.look()
    labels = {p.identity: Known(p.label) for p in watch.labelled() if p.label is not None}
    again = watch_of(task)
    again.restore(labels)
    goes_on(task, DAEMON)
    for _ in range(4):
        again.look()
    assert again.processes[DAEMON].label == watch.processes[BASH].label
    assert again.processes[DAEMON + 9].label is None


def test_who_goes_on_while_he_is_read_leads_nobody_either(
    task: FakeProc, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.look()
    daemon(task)
    read = task.task_folder

    def once(pid: int) -> str | None:
        found = read(pid)
        if pid == DAEMON and found == FOLDER:
            goes_on(task, DAEMON)
        return found

    monkeypatch.setattr(task, "task_folder", once)
    for _ in range(4):
        watch.look()
    assert watch.processes[DAEMON].label == watch.processes[BASH].label
    assert watch.processes[DAEMON + 9].label is None


def test_who_says_himself_whose_he_is_leads_whatever_folder_he_worked_in(
    task: FakeProc, watch: Watch
) -> None:
    """It begins another task, in the folder of that."""
    watch.look()
    daemon(task)
    watch.look()
    assert watch.processes[DAEMON].by_folder
    task.become(DAEMON, ("bash", "-c", "sleep 2"), tags(task="u"))
    goes_on(task, DAEMON)
    for _ in range(4):
        watch.look()
    label = watch.processes[DAEMON + 9].label
    assert label is not None and label.task_id == "u"
