"""What of a host concerns an order, and what becomes of it: processes, containers, and what runs in those."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dagstop.evidence import verdicts
from dagstop.evidence.containers import Client
from dagstop.evidence.index import Index
from dagstop.evidence.noted import Untied
from dagstop.evidence.place import Place
from dagstop.evidence.verdicts import (
    Containers,
    inside,
    of_containers,
    of_processes,
    start_of_exec,
    start_of_init,
)
from dagstop.host.containers import Airflow, Container
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Decision, Identity, Label, StopOrder, Verdict
from tests.support.fake_proc import HOME, UID, FakeProc, at, order, process, row, site

TAGS = {"AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_DAG_RUN_ID": "r", "AIRFLOW_CTX_TASK_ID": "t",
        "DAGSTOP_AIRFLOW_HOME": HOME}  # fmt: skip
ANOTHER_RUN = Label(dag_id="d", run_id="s", task_id="t", airflow_home=HOME)
WHY = "docker client 600 may have created it, and so may others"


def container(number: int = 1, **more: Any) -> Container:
    facts: dict[str, Any] = {
        "id": f"{number}" * 64, "name": f"c{number}", "image": "image", "pid": 700, "created_at": at(-10),
        "paused": False, "restart_policy": "no", "tags": {},
    }  # fmt: skip
    return Container(**(facts | more))


def client(label: Label | None = None, **more: Any) -> Client:
    return Client(None, None, process(label, **more))


def judged(
    containers: Containers, asked: StopOrder | None = None, known: tuple[str, ...] = (), ahead: float = 0.0
) -> Mapping[str, Verdict]:
    """By the container's name; ahead: how far the database's clock is, in seconds."""
    found = of_containers(
        asked or order(), containers, lambda moment: moment + timedelta(seconds=ahead), site(), known
    )
    return {one.runs or one.name: verdict for one, verdict in found}


def test_only_what_lives_and_concerns_the_order_is_named() -> None:
    found = [process(), process(state="X"), process(state="x"), process(ANOTHER_RUN), process(trusted=False)]
    seen = list(of_processes(order(), Index(found, lambda p: p.label), lambda _: at(-30), site()))
    assert [(one, verdict.decision) for one, verdict in seen] == [
        (found[0], Decision.KILL),
        (found[4], Decision.SPARE),
    ]


def test_a_process_is_judged_by_its_own_start() -> None:
    old, new = process(identity=Identity(600, 1)), process(identity=Identity(601, 2))
    asked = order(targets=(), present=())
    starts = {1: at(-30), 2: at(30)}
    seen = of_processes(
        asked, Index([old, new], lambda p: p.label), lambda p: starts[p.identity.start], site()
    )
    assert [verdict.decision for _, verdict in seen] == [Decision.KILL, Decision.SPARE]


def test_a_container_is_found_by_its_tags_and_by_its_client() -> None:
    tagged, started = container(1, tags=TAGS), container(2)
    gone = "9" * 64
    containers = Containers([tagged, started, container(3)], {started.id: client(), gone: client()})
    assert {name: verdict.decision for name, verdict in judged(containers).items()} == {
        "c1": Decision.KILL,
        "c2": Decision.KILL,
    }
    assert containers.label(started, site()) == process().label
    assert containers.label(container(3), site()) is None
    assert containers.clients.keys() == {started.id}


def test_what_the_runs_client_may_have_created_lives_and_is_named() -> None:
    """Also where others may have: any one of the run's is enough."""
    untied = {
        "1" * 64: [Untied(client(ANOTHER_RUN), "another's"), Untied(client(), WHY)],
        "2" * 64: [Untied(client(ANOTHER_RUN), "another's")],
        "3" * 64: [Untied(client(trusted=False), "a stranger's")],
        "9" * 64: [Untied(client(), "of what is gone")],
    }
    found = judged(Containers([container(1), container(2), container(3)], {}, untied=untied))
    assert found.keys() == {"c1"}
    assert (found["c1"].decision, found["c1"].reason, found["c1"].untied) == (Decision.SPARE, WHY, True)
    assert not found["c1"].at_once


PLACE = Place(
    init=Identity(400, 50), container="f" * 64, hostname="f" * 12, home=HOME, named_by="compose=shop"
)


@pytest.mark.parametrize(
    ("place", "hostname", "named"),
    [
        (PLACE, "f" * 12, True),
        (PLACE, "worker", False),  # no task of the run ran in it
        (replace(PLACE, named_by=None), "f" * 12, False),
        (None, "f" * 12, False),  # nobody knows that container
    ],
)
def test_what_a_client_in_a_container_of_ours_may_have_created_is_named(
    place: Place | None, hostname: str, named: bool
) -> None:
    one = container(1)
    untied = {one.id: [Untied(client(place=PLACE.init), WHY)]}
    ours = site(places={PLACE.init: place} if place is not None else {})
    found = of_containers(
        order(targets=(row(hostname=hostname),)),
        Containers([one], {}, untied=untied),
        lambda moment: moment,
        ours,
    )
    assert [(v.decision, v.reason, v.untied) for _, v in found] == (
        [(Decision.SPARE, WHY, True)] if named else []
    )


def test_what_is_anothers_for_certain_is_not_in_doubt() -> None:
    """It is tied to the client of another run, whatever else may have asked for one like it."""
    one = container(1)
    containers = Containers([one], {one.id: client(ANOTHER_RUN)}, untied={one.id: [Untied(client(), WHY)]})
    assert judged(containers) == {}


def test_what_names_the_run_itself_is_not_in_doubt() -> None:
    one = container(1, tags=TAGS)
    found = judged(Containers([one], {}, untied={one.id: [Untied(client(), WHY)]}))
    assert found["c1"].decision is Decision.KILL


def test_what_was_signalled_before_is_stopped_though_its_client_is_forgotten() -> None:
    one = container(1)
    found = judged(Containers([one, container(2)], {}), known=(one.id,))
    assert found == {"c1": Verdict(Decision.KILL, "it was signalled under this order before")}
    kept = judged(Containers([one], {}), order(hands_off="observe only"), known=(one.id,))
    assert kept == {"c1": Verdict(Decision.SPARE, "observe only")}


def test_what_tells_more_was_signalled_before_is_judged_by_that() -> None:
    spared = container(1, tags={**TAGS, "DAGSTOP_SPARE": "1"})
    assert judged(Containers([spared], {}), known=(spared.id,))["c1"].decision is Decision.SPARE


def test_what_an_exec_may_have_started_lives_and_is_named() -> None:
    runs = container(1, name="busy", runs="sleep 5")
    containers = Containers([], {}, execs={"e": (runs, [Untied(client(), WHY)])})
    found = judged(containers)
    assert {name: (one.decision, one.reason) for name, one in found.items()} == {
        "sleep 5": (Decision.SPARE, WHY)
    }
    others = Containers([], {}, execs={"e": (runs, [Untied(client(ANOTHER_RUN), WHY)])})
    assert judged(others) == {}


@pytest.mark.parametrize("ahead", [0.0, 60.0])
def test_when_a_container_came_is_asked_on_the_databases_clock(ahead: float) -> None:
    """With an hour between the clocks everything would have come after the order, or nothing."""
    asked = order(targets=(), present=())
    tagged = container(1, tags=TAGS)
    execs = {"e": (container(2, runs="sleep 5"), [Untied(client(), WHY)])}
    untied = {"3" * 64: [Untied(client(), WHY)]}
    found = judged(Containers([tagged, container(3)], {}, untied=untied, execs=execs), asked, ahead=ahead)
    assert (found["c1"].decision is Decision.KILL) == (ahead == 0.0)
    assert (found.keys() == {"c1", "c3", "sleep 5"}) == (ahead == 0.0)


def test_another_airflow_on_another_engine_is_a_neighbour_too() -> None:
    tagged = container(1, tags={**TAGS, "AIRFLOW_CTX_TRY_NUMBER": "1"})
    twin = container(2, tags=tagged.tags)
    assert judged(Containers([tagged], {}))["c1"].decision is Decision.KILL
    assert judged(Containers([tagged], {}, [twin]))["c1"].decision is Decision.SPARE
    assert judged(Containers([tagged], {}, [tagged]))["c1"].decision is Decision.KILL, "it is the same one"
    airflows = [container(n, airflow=Airflow(HOME, project, None)) for n, project in ((3, "x"), (4, "y"))]
    assert judged(Containers([tagged], {}, airflows))["c1"].decision is Decision.SPARE


INIT = 700


@pytest.fixture
def init(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> Container:
    """A container that has run for 100 seconds, as an engine and /proc show it."""
    for name in ("SLACK", "EARLY"):
        monkeypatch.setattr(verdicts, name, 100.0)  # a busy machine may stop us between two clocks
    start = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 100) * TICKS_PER_SECOND)
    proc.add(INIT, argv=("sleep", "1"), start=start, uid=UID)
    one = container(1, started_at=began(proc, INIT, 5))
    (proc.path / str(INIT) / "cgroup").write_text(f"0::/docker/{one.id}\n")
    return one


def began(proc: FakeProc, pid: int, later: float = 0.0) -> datetime:
    """When a process began by the host's clock, or so many seconds later."""
    stat = proc.stat(pid)
    assert stat is not None
    return datetime.fromtimestamp(time.time() - proc.age(stat.start) + later, timezone.utc)


def test_the_init_of_a_container_is_proven_by_its_control_group_and_its_start(
    proc: FakeProc, init: Container
) -> None:
    stat = proc.stat(INIT)
    assert stat is not None and start_of_init(proc, init) == stat.start
    assert start_of_init(proc, replace(init, pid=0)) is None
    assert start_of_init(proc, replace(init, pid=701)) is None
    assert start_of_init(proc, replace(init, id="2" * 64)) is None
    assert start_of_init(proc, replace(init, started_at=None)) is None
    proc.refused[INIT, "stat"] = errno.ESRCH
    assert start_of_init(proc, init) is None


@pytest.mark.parametrize(
    ("later", "is_it"), [(-150.0, False), (-50.0, True), (5.0, True), (50.0, True), (70.0, False)]
)
def test_an_engine_says_that_a_container_runs_soon_after_its_init_was_forked(
    proc: FakeProc, init: Container, later: float, is_it: bool
) -> None:
    told = replace(init, started_at=began(proc, INIT, later))
    assert (start_of_init(proc, told) is not None) is is_it


@pytest.mark.parametrize(
    ("after", "is_it"), [(-150.0, False), (-50.0, True), (5.0, True), (50.0, True), (70.0, False)]
)
def test_what_an_exec_runs_began_soon_after_it_was_asked_for(
    proc: FakeProc, init: Container, after: float, is_it: bool
) -> None:
    start = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 50) * TICKS_PER_SECOND)
    proc.add(701, ppid=1, argv=("sleep", "5"), start=start)
    (proc.path / "701" / "cgroup").write_text(f"0::/docker/{init.id}\n")
    asked_at = began(proc, 701).timestamp() - after
    assert start_of_exec(proc, init, 701, asked_at) == (start if is_it else None)


def test_what_is_not_in_a_container_that_runs_is_no_execs(proc: FakeProc, init: Container) -> None:
    start = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 50) * TICKS_PER_SECOND)
    proc.add(701, ppid=1, argv=("sleep", "5"), start=start)
    asked_at = began(proc, 701).timestamp()
    assert start_of_exec(proc, init, 701, asked_at) is None
    (proc.path / "701" / "cgroup").write_text(f"0::/docker/{init.id}\n")
    assert start_of_exec(proc, init, 701, asked_at) == start
    assert start_of_exec(proc, init, 0, asked_at) is None
    assert start_of_exec(proc, init, 702, asked_at) is None
    assert start_of_exec(proc, replace(init, started_at=None), 701, asked_at) is None


def test_what_lives_in_a_container_is_what_descends_from_its_init(proc: FakeProc, init: Container) -> None:
    proc.add(701, ppid=INIT, argv=("sleep", "5"))
    proc.add(702, ppid=1, argv=("sleep", "5"))
    assert inside(proc, [init], [INIT, 701, 702]) == {INIT, 701}
    assert inside(proc, [replace(init, id="2" * 64)], [INIT, 701, 702]) == set()
    assert inside(proc, [], [INIT, 701, 702]) == set()
