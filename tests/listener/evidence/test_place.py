"""A process in a container dies only if all of it holds; each piece that is missing spares it, by name. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dagstop.evidence.containers import Client, judge_container
from dagstop.evidence.match import judge
from dagstop.evidence.place import Place, is_of_twin, named_in, pid_recorded, why_not_ours
from dagstop.evidence.twins import Neighbours
from dagstop.host.containers import Container
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Decision, Identity, Label, Process, Role, StopOrder, Whose
from tests.support.fake_proc import HOME, KEY, UID, UUID, at, order, process, row, site

INIT = Identity(400, 50)
ID = "3f2a90c41b7d" + "0" * 52
OTHER_ID = "9b1c55d0e2aa" + "0" * 52
PLACE = Place(
    init=INIT,
    container=ID,
    hostname=ID[:12],
    home=HOME,
    uids=frozenset({UID}),
    databases=frozenset({KEY}),
    named_by="compose=shop",
)
FIXED = replace(PLACE, hostname="worker-1")
LABEL = Label(dag_id="d", run_id="r", task_id="t", airflow_home=HOME, job_id=7)


def inside(label: Label = LABEL, **more: Any) -> Process:
    facts: dict[str, Any] = {"place": INIT, "vouchers": frozenset({UID}), "inner": frozenset({31, 32})}
    return process(label, **{**facts, **more})


def asked(hostname: str = ID[:12], **more: Any) -> StopOrder:
    rows = tuple(row(hostname=hostname, **{"pid": 31, **more}) for _ in range(2))
    return order(targets=rows[:1], present=(replace(rows[1], state="failed"),))


def decide(
    place: Place | None, one: Process | None = None, under: StopOrder | None = None, start: float = -60
) -> Any:
    places = {} if place is None else {INIT: place}
    # the homes of this host are another matter
    here = site(homes=frozenset(), places=places)
    return judge(under or asked(), one or inside(), at(start), here)


def test_all_holds() -> None:
    verdict = decide(PLACE)
    assert verdict.decision is Decision.KILL, verdict


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (None, "no --container names"),
        (replace(PLACE, named_by=None), "no --container names"),
        (replace(PLACE, unread="CAP_SYS_PTRACE is missing"), "cannot be read: CAP_SYS_PTRACE is missing"),
        (replace(PLACE, hostname=None), "shows no host name"),
        (replace(PLACE, home=None), "shows no AIRFLOW_HOME"),
        (replace(PLACE, home="/srv/other"), "its AIRFLOW_HOME is"),
        (replace(PLACE, databases=frozenset({"bank.example:5432/airflow"})), "--same-database"),
        (replace(PLACE, databases=frozenset({"sqlite:"})), "--same-database"),
        (replace(PLACE, uids=frozenset({0})), "runs no Airflow in container 3f2a90c41b7d"),
        (replace(PLACE, kept_by=444), "the dagstop listener in its container"),
        (replace(PLACE, container=OTHER_ID, hostname=OTHER_ID[:12]), "no row of this run has the host name"),
    ],
)
def test_each_piece_that_is_missing_spares(place: Place | None, why: str) -> None:
    verdict = decide(place)
    assert verdict.decision is Decision.SPARE
    assert why in verdict.reason


def test_a_host_name_that_another_container_has_counts_only_as_the_beginning_of_the_id() -> None:
    assert decide(replace(PLACE, shares_name=True)).decision is Decision.KILL
    shared = replace(FIXED, shares_name=True)
    verdict = decide(shared, under=asked("worker-1"))
    assert verdict.decision is Decision.SPARE
    assert "may have, the host name worker-1" in verdict.reason


def test_the_id_of_another_container_is_a_fixed_name() -> None:
    """`hostname:` may be anything, also what looks like an id."""
    stolen = replace(PLACE, container=OTHER_ID)
    verdict = decide(stolen, inside(inner=frozenset({99})))
    assert verdict.decision is Decision.SPARE
    assert "nothing ties the host name" in verdict.reason


def runner(**more: Any) -> Process:
    facts: dict[str, Any] = {"role": Role.RUNNER, "title": LABEL, "identity": Identity(500, 90)}
    return inside(**{**facts, **more})


def test_a_fixed_name_is_tied_by_the_runner() -> None:
    fixed = asked("worker-1")
    assert decide(FIXED, runner(), fixed).decision is Decision.KILL
    child = inside(runner=runner(), identity=Identity(600, 100))
    assert decide(FIXED, child, fixed).decision is Decision.KILL


@pytest.mark.parametrize(
    ("under", "one", "start"),
    [
        (asked("worker-1", pid=30), runner(), -60),  # another pid inside
        (asked("worker-1", job_id=8), runner(), -60),
        (asked("worker-1", started_at=None), runner(), -60),
        (asked("worker-1"), runner(), -60 - 301),  # a runner of another time
        (asked("worker-1"), runner(), -60 + 301),
        (asked("worker-1"), inside(), -60),  # no runner is known
        (asked("worker-1"), runner(inner=frozenset({33})), -60),
    ],
)
def test_a_runner_that_differs_ties_nothing(under: StopOrder, one: Process, start: float) -> None:
    # later or earlier tries are another rule's
    verdict = decide(FIXED, one, under, start)
    assert verdict.decision is Decision.SPARE
    assert "nothing ties the host name worker-1" in verdict.reason


def test_a_fixed_name_is_tied_by_a_uuid_of_the_database() -> None:
    label = replace(LABEL, job_id=None, ti_id=UUID)
    under = asked("worker-1", job_id=None, ti_id=UUID)
    assert decide(FIXED, inside(label), under).decision is Decision.KILL
    elsewhere = asked("worker-2", job_id=None, ti_id=UUID)
    assert decide(FIXED, inside(label), elsewhere).decision is Decision.SPARE


def test_pids_count_as_in_the_container() -> None:
    """Without a home in sight the recorded pid ties it, by the container's own numbers."""
    label = replace(LABEL, airflow_home=None, job_id=None)
    assert decide(PLACE, inside(label)).decision is Decision.KILL
    # that pid on this host is another process
    verdict = decide(PLACE, inside(label, inner=frozenset(), identity=Identity(31, 100)))
    assert verdict.decision is Decision.SPARE
    assert "does not say which Airflow" in verdict.reason


def test_the_first_process_of_a_container_is_untouchable() -> None:
    verdict = decide(PLACE, inside(identity=INIT))
    assert verdict.decision is Decision.SPARE
    assert "first process of its container" in verdict.reason


@pytest.mark.parametrize("role", [Role.SERVICE, Role.SUPERVISOR, Role.TEST])
def test_services_never(role: Role) -> None:
    assert decide(PLACE, inside(role=role)).decision is Decision.SPARE


def test_what_a_runner_in_a_refused_container_started_is_spared_with_it() -> None:
    """Its own container is ours; that of the runner above it is not."""
    elsewhere = Identity(800, 20)
    above = runner(place=elsewhere)
    verdict = decide(PLACE, inside(runner=above, identity=Identity(900, 200)))
    assert verdict.decision is Decision.SPARE
    assert "the runner 500 that started it is spared" in verdict.reason


def test_a_process_of_this_host_is_judged_by_the_homes_of_this_host() -> None:
    """A container of ours with that home opens nothing here."""
    verdict = judge(asked(), process(LABEL), at(-60), site(homes=frozenset({"/srv/x"}), places={INIT: PLACE}))
    assert verdict.decision is Decision.SPARE
    assert f"its AIRFLOW_HOME is {HOME}" in verdict.reason


def test_a_twin_is_known_as_another_airflows_by_the_job_that_ran_in_ours() -> None:
    twin = Identity(700, 60)
    theirs = Place(init=twin, container=OTHER_ID, hostname=OTHER_ID[:12], home=HOME)
    here = site(homes=frozenset(), places={INIT: PLACE, twin: theirs})
    verdict = judge(asked(), inside(place=twin), at(-60), here)
    assert (verdict.decision, verdict.whose) == (Decision.SPARE, Whose.ANOTHER)
    # not where that host is nobody's here: Airflow may have written its own name in another way
    verdict = judge(asked("172.18.0.5"), inside(place=twin), at(-60), here)
    assert (verdict.decision, verdict.whose) == (Decision.SPARE, Whose.RUN)


@pytest.mark.parametrize(
    ("number", "uuid", "map_index", "whose"),
    [
        (1, "ffffffff-bb1a-7ed7-97b1-6932365247ce", -1, Whose.ANOTHER),
        (2, "ffffffff-bb1a-7ed7-97b1-6932365247ce", -1, Whose.RUN),  # another try, which may have been ours
        (1, "ffffffff-bb1a-7ed7-97b1-6932365247ce", 0, Whose.RUN),  # a sibling, perhaps
        (1, UUID, -1, Whose.RUN),  # of our own row, whatever its host is called
        (1, None, -1, Whose.RUN),
    ],
)
def test_a_twin_of_3_is_known_by_its_uuid(
    number: int, uuid: str | None, map_index: int, whose: Whose
) -> None:
    twin = Identity(700, 60)
    theirs = Place(init=twin, container=OTHER_ID, hostname=OTHER_ID[:12], home=HOME)
    here = site(homes=frozenset(), places={INIT: PLACE, twin: theirs})
    label = replace(LABEL, job_id=None, ti_id=uuid, try_number=number)
    under = asked(job_id=None, ti_id=UUID, map_index=map_index)
    verdict = judge(under, inside(label, place=twin), at(-60), here)
    assert (verdict.decision, verdict.whose) == (Decision.SPARE, whose)


def test_a_container_whose_database_is_unknown_is_left_in_doubt() -> None:
    """The row names it: whoever forgot --same-database has to hear of it."""
    label = replace(LABEL, database="pooler.example:6432/airflow")
    verdict = decide(PLACE, inside(label))
    assert (verdict.decision, verdict.whose) == (Decision.SPARE, Whose.RUN)
    assert "--same-database" in verdict.reason


def test_a_home_of_this_machine_says_nothing_of_a_container() -> None:
    """The same path is another folder in there."""
    here = site(homes=frozenset(), places={INIT: PLACE}, other_airflows=frozenset({"/srv/other"}))
    one = inside(replace(LABEL, airflow_home="/srv/other"))
    verdict = judge(asked("worker-2"), one, at(-60), here)
    assert (verdict.decision, verdict.whose) == (Decision.SPARE, Whose.RUN)


def sibling(**more: str) -> Container:
    """What DockerOperator started from a task in the worker, under the cluster policy."""
    tags = {
        "AIRFLOW_CTX_DAG_ID": "d",
        "AIRFLOW_CTX_DAG_RUN_ID": "r",
        "AIRFLOW_CTX_TASK_ID": "t",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "DAGSTOP_AIRFLOW_HOME": HOME,
        "DAGSTOP_POLICY": "2",
        "DAGSTOP_HOSTNAME": ID[:12],
        "DAGSTOP_JOB_ID": "7",
        "DAGSTOP_PID": "31",
        **more,
    }
    return Container("c" * 64, "name", "image", 900, at(-10), False, "no", tags)


@pytest.mark.parametrize(
    ("place", "tags", "decision"),
    [
        (PLACE, {}, Decision.KILL),
        (PLACE, {"DAGSTOP_HOSTNAME": OTHER_ID[:12]}, Decision.SPARE),  # the twin's
        (PLACE, {"DAGSTOP_JOB_ID": "8"}, Decision.SPARE),
        (PLACE, {"DAGSTOP_PID": "30"}, Decision.SPARE),
        (PLACE, {"DAGSTOP_AIRFLOW_HOME": "/srv/b"}, Decision.SPARE),
        (PLACE, {"DAGSTOP_SPARE": "1"}, Decision.SPARE),
        (replace(PLACE, named_by=None), {}, Decision.SPARE),
        (replace(PLACE, databases=frozenset({"bank.example:5432/airflow"})), {}, Decision.SPARE),
        (replace(PLACE, container=OTHER_ID), {}, Decision.SPARE),  # a fixed name that is tied to nothing
        (None, {}, Decision.SPARE),
    ],
)
def test_what_a_task_in_a_container_started_beside_it(
    place: Place | None, tags: dict[str, str], decision: Decision
) -> None:
    here = site(homes=frozenset(), places={} if place is None else {INIT: place})
    assert judge_container(asked(), sibling(**tags), None, at(-10), here).decision is decision


def test_a_container_that_names_a_worker_and_no_home_may_be_of_any_airflow() -> None:
    one = sibling()
    one = replace(one, tags={name: value for name, value in one.tags.items() if "HOME" not in name})
    here = site(homes=frozenset(), homes_elsewhere=frozenset({HOME}), places={INIT: PLACE})
    assert judge_container(asked(), one, None, at(-10), here).decision is Decision.SPARE


def test_a_home_says_which_airflow_of_its_container_it_is_of() -> None:
    """Whatever else ties it: one that shows none has to be in the database."""
    loose = replace(LABEL, job_id=None)
    assert decide(PLACE, inside(loose, inner=frozenset())).decision is Decision.KILL
    silent = replace(loose, airflow_home=None)
    assert decide(PLACE, inside(silent, inner=frozenset())).decision is Decision.SPARE
    assert decide(PLACE, inside(silent)).decision is Decision.KILL
    assert decide(PLACE, inside(replace(silent, job_id=7), inner=frozenset())).decision is Decision.KILL
    by_uuid, three = replace(silent, ti_id=UUID), asked(job_id=None, ti_id=UUID)
    assert decide(PLACE, inside(by_uuid, inner=frozenset()), three).decision is Decision.KILL
    unread = {"environ": "its environment cannot be read"}
    assert decide(PLACE, inside(silent, inner=frozenset(), unread=unread)).reason == unread["environ"]


def test_an_airflow_with_the_home_of_this_machine_is_no_twin_of_a_container_with_another() -> None:
    """An older try, of which the database keeps only that it was on this host."""
    one = sibling(DAGSTOP_JOB_ID="5", AIRFLOW_CTX_TRY_NUMBER="1")
    under = asked(try_number=2)
    here = site(homes=frozenset({"/srv/x"}), places={INIT: PLACE})
    verdict = judge_container(under, one, None, at(-10), here, Neighbours(airflows={"/srv/x": 1}))
    assert verdict.decision is Decision.KILL, verdict.reason


def test_of_several_containers_the_one_of_that_host_name_counts() -> None:
    others = {
        Identity(401, 50): replace(PLACE, init=Identity(401, 50), hostname="other", home="/srv/b"),
        INIT: PLACE,
        Identity(402, 50): replace(PLACE, init=Identity(402, 50), hostname="third"),
    }
    here = site(homes=frozenset(), places=others)
    assert judge_container(asked(), sibling(), None, at(-10), here).decision is Decision.KILL


def test_a_docker_client_in_a_container_ties_nothing() -> None:
    """The names and files that it gives are not this host's."""
    here = site(homes=frozenset(), places={INIT: PLACE})
    container = replace(sibling(), tags={})
    verdict = judge_container(asked(), container, Client("name", None, inside()), at(-10), here)
    assert verdict.decision is Decision.SPARE


def test_what_lives_in_no_container_of_ours_has_no_pid_recorded_there() -> None:
    assert pid_recorded(asked(), inside(), PLACE)
    assert not pid_recorded(asked(), inside(), None)
    assert not pid_recorded(asked(), replace(inside(), label=None), PLACE)
    assert not is_of_twin(asked(), replace(inside(), label=None), {INIT: PLACE}, frozenset({KEY}))


@pytest.mark.parametrize(
    ("seconds", "ties"),
    [(0, True), (-300, True), (300, True), (-301, False), (301, False)],
)
@pytest.mark.parametrize("later", [0, 600])
def test_a_runner_is_known_by_its_own_start_whenever_its_child_began(
    seconds: int, ties: bool, later: int
) -> None:
    """The row has the start of the runner; clocks and a slow start may set them apart by five minutes."""
    child = inside(runner=runner(), identity=Identity(600, 90 + later * TICKS_PER_SECOND))
    verdict = decide(FIXED, child, asked("worker-1"), -60 + seconds + later)
    tied = "nothing ties the host name" not in verdict.reason
    assert tied is ties, verdict.reason


NOT_ITS_ROW: list[dict[str, Any]] = [{"hostname": "worker-2"}, {"task": "u"}, {"job_id": 8}, {"pid": 99}]


@pytest.mark.parametrize("wrong", NOT_ITS_ROW)
def test_only_the_row_of_its_own_task_and_job_on_that_host_has_its_pid(wrong: dict[str, Any]) -> None:
    right = row(hostname="worker-1", pid=31)
    other = row(**{"hostname": "worker-1", "pid": 31, **wrong})
    assert pid_recorded(order(targets=(right,), present=()), inside(), FIXED)
    assert pid_recorded(order(targets=(), present=(right,)), inside(), FIXED)
    assert pid_recorded(order(targets=(other,), present=(right,)), inside(), FIXED)
    assert not pid_recorded(order(targets=(other,), present=(other,)), inside(), FIXED)


@pytest.mark.parametrize("job", [7, None])
def test_a_row_or_a_process_without_a_job_id_goes_by_the_task(job: int | None) -> None:
    """A row of 3.x has none, and a title of 1.10 may show none."""
    loose = replace(LABEL, job_id=job)
    nameless = order(targets=(row(hostname="worker-1", pid=31, job_id=None if job else 7),), present=())
    assert pid_recorded(nameless, inside(loose), FIXED)


def test_a_uuid_ties_among_the_rows_of_a_whole_run() -> None:
    label = replace(LABEL, job_id=None, ti_id=UUID)
    others = (
        row("u", hostname="worker-2", job_id=None, ti_id="f" * 36),
        row("v", hostname="worker-1", job_id=None),
    )
    own = row(hostname="worker-1", job_id=None, ti_id=UUID)
    under = order(targets=(*others, own), present=(replace(own, state="failed"), *others))
    assert decide(FIXED, inside(label), under).decision is Decision.KILL
    # that host is another task's
    elsewhere = replace(own, hostname="worker-2")
    under = order(targets=(*others, elsewhere), present=(elsewhere, *others))
    assert decide(FIXED, inside(label), under).decision is Decision.SPARE


@pytest.mark.parametrize("which", ["targets", "present"])
def test_a_host_name_counts_from_the_row_as_it_was_or_as_it_is(which: str) -> None:
    """A clear empties it in the row; a task that had just been queued had none when its run failed."""
    here, gone = row(hostname=ID[:12], pid=31), row(hostname=None, pid=None, state="failed")
    rows = (
        {"targets": (here,), "present": (gone,)}
        if which == "targets"
        else {"targets": (gone,), "present": (here,)}
    )
    assert named_in(order(**rows), PLACE)
    assert not named_in(order(targets=(gone,), present=(gone,)), PLACE)
    assert not named_in(order(targets=(gone,), present=(gone,)), replace(PLACE, hostname=None))
    assert not named_in(order(**rows), None)


@pytest.mark.parametrize(
    ("container", "hostname", "after_id"),
    [
        (ID, ID[:12], True),
        (ID, ID, True),
        (ID, ID[:11], False),  # Docker gives twelve digits at least
        (ID, OTHER_ID[:12], False),
        (ID, None, False),
        (ID, "", False),
        (None, ID[:12], False),  # whose cgroup shows no id
    ],
)
def test_a_name_is_the_containers_id_only_if_it_begins_it(
    container: str | None, hostname: str | None, after_id: bool
) -> None:
    assert replace(PLACE, container=container, hostname=hostname).named_after_id is after_id


def test_one_of_our_databases_is_enough() -> None:
    """--same-database names others that are the same."""
    ours = frozenset({KEY, "pooler.example:6432/airflow"})
    assert why_not_ours(PLACE, ours) is None
    assert why_not_ours(replace(PLACE, databases=ours), ours) is None
    assert why_not_ours(replace(PLACE, databases=ours | {"bank.example:5432/a"}), ours) is not None
    here = site(homes=frozenset(), places={INIT: PLACE}, databases=ours)
    assert judge(asked(), inside(replace(LABEL, database=KEY)), at(-60), here).decision is Decision.KILL


TWIN = Identity(700, 60)
TWINS_PLACE = Place(init=TWIN, container=OTHER_ID, hostname=OTHER_ID[:12], home=HOME)
THEIRS = "f" * 36


def of_twin(under: StopOrder, one: Process, ours: Place = PLACE) -> bool:
    return is_of_twin(under, one, {INIT: ours, TWIN: TWINS_PLACE}, frozenset({KEY}))


def test_a_twin_is_one_whose_job_ran_in_a_container_of_ours() -> None:
    assert of_twin(asked(), inside(place=TWIN))
    assert not of_twin(asked(), inside(place=None))  # a process of this host
    assert not of_twin(asked(), inside(place=Identity(1, 2)))  # of a container that is not known
    assert not of_twin(asked(), replace(inside(place=TWIN), label=None))
    assert not of_twin(asked(), inside(place=TWIN), replace(PLACE, named_by=None))  # that one is not ours
    assert not of_twin(asked("elsewhere"), inside(place=TWIN))


def test_a_uuid_of_the_database_is_no_twins_whichever_row_has_it() -> None:
    label = replace(LABEL, job_id=None, ti_id=UUID, try_number=1)
    own, other = (
        row(ti_id=UUID, hostname="moved", job_id=None),
        row(ti_id=THEIRS, hostname=ID[:12], job_id=None),
    )
    assert of_twin(order(targets=(other,), present=()), inside(label, place=TWIN))
    assert not of_twin(order(targets=(own,), present=(other,)), inside(label, place=TWIN))


@pytest.mark.parametrize(
    ("label", "there"),
    [
        ({"ti_id": UUID, "try_number": 1}, {"task": "u", "ti_id": THEIRS}),  # another task
        ({"ti_id": UUID, "try_number": 1}, {"ti_id": None}),
        ({"ti_id": UUID, "try_number": None}, {"ti_id": THEIRS, "try_number": None}),
        ({"ti_id": UUID, "try_number": 2}, {"ti_id": THEIRS}),
        ({"ti_id": None, "try_number": 1}, {"ti_id": THEIRS}),
        ({"job_id": 8}, {"job_id": 7}),
        ({"job_id": 7}, {"task": "u", "job_id": 7}),
    ],
)
def test_a_row_of_another_try_or_task_makes_no_twin(label: dict[str, Any], there: dict[str, Any]) -> None:
    mine = replace(LABEL, **{"job_id": None, **label})
    other = row(**{"hostname": ID[:12], "job_id": None, **there})
    assert not of_twin(order(targets=(other,), present=()), inside(mine, place=TWIN))


@pytest.mark.parametrize("job", [7, None])
def test_a_runner_without_a_label_or_a_job_ties_nothing(job: int | None) -> None:
    under = asked("worker-1", job_id=None)
    for above in (replace(runner(), label=None), replace(runner(), label=replace(LABEL, job_id=job))):
        child = inside(runner=above, identity=Identity(600, 100))
        verdict = decide(FIXED, child, under)
        assert verdict.decision is Decision.SPARE and "nothing ties the host name" in verdict.reason
