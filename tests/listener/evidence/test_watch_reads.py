"""What a watch reads of whom, how often, and what it makes of words that change."""

from __future__ import annotations

import errno

import pytest

from dagstop.evidence.lineage import ClientEnd
from dagstop.evidence.memory import Known
from dagstop.evidence.watch import Watch
from dagstop.model import Identity, Label, Process, Role
from tests.support.airflow_trees import BASH, RUNNER, SCHEDULER, SLEEP, airflow_2
from tests.support.fake_proc import HOME, UID, UUID, FakeEvents, FakeProc, process, tags, watch_of

TITLE = f"airflow worker -- {UUID}"


@pytest.mark.parametrize(
    ("argv", "changes"),
    [
        (("airflow", "scheduler"), True),
        (("/usr/bin/python3", "/opt/airflow/bin/airflow", "scheduler"), True),
        (("/usr/bin/python3", "-m", "airflow", "scheduler"), False),
        (("[celeryd: celery@host:ForkPoolWorker-1]",), True),
        (("/opt/bin/celery", "worker"), True),
        (("python", "-c", "from airflow.sdk.execution_time import x"), True),
        (("python", "-c", "print(1)"), False),
        (("python", "-c", "print(1)", "airflow"), False),
        (("python3", "x", "from airflow.sdk import y"), False),
        (("bash", "-c", "airflow version"), False),
        (("/usr/bin/sudo", "-E", "-u", "etl", "python", "-c", "from airflow.sdk import x"), True),
        (("/usr/bin/notsudo", "-E", "-u", "etl", "python", "-c", "from airflow.sdk import x"), False),
        (("sudo/x", "-E", "from airflow.sdk import x"), False),
        (("ls", "x", "/opt/airflow"), False),
        (("sleep", "1"), False),
        ((TITLE,), True),  # it may become a sudo: run_as_user
        (("airflow task runner: d t r 4",), False),
        ((), True),  # it may be in an exec
    ],
)
def test_whose_words_may_change_at_any_time(
    proc: FakeProc, watch: Watch, argv: tuple[str, ...], changes: bool
) -> None:
    """Airflow's own processes set their titles as they go from task to task; others are settled soon."""
    proc.add(600, argv=argv)
    for _ in range(4):
        watch.look()
    proc.become(600, ("airflow", "tasks", "run", "d", "t", "r", "--job-id", "7", "--raw"))
    watch.tick()
    assert (watch.processes[600].title == Label(dag_id="d", run_id="r", task_id="t", job_id=7)) is changes


def test_what_ran_in_a_container_by_docker_exec_is_its_clients(proc: FakeProc, watch: Watch) -> None:
    """Read before or after the engine names it, with all that it has started by then."""
    airflow_2(proc)
    proc.add(300, argv=("containerd-shim",))
    for pid in (310, 320):
        proc.add(pid, ppid=300, argv=("sh",), namespace="pid:[2]", uid=0)
        proc.add(pid + 1, ppid=pid, argv=("sleep", "1"), namespace="pid:[2]", uid=0)
        if pid == 310:
            watch.look()
    assert 320 not in watch.processes and watch.processes[311].label is None
    for pid in (310, 320):
        stat = proc.stat(pid)
        assert stat is not None
        watch.claim(Identity(pid, stat.start), watch.processes[BASH])
    assert watch.processes[311].label == watch.processes[BASH].label, (
        "what it had started is labelled with it"
    )
    assert watch.processes[320].label == watch.processes[BASH].label, "it is read at once"
    seen = watch.look()
    for pid in (310, 311, 320, 321):
        assert seen[pid].label == seen[BASH].label and seen[pid].contrary is None and seen[pid].trusted
    assert seen[310].evidence == (f"docker exec by {BASH}",) and seen[311].evidence == ("child of 310",)


def test_a_claim_ends_with_what_was_claimed(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(310, argv=("sh",), namespace="pid:[2]", start=5000)
    watch.look()
    watch.claim(Identity(310, 5000), watch.processes[BASH])
    proc.end(310)
    watch.look()
    assert watch._labelling.claimed == {}


def test_a_death_counts_only_of_the_very_process(proc: FakeProc, watch: Watch) -> None:
    """Of another one of that pid it would keep a session open that has ended."""
    airflow_2(proc)
    watch.look()
    for identity in (Identity(BASH, 1), Identity(999, 1), watch.processes[90].identity):
        watch.died(identity)
    late = proc.add(700, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    proc.end(SLEEP)
    proc.end(BASH)
    watch.look()
    assert watch.processes[late].label is None


def test_what_goes_with_a_label_is_to_be_saved(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(700, argv=("sleep", "1"))
    watch.look()
    watch.changed = False
    proc.end(700)
    watch.look()
    assert not watch.changed
    proc.end(SLEEP)
    watch.look()
    assert watch.changed
    proc.add(701, argv=("sleep", "1"))
    watch.look()
    proc.end(701)
    watch.look()
    assert watch.changed, "until it is saved"


def test_what_is_read_of_a_process(proc: FakeProc, watch: Watch) -> None:
    proc.add(
        600, ppid=90, pgid=601, sid=602, argv=("sh",), state="D", start=77, environ={"AIRFLOW_HOME": HOME}
    )
    proc.add(605, ppid=606, argv=("sh",))
    watch.look()
    one = watch.processes[600]
    assert one == Process(
        identity=Identity(600, 77), ppid=90, pgid=601, sid=602, state="D", uid=-1, argv=("sh",),
        environ={"AIRFLOW_HOME": HOME}, role=Role.OTHER, title=None,
    )  # fmt: skip
    proc._stat(600, "R", [1, 611, 612], 77)
    watch.look()
    assert (one.ppid, one.pgid, one.sid, one.state) == (1, 611, 612, "R") and one.label is None


def test_the_first_two_processes_of_a_host_are_nobodys(proc: FakeProc, watch: Watch) -> None:
    proc.become(1, ("/sbin/init",), tags())
    proc.add(2, ppid=0, argv=("kthreadd",), environ=tags())
    proc.add(3, ppid=0, argv=("sh",), environ=tags())
    watch.look()
    assert [watch.processes[pid].label is None for pid in (1, 2, 3)] == [True, True, False]


def test_in_an_exec_a_process_keeps_what_it_showed(proc: FakeProc, watch: Watch) -> None:
    """For a moment there is neither a command line nor an environment."""
    proc.add(600, argv=("bash",), environ=tags())
    watch.tick()
    proc.become(600, (), b"")
    watch.tick()
    assert (watch.processes[600].argv, watch.processes[600].environ) == (("bash",), tags())
    proc.become(600, ("sleep", "1"), b"")
    watch.tick()
    assert (watch.processes[600].argv, watch.processes[600].environ) == (("sleep", "1"), tags())
    proc.become(600, ("sleep", "1"), {"AIRFLOW_HOME": HOME})
    watch._stir([600])
    watch.tick()
    assert watch.processes[600].environ == {"AIRFLOW_HOME": HOME}


def test_a_fork_of_a_runner_that_executes_something_is_the_runners(proc: FakeProc, watch: Watch) -> None:
    """It bears the runner's title until then. A runner that becomes another program stays one: sudo."""
    airflow_2(proc)
    proc.add(700, ppid=RUNNER, argv=["airflow task runner: d t r 4"], sid=SCHEDULER)
    proc.add(710, ppid=SCHEDULER, argv=[TITLE], environ={"AIRFLOW_HOME": HOME})
    watch.tick()
    assert [watch.processes[pid].role for pid in (700, 710)] == [Role.RUNNER, Role.RUNNER]
    proc.become(700, ("gzip", "x"))
    proc.become(710, ("sudo", "-E", "-u", "etl", "python", "-c", "from airflow.sdk import x"))
    watch.tick()
    fork, became = watch.processes[700], watch.processes[710]
    assert (fork.role, fork.title) == (Role.OTHER, None) and fork.label is not None
    assert fork.runner is watch.processes[RUNNER]
    assert became.role is Role.RUNNER and became.title == Label(ti_id=UUID)
    for _ in range(3):
        watch.tick()
    assert became.pid not in watch._restless, "it becomes nothing else"


def test_a_runner_of_another_task_than_its_parents_is_no_fork_of_it(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(700, ppid=RUNNER, argv=["airflow task runner: e u s 9"])
    proc.add(710, ppid=BASH, argv=[TITLE])
    watch.tick()
    for pid in (700, 710):
        proc.become(pid, ("gzip", "x"))
    watch.tick()
    assert [watch.processes[pid].role for pid in (700, 710)] == [Role.RUNNER, Role.RUNNER]


def test_a_fork_of_a_runner_that_becomes_another_tasks_runner_is_that(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    proc.add(700, ppid=RUNNER, argv=["airflow task runner: d t r 4"], sid=SCHEDULER)
    watch.tick()
    proc.become(700, ["airflow task runner: e u s 9"])
    watch.tick()
    seen = watch.processes[700]
    assert seen.title is not None and seen.title.dag_id == "e"
    assert seen.role is Role.RUNNER and seen.label is not None and seen.label.dag_id == "e"


def test_a_runner_that_its_supervisor_started_and_that_becomes_a_sudo_stays_one(
    proc: FakeProc, watch: Watch
) -> None:
    """Both name the same task instance: that makes it a fork of a runner only under a runner."""
    proc.add(700, argv=[f"airflow worker -- LocalExecutor: {UUID}"], environ={"AIRFLOW_HOME": HOME})
    proc.add(710, ppid=700, argv=[TITLE], environ={"AIRFLOW_HOME": HOME})
    watch.tick()
    proc.become(710, ("sudo", "-E", "-u", "etl", "python", "-c", "from airflow.sdk import x"))
    watch.tick()
    assert watch.processes[710].role is Role.RUNNER


def test_what_becomes_a_service_is_no_tasks_any_more(proc: FakeProc, watch: Watch) -> None:
    airflow_2(proc)
    watch.look()
    proc.become(BASH, ("/usr/sbin/sshd", "-D"), {})
    watch._stir([BASH])
    watch.tick()
    seen = watch.processes[BASH]
    assert (seen.role, seen.runner) == (Role.SERVICE, None)
    assert seen.contrary == "it is a service, which is never killed"
    proc.become(BASH, ("sleep", "1"), {})
    watch._stir([BASH])
    watch.tick()
    assert seen.role is Role.OTHER and seen.contrary is None


def test_what_was_refused_may_be_read_later(proc: FakeProc, watch: Watch) -> None:
    """Each file by itself; what else spoke against it is asked for by itself."""
    proc.add(600, argv=("bash",), environ=tags())
    proc.refused = {(600, "environ"): errno.EACCES, (600, "cmdline"): errno.EACCES}
    watch.look()
    assert watch.processes[600].unread.keys() == {"environ", "cmdline"}
    assert watch.unread() == [watch.processes[600]]
    assert (watch.processes[600].argv, watch.processes[600].environ) == ((), {})
    watch.processes[600].unread["ns/pid"] = "why"
    del proc.refused[600, "cmdline"]
    watch.look()
    assert watch.processes[600].unread.keys() == {"environ", "ns/pid"}
    del proc.refused[600, "environ"]
    watch._stir([600])
    watch.look()
    assert "environ" not in watch.processes[600].unread and watch.unread() == []
    assert watch.processes[600].label is not None


def test_what_could_be_read_and_cannot_be_any_more_is_said(proc: FakeProc, watch: Watch) -> None:
    """It became another user's; what it showed before stays known."""
    proc.add(600, argv=("bash",), environ=tags())
    watch.look()
    proc.refused[600, "environ"] = errno.EACCES
    watch._stir([600])
    watch.look()
    seen = watch.processes[600]
    assert seen.unread.keys() == {"environ"} and watch.unread() == [seen]
    assert seen.environ == tags() and seen.label is not None


def test_what_is_remembered_of_what_has_another_role_now_is_not_believed(
    proc: FakeProc, watch: Watch
) -> None:
    known = Known(Label(dag_id="d", run_id="r", task_id="t"), process(), None)
    proc.add(300, argv=("/usr/sbin/sshd",), start=400)
    proc.add(301, argv=("sleep", "1"), start=401)
    watch.restore({Identity(300, 400): known, Identity(301, 401): known})
    watch.look()
    assert watch.processes[300].label is None
    seen = watch.processes[301]
    assert seen.trusted and seen.runner is known.runner and seen.evidence == ("remembered",)


def test_a_doubt_comes_back_with_what_is_remembered(proc: FakeProc, watch: Watch) -> None:
    doubts = {"trusted": False, "contrary": "x", "spare": True, "uid": UID, "vouchers": [], "inner": []}
    proc.add(300, argv=("sleep", "1"), start=400, uid=4711)
    watch.restore({Identity(300, 400): Known(Label(dag_id="d", run_id="r"), None, doubts)})
    watch.look()
    seen = watch.processes[300]
    assert (seen.trusted, seen.contrary, seen.kin_spared) == (False, "x", True)


def test_how_a_client_ended_is_given_on_once(proc: FakeProc, events: FakeEvents) -> None:
    watch = watch_of(proc, events=events)
    proc.add(600, argv=("docker", "run", "-d", "image"), start=700)
    watch.look()
    events.ended(600, status=256)
    proc.end(600)
    watch.tick()
    (end,) = watch.client_ends()
    assert isinstance(end, ClientEnd) and (end.process.identity, end.status) == (Identity(600, 700), 256)
    assert watch.client_ends() == []


def test_each_process_of_a_pass_is_read_whatever_became_of_the_others(
    proc: FakeProc, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has gone since the listing, one has done nothing, one has a pid that was given out again."""
    for pid in (600, 601, 602, 603):
        proc.add(pid, argv=("sleep", "1"))
    for _ in range(3):
        watch.look()
    pids = proc.pids()
    proc.end(600)
    proc.end(602)
    proc.add(602, argv=("bash",), environ=tags())
    proc.become(603, ("bash",), tags())
    proc._stat(603, "R", [1, 603, 603], watch.processes[603].identity.start)
    watch._stir([603])
    monkeypatch.setattr(proc, "pids", lambda: sorted(pids))
    watch.look()
    assert 600 not in watch.processes
    assert watch.processes[602].label is not None and watch.processes[603].label is not None


def test_what_could_not_be_read_of_a_tasks_process_is_tried_until_it_can(
    proc: FakeProc, watch: Watch
) -> None:
    """It may become another user's at any time, and nobody tells."""
    airflow_2(proc)
    proc.refused[SLEEP, "environ"] = errno.EACCES
    proc.add(700, argv=("sleep", "1"))
    proc.refused[700, "environ"] = errno.EACCES
    for _ in range(5):
        watch.tick()
    assert watch.processes[SLEEP].unread and SLEEP in watch._restless
    assert 700 not in watch._restless, "a stranger's"
    proc.refused.clear()
    watch.tick()
    assert not watch.processes[SLEEP].unread and SLEEP not in watch._restless


def test_what_went_while_it_was_read_is_new_when_its_pid_is_there_again(proc: FakeProc, watch: Watch) -> None:
    """Between two listings that are the same."""
    proc.add(600, argv=("bash",), environ=tags())
    proc.refused[600, "stat"] = errno.ESRCH
    watch.tick()
    assert 600 not in watch.processes
    proc.refused.clear()
    watch.tick()
    assert watch.processes[600].label is not None


def test_what_is_settled_is_not_judged_by_who_adopted_it(proc: FakeProc, watch: Watch) -> None:
    """A subreaper, say: it was the task's while its parents lived."""
    proc.add(80, argv=("/usr/sbin/cron",))
    airflow_2(proc)
    for _ in range(4):
        watch.look()
    proc.end(RUNNER, adopted_by=80)
    watch.look()
    seen = watch.processes[BASH]
    assert (seen.ppid, seen.contrary) == (80, None)


def test_an_environment_that_comes_late_is_read(proc: FakeProc, watch: Watch) -> None:
    """In an exec the words may be there first: they are read again twice, though they do not change."""
    scheduler = ("airflow", "scheduler")
    proc.add(600, argv=scheduler)
    watch.tick()
    watch.tick()
    proc.become(600, scheduler, {"AIRFLOW_HOME": HOME})
    watch.tick()
    assert watch.processes[600].environ == {"AIRFLOW_HOME": HOME}
