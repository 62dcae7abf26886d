"""What may be a run's, since it began while nobody was told of forks; what is certainly not."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import memory
from dagstop.evidence.gaps import MOST, Gap, Gaps, gap_of
from dagstop.evidence.watch import Watch
from dagstop.host.containers import Airflow, Container
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Decision, Identity
from tests.support.fake_proc import LISTENER, UID, FakeEvents, FakeProc, tags, watch_of

SERVICE, SHARED = "0::/system.slice/airflow-worker.service\n", "0::/user.slice/session-3.scope\n"
BASH, DAEMON = 300, 400
BEGAN, GAP, UNTIL = 50_000, 60_000, 61_000  # ticks since boot: of the task, of the gap
WHY = "no listener ran"


def moment(ticks: int) -> datetime:
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return datetime.now(timezone.utc) - timedelta(seconds=up - ticks / TICKS_PER_SECOND)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    proc = FakeProc(tmp_path)
    proc.add(BASH, argv=("bash",), environ=tags(), start=BEGAN)
    return proc


def lives_in(proc: FakeProc, cgroups: str, *pids: int) -> None:
    for pid in pids:
        (proc.path / str(pid) / "cgroup").write_text(cgroups)


def doubtful(proc: FakeProc, *, known: bool = True) -> dict[int, str]:
    """What is named with the task's process, by pid, and why; `known`: when the gap began."""
    watch = watch_of(proc)
    watch.look()
    watch.gaps.restore([Gap(moment(GAP) if known else None, moment(UNTIL), WHY)])
    watch.gaps.note_tasks(watch.labelled())
    named = watch.gaps.doubtful([watch.processes[BASH].identity], watch.processes)
    assert all(verdict.decision is Decision.SPARE for _, verdict in named)
    return {process.pid: verdict.reason for process, verdict in named}


def test_a_daemon_in_the_same_service_is_named_with_what_it_started(proc: FakeProc) -> None:
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10, uid=0)
    proc.add(DAEMON + 1, ppid=DAEMON, argv=("sleep",), start=GAP + 20, uid=0)
    lives_in(proc, SERVICE, BASH, DAEMON, DAEMON + 1)
    found = doubtful(proc)
    assert found.keys() == {DAEMON, DAEMON + 1}
    assert "in airflow-worker.service" in found[DAEMON] and WHY in found[DAEMON]


def test_where_all_share_a_cgroup_the_same_user_is_named(proc: FakeProc) -> None:
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SHARED, BASH, DAEMON)
    assert doubtful(proc).keys() == {DAEMON}


def test_what_the_users_own_systemd_has_adopted_is_named(proc: FakeProc) -> None:
    proc.add(DAEMON - 1, argv=("/lib/systemd/systemd", "--user"), start=10)
    proc.add(DAEMON, ppid=DAEMON - 1, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, DAEMON)
    lives_in(proc, "0::/user.slice/user@1000.service/init.scope\n", DAEMON - 1)
    assert doubtful(proc).keys() == {DAEMON}


def test_what_the_first_process_of_a_container_of_ours_has_adopted_is_named(proc: FakeProc) -> None:
    init = proc.add(DAEMON - 1, argv=("dumb-init",), start=10)
    proc.add(DAEMON, ppid=init, argv=("sleep",), start=GAP + 10)
    proc.add(DAEMON + 2, ppid=init, argv=("sh",), start=20)
    proc.add(DAEMON + 1, ppid=DAEMON + 2, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, init, *range(DAEMON, DAEMON + 3))
    assert doubtful(proc) == {}, "what a process of the service started is the service's own"
    watch = watch_of(proc)
    watch.look()
    watch.gaps.restore([Gap(moment(GAP), moment(UNTIL), WHY)])
    watch.gaps.note_tasks(watch.labelled())
    watch.processes[DAEMON].place = watch.processes[DAEMON + 1].place = watch.processes[init].identity
    ((one, _),) = watch.gaps.doubtful([watch.processes[BASH].identity], watch.processes)
    assert one.pid == DAEMON


def test_what_was_adopted_by_somebody_who_is_not_known_yet_is_named(proc: FakeProc) -> None:
    """Its parent has begun since the look at all: nothing says that it had started it."""
    proc.add(DAEMON - 1, argv=("sh",), start=10)
    proc.add(DAEMON, ppid=DAEMON - 1, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, DAEMON - 1, DAEMON)
    watch = watch_of(proc)
    watch.look()
    watch.gaps.restore([Gap(moment(GAP), moment(UNTIL), WHY)])
    watch.gaps.note_tasks(watch.labelled())
    own = [watch.processes[BASH].identity]
    assert watch.gaps.doubtful(own, watch.processes) == []
    without = {pid: process for pid, process in watch.processes.items() if pid != DAEMON - 1}
    assert [one.pid for one, _ in watch.gaps.doubtful(own, without)] == [DAEMON]


def test_gaps_stand_in_the_order_of_their_ends(watch: Watch) -> None:
    """Of some it is not known when they began."""
    first, third = Gap(None, moment(UNTIL), WHY), Gap(None, moment(UNTIL + 2000), WHY)
    second = Gap(moment(GAP), moment(UNTIL + 1000), WHY)
    watch.gaps.add(third)
    watch.gaps.restore([second, first])
    assert watch.gaps.all == [first, second, third]


def test_before_a_first_listener_nothing_is_named(proc: FakeProc) -> None:
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, DAEMON)
    assert doubtful(proc).keys() == {DAEMON}
    assert doubtful(proc, known=False) == {}


@pytest.mark.parametrize(
    ("cgroups", "start", "uid"),
    [
        (SERVICE, GAP - 200, UID),
        (SERVICE, UNTIL + 200, UID),
        ("0::/system.slice/cron.service\n", GAP + 10, UID),
        (SHARED, GAP + 10, UID + 1),
    ],
    ids=["before the gap", "after it", "another service", "another user"],
)
def test_what_has_no_such_tie_is_not_named(proc: FakeProc, cgroups: str, start: int, uid: int) -> None:
    proc.add(DAEMON, argv=("sleep",), start=start, uid=uid)
    lives_in(proc, cgroups, DAEMON)
    lives_in(proc, SHARED if cgroups == SHARED else SERVICE, BASH)
    assert doubtful(proc) == {}


def test_the_lowest_of_the_users_that_are_not_root_is_a_user_like_others(proc: FakeProc) -> None:
    proc.becomes_user(BASH, 1)
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10, uid=1)
    lives_in(proc, SHARED, BASH, DAEMON)
    assert doubtful(proc).keys() == {DAEMON}


def test_what_shows_no_cgroup_shares_none(proc: FakeProc) -> None:
    """As where /proc does not let us look, or a process is at its end."""
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    assert doubtful(proc) == {}


def test_of_roots_processes_in_a_shared_cgroup_none_is_named(proc: FakeProc) -> None:
    proc.becomes_user(BASH, 0)
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10, uid=0)
    lives_in(proc, SHARED, BASH, DAEMON)
    assert doubtful(proc) == {}


def test_what_is_somebodys_is_not_named(proc: FakeProc) -> None:
    """Another task's, the service's own, a child of either, the listener, what is dead."""
    proc.add(DAEMON, argv=("sleep",), environ=tags(run="other"), start=GAP + 10)
    proc.add(DAEMON + 1, argv=("/usr/bin/python3", "/opt/venv/bin/airflow", "scheduler"), start=10)
    proc.add(DAEMON + 2, ppid=DAEMON + 1, argv=("sleep",), start=GAP + 10)
    proc.add(DAEMON + 3, argv=("sleep",), start=GAP + 10)
    proc.becomes_zombie(DAEMON + 3)
    proc.end(LISTENER)
    proc.add(LISTENER, argv=("python", "dagstop", "listen"), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, *range(DAEMON, DAEMON + 4), LISTENER)
    assert doubtful(proc) == {}


def test_nothing_is_named_that_began_before_the_task(proc: FakeProc) -> None:
    proc.end(BASH)
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    proc.add(BASH, argv=("bash",), environ=tags(), start=GAP + 20)
    lives_in(proc, SERVICE, BASH, DAEMON)
    assert doubtful(proc) == {}


def test_lost_events_leave_a_gap_that_ends_with_the_look_at_everything(proc: FakeProc) -> None:
    events = FakeEvents(proc)
    watch: Watch = watch_of(proc, events=events)
    watch.begin(None)
    before = datetime.now(timezone.utc)
    watch.tick()
    events.overflows()
    watch.tick()
    first, lost = watch.gaps.all
    assert first.since is None and first.why == WHY
    assert lost.why == "events of the kernel were lost"
    assert lost.since is not None and before <= lost.since <= lost.until <= datetime.now(timezone.utc)
    assert watch.gaps.since(lost.since) == [lost] and watch.gaps.since(datetime.now(timezone.utc)) == []


def test_of_many_gaps_the_first_are_told_as_one(proc: FakeProc) -> None:
    watch = watch_of(proc)
    for number in range(MOST + 5):
        watch.gaps.add(Gap(moment(100 * number), moment(100 * number + 50), WHY))
    assert len(watch.gaps.all) == MOST
    first = watch.gaps.all[0]
    assert first.since is not None and first.until - first.since > timedelta(seconds=5)


def test_gaps_outlive_the_listener(tmp_path: Path) -> None:
    gaps = [Gap(None, moment(GAP), WHY), Gap(moment(GAP), moment(UNTIL), WHY)]
    memory.save(tmp_path, "boot", [], gaps=gaps)
    assert memory.load(tmp_path, "boot").gaps == gaps
    assert memory.load(tmp_path, "another").gaps == []


def test_a_gap_is_told_by_the_clock_of_who_hears_of_it() -> None:
    hour = timedelta(hours=1)
    since, until = moment(GAP), moment(UNTIL)
    assert Gap(since, until, WHY).told(lambda at: at + hour) == {
        "from": (since + hour).isoformat(), "to": (until + hour).isoformat(), "why": WHY,
    }  # fmt: skip
    assert Gap(None, until, WHY).told()["from"] is None


@pytest.mark.parametrize(
    "facts",
    [
        (None, None, WHY),
        ("x", moment(1).isoformat(), WHY),
        (None, "x", WHY),
        (None, moment(1).isoformat(), None),
    ],
)
def test_what_is_no_gap_is_not_believed(facts: Any) -> None:
    with pytest.raises(ValueError):
        gap_of(*facts)


def test_what_began_in_the_very_tick_of_the_tasks_process_may_be_its(proc: FakeProc) -> None:
    proc.end(BASH)
    for pid in (BASH, DAEMON):
        proc.add(pid, argv=("sh",), environ=tags() if pid == BASH else {}, start=GAP + 20)
    lives_in(proc, SERVICE, BASH, DAEMON)
    assert doubtful(proc).keys() == {DAEMON}


def test_a_service_that_began_in_a_gap_is_no_tasks(proc: FakeProc) -> None:
    proc.add(DAEMON, argv=("/usr/bin/python3", "/opt/venv/bin/airflow", "scheduler"), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, DAEMON)
    assert doubtful(proc) == {}


def test_pid_1_adopts_also_what_shares_its_cgroup(proc: FakeProc) -> None:
    """As all do in a container."""
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SERVICE, 1, BASH, DAEMON)
    assert doubtful(proc).keys() == {DAEMON}


def test_where_a_tasks_process_was_stays_known_when_it_can_say_it_no_more(proc: FakeProc) -> None:
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SERVICE, BASH, DAEMON)
    watch = watch_of(proc)
    watch.look()
    watch.gaps.restore([Gap(moment(GAP), moment(UNTIL), WHY)])
    watch.gaps.note_tasks(watch.labelled())
    lives_in(proc, "", BASH)
    watch.gaps.note_tasks(watch.labelled())
    ((one, _),) = watch.gaps.doubtful([watch.processes[BASH].identity], watch.processes)
    assert one.pid == DAEMON


def test_one_that_is_not_in_doubt_hides_no_other(proc: FakeProc) -> None:
    """What began before the gap, another task's, the listener, and only then what may be the run's."""
    proc.add(DAEMON, argv=("sleep",), start=GAP - 200)
    proc.add(DAEMON + 1, argv=("sleep",), environ=tags(run="other"), start=GAP + 10)
    proc.end(LISTENER)
    proc.add(LISTENER, argv=("python", "dagstop", "listen"), start=GAP + 20)
    proc.add(DAEMON + 2, argv=("sleep",), start=GAP + 30)
    lives_in(proc, SERVICE, BASH, *range(DAEMON, DAEMON + 3), LISTENER)
    assert doubtful(proc).keys() == {DAEMON + 2}


@pytest.mark.parametrize(
    ("created", "more", "named"),
    [
        (GAP + 10, {}, True),
        (BEGAN - 10, {"since": None}, False),
        (BEGAN + 10, {"since": None}, True),  # no listener ran that was ever heard of
        (GAP - 10, {}, False),
        (UNTIL + 10, {}, False),  # whose it is a listener could see
        (GAP + 10, {"tags": tags(run="other")}, False),
        (GAP + 10, {"tags": {"DAGSTOP_SPARE": "1"}}, False),
        (GAP + 10, {"kubernetes": "shop"}, False),
        (GAP + 10, {"airflow": Airflow("/opt/airflow", None, None)}, False),
        (GAP + 10, {"id": "k" * 64}, False),
    ],
)
def test_a_container_that_was_created_while_no_listener_ran_is_named(
    proc: FakeProc, created: int, more: dict[str, Any], named: bool
) -> None:
    since = more.pop("since", moment(GAP))
    one = Container("c" * 64, "web", "image", 700, moment(created), False, "no", more.pop("tags", {}))
    watch = watch_of(proc)
    watch.gaps.restore([Gap(since, moment(UNTIL), WHY)])
    found = watch.gaps.containers(moment(BEGAN), [replace(one, **more)], {"k" * 64})
    assert [container.name for container, _ in found] == (["web"] if named else [])
    assert all(verdict.decision is Decision.SPARE and WHY in verdict.reason for _, verdict in found)


def test_a_container_that_is_not_in_doubt_hides_no_other(watch: Watch) -> None:
    one = Container("c" * 64, "web", "image", 700, moment(GAP + 10), False, "no", {})
    of_a_task, later = replace(one, tags=tags()), replace(one, created_at=moment(UNTIL + 10))
    watch.gaps.restore([Gap(moment(GAP), moment(UNTIL), WHY)])
    found = watch.gaps.containers(moment(BEGAN), [of_a_task, later, one], ())
    assert [container for container, _ in found] == [one]


SHIM, INIT, EXEC = 500, 501, 502
BUSY = Container("b" * 64, "busy", "image", INIT, moment(10), False, "no", {})


@pytest.mark.parametrize(
    ("start", "more", "named"),
    [
        (GAP + 10, {}, True),
        (GAP - 10, {}, False),
        (UNTIL + 200, {}, False),  # whose it is a listener could see
        (BEGAN + 10, {"since": None}, True),  # no listener ran that was ever heard of
        (BEGAN - 200, {"since": None}, False),
        (GAP + 10, {"environ": tags(run="other")}, False),
        (GAP + 10, {"environ": {"DAGSTOP_SPARE": "1"}}, False),
        (GAP + 10, {"state": "Z"}, False),
        (GAP + 10, {"argv": ("/usr/bin/python3", "/opt/venv/bin/airflow", "scheduler")}, False),
        (GAP + 10, {"ppid": INIT}, False),  # the container's own
        (GAP + 10, {"ppid": 1}, False),
        (GAP + 10, {"cgroup": "a" * 64}, False),  # of another container, by a shim that they share
        (GAP + 10, {"init": "a" * 64}, False),  # the engine's pids are other processes here
        (GAP + 10, {"container": {"tags": {"DAGSTOP_SPARE": "1"}}}, False),
        (GAP + 10, {"container": {"id": "k" * 64}, "cgroup": "k" * 64, "init": "k" * 64}, False),
    ],
)
def test_what_an_exec_runs_that_began_while_no_listener_ran_is_named(
    proc: FakeProc, start: int, more: dict[str, Any], named: bool
) -> None:
    since, busy = more.pop("since", moment(GAP)), replace(BUSY, **more.pop("container", {}))
    cgroup, init = (more.pop(name, "b" * 64) for name in ("cgroup", "init"))
    proc.add(SHIM, argv=("/usr/bin/containerd-shim-runc-v2",), start=10, uid=0)
    proc.add(INIT, ppid=SHIM, argv=("sleep", "1"), start=GAP + 5)
    proc.add(EXEC, start=start, **{"ppid": SHIM, "argv": ("sleep", "2"), **more})
    for pid in (BASH, SHIM, INIT, EXEC):
        lives_in(proc, "0::/system.slice/docker.service\n", pid)
    lives_in(proc, f"0::/system.slice/docker-{init}.scope\n", INIT)
    lives_in(proc, f"0::/system.slice/docker-{cgroup}.scope\n", EXEC)
    watch = watch_of(proc)
    watch.look()
    watch.gaps.restore([Gap(since, moment(UNTIL), WHY)])
    found = watch.gaps.execs(moment(BEGAN), [busy], {"k" * 64}, watch.processes)
    assert [(one.name, process.pid) for one, process, _ in found] == ([("busy", EXEC)] if named else [])
    assert all(verdict.decision is Decision.SPARE and WHY in verdict.reason for *_, verdict in found)


@pytest.fixture
def busy(proc: FakeProc) -> FakeProc:
    """A container in which something runs; its shim's children are its init and what is executed in it."""
    proc.add(SHIM, argv=("/usr/bin/containerd-shim-runc-v2",), start=10, uid=0)
    proc.add(INIT, ppid=SHIM, argv=("sleep", "1"), start=GAP + 5)
    lives_in(proc, f"0::/system.slice/docker-{BUSY.id}.scope\n", INIT)
    return proc


def execs(proc: FakeProc, watch: Watch) -> list[int]:
    """What is named of the busy container, by pid."""
    watch.gaps.restore([Gap(moment(GAP), moment(UNTIL), WHY)])
    in_order = dict(sorted(watch.processes.items()))
    found = watch.gaps.execs(moment(BEGAN), [BUSY], (), in_order)
    return [process.pid for _, process, _ in found]


def test_one_in_a_container_that_is_not_in_doubt_hides_no_other(busy: FakeProc, watch: Watch) -> None:
    """A stranger, another run's, what asks to be spared, what is older, and only then what may be the run's."""
    inside: dict[str, Any] = {"ppid": SHIM, "argv": ("sleep", "2")}
    busy.add(EXEC, argv=("sleep", "2"), start=GAP + 10)
    busy.add(EXEC + 1, **inside, start=GAP + 10, environ=tags(run="other"))
    busy.add(EXEC + 2, **inside, start=GAP + 10, environ={"DAGSTOP_SPARE": "1"})
    busy.add(EXEC + 3, **inside, start=GAP - 10)
    busy.add(EXEC + 4, **inside, start=GAP + 10)
    lives_in(busy, f"0::/system.slice/docker-{BUSY.id}.scope\n", *range(EXEC, EXEC + 5))
    watch.look()
    assert execs(busy, watch) == [EXEC + 4]


def test_the_listener_itself_is_not_named_where_it_runs_by_an_exec(busy: FakeProc, watch: Watch) -> None:
    busy.end(LISTENER)
    busy.add(LISTENER, ppid=SHIM, argv=("python", "dagstop", "listen"), start=GAP + 10)
    lives_in(busy, f"0::/system.slice/docker-{BUSY.id}.scope\n", LISTENER)
    watch.look()
    assert execs(busy, watch) == []


def test_a_container_that_began_since_the_last_look_is_known_with_the_next(
    busy: FakeProc, watch: Watch
) -> None:
    busy.end(INIT)
    busy.add(EXEC, ppid=SHIM, argv=("sleep", "2"), start=GAP + 10)
    lives_in(busy, f"0::/system.slice/docker-{BUSY.id}.scope\n", EXEC)
    watch.look()
    busy.add(INIT, ppid=SHIM, argv=("sleep", "1"), start=GAP + 5)
    lives_in(busy, f"0::/system.slice/docker-{BUSY.id}.scope\n", INIT)
    assert execs(busy, watch) == []
    watch.look()
    assert execs(busy, watch) == [EXEC]


CONMON = ("/usr/bin/conmon", "--api-version", "1", "-c", "c0ffee" * 11, "-n", "web", "--exit-dir", "/run")


@pytest.mark.parametrize(
    ("start", "more", "named"),
    [
        (GAP + 10, {}, True),
        (GAP - 10, {}, True),  # no listener ran that was ever heard of
        (UNTIL + 10, {}, False),  # the kernel told by then: it is nobody's
        (UNTIL + 10, {"always": True}, True),
        (BEGAN - 10, {"always": True}, False),
        (GAP + 10, {"known": True}, True),
        (GAP - 10, {"known": True}, False),
        (GAP + 10, {"uid": UID + 1}, False),
        (GAP + 10, {"state": "Z"}, False),
        (GAP + 10, {"environ": tags(run="other")}, False),  # known, as another run's
        (GAP + 10, {"argv": ("conmonitor", "-n", "web")}, False),
    ],
)
def test_a_container_of_podman_that_began_untold_is_named(
    proc: FakeProc, start: int, more: dict[str, Any], named: bool
) -> None:
    always, known = more.pop("always", False), more.pop("known", False)
    proc.add(DAEMON, start=start, **{"argv": CONMON, **more})
    watch = watch_of(proc, events=FakeEvents(proc))
    watch.look()
    gaps = Gaps(proc, LISTENER)
    gaps.restore([Gap(moment(GAP) if known else None, moment(UNTIL), WHY)])
    if always:
        gaps.always = True
    found = gaps.podmans(moment(BEGAN), {UID}, watch.processes)
    assert [(name, process.pid) for name, process, _ in found] == ([("web", DAEMON)] if named else [])
    assert all(verdict.decision is Decision.SPARE for _, _, verdict in found)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("conmon", "--name", "web"), "web"),
        (("conmon", "-c", "c0ffee" * 11), "c0ffeec0ffee"),
        (("conmon", "--cid", "c0ffee"), "c0ffee"),
        (("conmon",), None),
        ((), None),  # a thread of the kernel's
    ],
)
def test_by_its_name_or_its_id(proc: FakeProc, argv: tuple[str, ...], name: str | None) -> None:
    proc.add(DAEMON, argv=argv, start=GAP)
    watch = watch_of(proc)
    watch.look()
    found = watch.gaps.podmans(moment(BEGAN), {UID}, watch.processes)  # the kernel tells nothing
    assert [one for one, _, _ in found] == ([name] if name else [])


def test_of_several_processes_of_a_task_one_that_shares_its_service_is_enough(proc: FakeProc) -> None:
    proc.add(BASH + 1, argv=("bash",), environ=tags(), start=BEGAN)
    proc.add(DAEMON, argv=("sleep",), start=GAP + 10)
    lives_in(proc, SHARED, BASH + 1)
    lives_in(proc, SERVICE, BASH, DAEMON)
    watch = watch_of(proc)
    watch.look()
    watch.gaps.restore([Gap(moment(GAP), moment(UNTIL), WHY)])
    watch.gaps.note_tasks(watch.labelled())
    own = [watch.processes[pid].identity for pid in (BASH + 1, BASH)]
    assert [one.pid for one, _ in watch.gaps.doubtful(own, watch.processes)] == [DAEMON]
    assert watch.gaps.doubtful(own[:1], watch.processes) == []
    since = Identity(BASH + 2, UNTIL)  # it has begun since: where it is was not asked
    assert [one.pid for one, _ in watch.gaps.doubtful([since, *own], watch.processes)] == [DAEMON]
