"""Who dies under which order: every rule of `judge`, one row each."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagstop.airflow_names import conflict
from dagstop.evidence.index import Index
from dagstop.evidence.match import ELSEWHERE, _age, _label_of, _rows, _same_try, judge
from dagstop.model import Decision, Identity, Label, Process, Role, StopOrder, Whose
from tests.support.fake_proc import DATE, HOME, KEY, LISTENER, UID, UUID, at, order, process, row, site
from tests.support.tries import AFTER, BEFORE, CLEARED, OTHER_UUID, RERUN, RUNNER, THREE, TITLE, label

KILL, SETTLE, SPARE, FOREIGN = Decision.KILL, Decision.SETTLE, Decision.SPARE, Decision.FOREIGN


def task_order(**more: Any) -> StopOrder:
    return order(kind="task", task_id="t", map_index=-1, **more)


MAPPED_3 = row(map_index=0, job_id=None, ti_id=UUID)
MAPPED = tuple(row(map_index=n, job_id=70 + n, state="failed") for n in range(3))

# name, order, label, start, decision
NAMES_THE_ORDER: list[tuple[str, StopOrder, Label, datetime, Decision]] = [
    ("the run", order(), label(), BEFORE, KILL),
    ("another dag", order(), label(dag_id="e"), BEFORE, FOREIGN),
    ("another run", order(), label(run_id="s"), BEFORE, FOREIGN),
    ("another run of the same date", order(), label(run_id="s", logical_date=DATE), BEFORE, FOREIGN),
    ("the run, whatever the date", order(), label(logical_date=DATE + timedelta(1)), BEFORE, KILL),
    ("1.10: the date", order(), label(run_id=None, logical_date=DATE), BEFORE, KILL),
    ("1.10: another date", order(), label(run_id=None, logical_date=DATE + timedelta(1)), BEFORE, FOREIGN),
    ("3.x: an order without a date", order(logical_date=None), label(), BEFORE, KILL),
    ("an order without a run_id", order(run_id=None), label(), BEFORE, FOREIGN),
    ("an order without a run_id, of the same date", order(run_id=None), label(logical_date=DATE), BEFORE, KILL),
    ("neither has a date", order(logical_date=None), label(run_id=None), BEFORE, FOREIGN),
    ("no run at all", order(), label(run_id=None), BEFORE, FOREIGN),
    ("no dag", order(), label(dag_id=None), BEFORE, FOREIGN),
    ("a date as run_id", order(run_id=DATE.isoformat(), logical_date=None),
     label(run_id=None, logical_date=DATE), BEFORE, KILL),
    ("any task of the run", order(), label(task_id="u"), BEFORE, KILL),
    ("of the run, no task", order(), label(task_id=None), BEFORE, KILL),
    ("the task", task_order(), label(), BEFORE, KILL),
    ("another task", task_order(), label(task_id="u"), BEFORE, FOREIGN),
    ("an unknown task", task_order(), label(task_id=None), BEFORE, FOREIGN),
    ("the map index", order(kind="task", task_id="t", map_index=1, targets=MAPPED[1:2], present=MAPPED[1:2]),
     label(map_index=1), BEFORE, KILL),
    ("another map index", order(kind="task", task_id="t", map_index=1, targets=MAPPED[1:2]),
     label(map_index=2), BEFORE, FOREIGN),
    ("an unknown map index", order(kind="task", task_id="t", map_index=1, targets=MAPPED[1:2]),
     label(), BEFORE, SPARE),
    ("an unknown map index of what never ran", order(kind="task", task_id="t", map_index=1,
     targets=(row(map_index=1, job_id=None),)), label(), BEFORE, SPARE),
    ("a job of no map index that is known", order(kind="task", task_id="t", map_index=1,
     targets=MAPPED[1:2], present=()), label(job_id=99), BEFORE, SPARE),
    ("the map index by its job", order(kind="task", task_id="t", map_index=1, targets=MAPPED[1:2],
     present=()),
     label(job_id=71), BEFORE, KILL),
    ("the map index by the job of one of several rows", order(kind="task", task_id="t", map_index=1,
     targets=MAPPED[:2], present=()), label(job_id=71), BEFORE, KILL),
    ("3.x: the map index by its uuid", order(kind="task", task_id="t", map_index=0, targets=(MAPPED_3,),
     present=(MAPPED_3,)), label(ti_id=UUID), BEFORE, KILL),
    ("3.x: the uuid of another map index, or of an earlier try", order(kind="task", task_id="t", map_index=0,
     targets=(MAPPED_3,), present=(MAPPED_3,)), label(ti_id=OTHER_UUID), BEFORE, SPARE),
    ("explain: all map indexes of a task", order(kind="task", task_id="t"), label(map_index=2), BEFORE, KILL),
    ("3.x: the uuid", order(targets=(THREE,), present=()), Label(ti_id=UUID), BEFORE, KILL),
    ("3.x: another uuid", order(targets=(THREE,), present=()), Label(ti_id=OTHER_UUID), BEFORE, FOREIGN),
    ("3.x: the uuid, another dag", order(targets=(THREE,), present=()), label(dag_id="e", ti_id=UUID), BEFORE,
     FOREIGN),
    ("3.x: an older uuid of the run", order(targets=(THREE,), present=()), label(ti_id=OTHER_UUID), BEFORE,
     KILL),
]  # fmt: skip

TRIES: list[tuple[str, StopOrder, Label, datetime, Decision]] = [
    ("the same job", order(), label(job_id=7), BEFORE, KILL),
    ("what the old try starts after the order", order(), label(job_id=7), AFTER, KILL),
    ("no job ids: what its very try starts", order(targets=(row(job_id=None),), present=(row(job_id=None),)),
     label(try_number=1), AFTER, KILL),
    ("an older job", order(), label(job_id=5), BEFORE, KILL),
    ("a queued message's start, held at failed",
     order(db_now=at(60), targets=(row(state="queued", job_id=None, try_number=0, pid=None),),
           present=(row(state="failed", job_id=9, started_at=at(29)),)), label(job_id=9), AFTER, KILL),
    ("a queued retry's start, held at failed",
     order(db_now=at(60), targets=(row(state="queued", job_id=5),),
           present=(row(state="failed", job_id=9, started_at=at(29)),)), label(job_id=9), AFTER, KILL),
    ("cleared: the old job", order(targets=(CLEARED,), present=(RERUN,)), label(job_id=7), BEFORE, KILL),
    ("cleared: the new job", order(targets=(CLEARED,), present=(RERUN,)), label(job_id=9), AFTER, SPARE),
    ("cleared: the old try", order(targets=(CLEARED,), present=(RERUN,)), label(try_number=1), BEFORE, KILL),
    ("cleared: the new try", order(targets=(CLEARED,), present=(RERUN,)), label(try_number=2), AFTER, SPARE),
    ("cleared: no try, old", order(targets=(CLEARED,), present=(RERUN,)), label(), BEFORE, KILL),
    ("cleared: no try, new", order(targets=(CLEARED,), present=(RERUN,)), label(), AFTER, SPARE),
    ("cleared, not begun: the old job", order(targets=(CLEARED,), present=(row(state=None),)),
     label(job_id=7), BEFORE, KILL),
    ("cleared, begun after the rows were read", order(targets=(CLEARED,), present=(row(state=None),)),
     label(job_id=9), AFTER, SPARE),
    ("cleared, rows unread: the old job", order(targets=(CLEARED,), present=()), label(job_id=7), BEFORE,
     KILL),
    ("cleared, rows unread: the new job", order(targets=(CLEARED,), present=()), label(job_id=9), AFTER,
     SPARE),
    ("cleared, rows unread: the new try", order(targets=(CLEARED,), present=()), label(try_number=2), AFTER,
     SPARE),
    ("cleared, rows unread: no try, new", order(targets=(CLEARED,), present=()), label(), AFTER, SPARE),
    ("cleared, ended again: the new job",
     order(targets=(CLEARED,), present=(replace(RERUN, state="success"),)), label(job_id=9), AFTER, SPARE),
    ("cleared and failed again: the new job",
     order(targets=(CLEARED,), present=(replace(RERUN, state="failed"),)), label(job_id=9), AFTER, SPARE),
    ("not cleared, rows unread: a later job", order(present=()), label(job_id=9), AFTER, SPARE),
    ("not cleared, rows unread lately: a later job", order(present=(), db_now=at(60)), label(job_id=9), AFTER,
     SPARE),
    ("not cleared, rows unread: no try", order(present=()), label(), AFTER, KILL),
    ("not cleared, begun after the rows were read", order(), label(job_id=9), AFTER, SPARE),
    ("not cleared, its row never began: what begins now",
     order(targets=(row(state="queued", started_at=None),), present=(row(state="failed", started_at=None),)),
     label(), AFTER, KILL),
    ("run deleted and created again: the new job", order(present=(RERUN,)), label(job_id=9), AFTER, SPARE),
    ("run deleted and created again: the same try number",
     order(present=(replace(RERUN, try_number=1),)), label(try_number=1), AFTER, SPARE),
    ("run deleted and created again: ended", order(db_now=at(60), present=(replace(RERUN, state="success"),)),
     label(job_id=9), AFTER, SPARE),
    ("not stopped, ended long ago: what it left behind",
     order(targets=(), present=(row(state="success", started_at=at(-9000)),)), label(job_id=7), BEFORE, KILL),
    ("not stopped, its row has another start: its very job",
     order(targets=(row(state="success"),), db_now=at(60), present=(row(state="success", started_at=at(20)),)),
     label(job_id=7), AFTER, SETTLE),
    ("not stopped: what the left-behind starts now",
     order(targets=(), present=(row(state="success", started_at=at(-9000)),)), label(job_id=7), AFTER, KILL),
    ("not stopped, cleared: running", order(targets=(), present=(RERUN,)), label(job_id=9), AFTER, SPARE),
    ("not stopped, cleared: ended already",
     order(targets=(), present=(replace(RERUN, state="success"),)), label(job_id=9), AFTER, SPARE),
    ("not stopped, rows unread: begun after the order", order(targets=(), present=()), label(), AFTER, SPARE),
    ("was a success, cleared and failed: the new job",
     order(targets=(row(state="success"),), db_now=at(60), present=(replace(RERUN, state="failed"),)),
     label(job_id=9), AFTER, SPARE),
    ("was a success, cleared and failed: what the old job starts now",
     order(targets=(row(state="success"),), db_now=at(60), present=(replace(RERUN, state="failed"),)),
     label(job_id=7), AFTER, SETTLE),
    ("3.x cleared: the old uuid", order(targets=(replace(THREE, released_at=at(10)),),
     present=(replace(RERUN, job_id=None, ti_id=OTHER_UUID),)), label(ti_id=UUID), BEFORE, KILL),
    ("3.x cleared: the new uuid", order(targets=(replace(THREE, released_at=at(10)),),
     present=(replace(RERUN, job_id=None, ti_id=OTHER_UUID),)), label(ti_id=OTHER_UUID), AFTER, SPARE),
    ("3.x: another uuid of the same try number, which runs", order(db_now=at(60), targets=(THREE,),
     present=(row(job_id=None, ti_id=OTHER_UUID, started_at=at(20)),)), label(ti_id=OTHER_UUID), AFTER, SPARE),
    ("mapped: any index of the run", order(targets=MAPPED, present=MAPPED), label(), BEFORE, KILL),
    ("mapped, one cleared: which index is unknown",
     order(targets=(*MAPPED[:2], replace(MAPPED[2], released_at=at(10))),
           present=(*MAPPED[:2], replace(MAPPED[2], state="running", job_id=99))), label(), AFTER, SPARE),
    ("mapped, one cleared and one that never began: which index is unknown",
     order(targets=(row(map_index=0, state="queued", job_id=None), replace(MAPPED[2], released_at=at(10))),
           present=(row(map_index=0, state="failed", job_id=None),
                    replace(MAPPED[2], state="running", job_id=99))), label(), AFTER, SPARE),
    ("mapped, one cleared: a job of none of them",
     order(targets=(*MAPPED[:2], replace(MAPPED[2], released_at=at(10))),
           present=(*MAPPED[:2], replace(MAPPED[2], state=None))), label(job_id=99), AFTER, SPARE),
    ("mapped, one cleared: another index",
     order(targets=(*MAPPED[:2], replace(MAPPED[2], released_at=at(10))),
           present=(*MAPPED[:2], replace(MAPPED[2], state="running", job_id=99))), label(map_index=1),
           BEFORE, KILL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("order", "label", "start", "decision"),
    [case[1:] for case in NAMES_THE_ORDER + TRIES],
    ids=[case[0] for case in NAMES_THE_ORDER + TRIES],
)
def test_order_and_label(order: StopOrder, label: Label, start: datetime, decision: Decision) -> None:
    verdict = judge(order, process(label), start, site())
    assert verdict.decision is decision, verdict.reason


def test_what_has_no_label_is_nobodys() -> None:
    one = process()
    one.label = None
    assert judge(order(), one, BEFORE, site()).decision is FOREIGN


DONE = row(state="success", job_id=7, try_number=1)

# setting finished_tasks = spare: order, label, what becomes of it
FINISHED_TASKS: list[tuple[str, StopOrder, Label, Decision]] = [
    ("succeeded before the run failed", order(targets=(), present=(DONE,)), label(), SPARE),
    ("succeeded in the same moment", order(targets=(DONE,)), label(), SPARE),
    ("its very job", order(targets=(), present=(DONE,)), label(job_id=7), SPARE),
    ("left by an earlier try", order(targets=(), present=(DONE,)), label(job_id=6), KILL),
    ("3.x: left by an earlier try", order(targets=(), present=(replace(DONE, job_id=None, ti_id=UUID),)),
     label(ti_id=OTHER_UUID), KILL),
    ("failed by itself", order(targets=(), present=(row(state="failed"),)), label(), KILL),
    ("ran when the run failed", order(), label(), KILL),
    ("succeeded, but cascade is all", order(targets=(DONE,), present=(row(state="failed"),)), label(), SPARE),
    ("one map index of two ran", order(targets=(row(map_index=0),),
     present=(row(map_index=0, state="failed"), replace(DONE, map_index=1))), label(), KILL),
    ("that map index had succeeded", order(targets=(row(map_index=0),),
     present=(row(map_index=0, state="failed"), replace(DONE, map_index=1))), label(map_index=1), SPARE),
    ("a task that nobody knows", order(targets=(), present=()), label(), KILL),
    ("an order about the task itself", task_order(targets=(DONE,)), label(), KILL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("order", "label", "decision"),
    [case[1:] for case in FINISHED_TASKS],
    ids=[case[0] for case in FINISHED_TASKS],
)
def test_what_a_task_that_succeeded_left_lives_only_where_the_setting_says_so(
    order: StopOrder, label: Label, decision: Decision
) -> None:
    verdict = judge(replace(order, finished_spared=True), process(label), BEFORE, site())
    assert verdict.decision is decision, verdict.reason
    if decision is SPARE:
        assert verdict.whose is Whose.FINISHED and "finished_tasks" in verdict.reason
    assert judge(order, process(label), BEFORE, site()).decision is KILL


SELF: dict[str, Any] = {"kind": "task", "task_id": "t", "map_index": -1, "self_reported": True}
ENDED = (row(state="failed"),)

# name, order, process, decision, words of the reason
STANDING: list[tuple[str, StopOrder, Process, Decision, str]] = [
    ("a runner known by its job", order(), process(TITLE, **RUNNER), KILL, "stopped run"),
    ("a runner known by its pid", order(), process(replace(TITLE, job_id=None), **{**RUNNER, "line": {500}}),
     KILL,
     "stopped run"),
    ("a runner of a job that nobody knows", order(), process(replace(TITLE, job_id=6), **RUNNER), SPARE,
     "title"),
    ("a runner known by its pid in a row without a job", order(targets=(row(job_id=None),), present=()),
     process(TITLE, **{**RUNNER, "line": {500}}), KILL, "stopped run"),
    ("a recorded job of another task", order(targets=(row("u", job_id=7),), present=()),
     process(TITLE, **RUNNER), SPARE, "title"),
    ("a recorded pid of another task", order(targets=(row("u", job_id=7),), present=()),
     process(replace(TITLE, job_id=None), **{**RUNNER, "line": {500}}), SPARE, "title"),
    ("a recorded pid of another job", order(), process(replace(TITLE, job_id=6), **{**RUNNER, "line": {500}}),
     SPARE, "title"),
    ("a recorded pid of 0, which is above what another namespace started",
     order(targets=(row(pid=0, job_id=None),), present=()),
     process(replace(TITLE, job_id=None), **{**RUNNER, "ppid": 0}), SPARE, "title"),
    ("a 3.x runner by its uuid", order(targets=(THREE,)), process(Label(ti_id=UUID), **RUNNER), KILL, "run"),
    ("a silent child, one Airflow", order(), process(replace(TITLE, job_id=None)), KILL, "run"),
    ("a silent child, two Airflows", order(), process(replace(TITLE, job_id=None)), SPARE,
     "which of the Airflows"),
    ("a silent child of the recorded pid and job, two Airflows", order(),
     process(TITLE, line=frozenset({500})), KILL, "run"),
    ("another AIRFLOW_HOME", order(), process(label(airflow_home="/srv/b")), SPARE, "AIRFLOW_HOME is /srv/b"),
    ("another database", order(), process(label(database="db.example:5432/b")), SPARE, "metadata database"),
    ("another kind of database", order(), process(label(database="sqlite:")), SPARE, "metadata database"),
    ("our database", order(), process(label(database=KEY)), KILL, "run"),
    ("another user's", order(), process(trusted=False), SPARE, f"uid {UID}"),
    ("a supervisor", order(), process(TITLE, role=Role.SUPERVISOR), SPARE, "supervisor"),
    ("a service", order(), process(role=Role.SERVICE), SPARE, "service"),
    ("a test by hand", order(), process(role=Role.TEST), SPARE, "test"),
    ("contradicted", order(), process(contrary="it runs under 'sshd'"), SPARE, "sshd"),
    ("the listener", order(), process(identity=Identity(LISTENER, 2)), SPARE, "listener"),
    ("pid 1", order(), process(identity=Identity(1, 1)), SPARE, "pid 1"),
    ("self-reported: the runner", order(**SELF), process(TITLE, **RUNNER), SETTLE, "task"),
    ("self-reported: in the runner's session", order(**SELF), process(with_runner=True), SETTLE, "task"),
    ("self-reported: what the operator started", order(**SELF), process(), KILL, "task"),
    ("failed by somebody: the runner", order(**{**SELF, "self_reported": False}), process(TITLE, **RUNNER),
     KILL, ""),
    ("a run failed by its own last task: the runner", order(targets=ENDED), process(TITLE, **RUNNER), SETTLE,
     ""),
    ("a run failed by its own last task: the rest", order(targets=ENDED), process(), KILL, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("order", "process", "decision", "words", "two"),
    [(*case[1:], "two Airflows" in case[0]) for case in STANDING],
    ids=[case[0] for case in STANDING],
)
def test_who_a_process_is(
    order: StopOrder, process: Process, decision: Decision, words: str, two: bool
) -> None:
    foreign = frozenset({"/srv/b"}) if two else frozenset()
    verdict = judge(order, process, BEFORE, site(foreign_homes=foreign))
    assert verdict.decision is decision, verdict.reason
    assert words in verdict.reason
    assert verdict.evidence == process.evidence


def test_a_callback_started_late_by_a_run_that_failed_by_itself_settles() -> None:
    verdict = judge(order(targets=ENDED), process(label(job_id=7)), AFTER, site())
    assert verdict.decision is SETTLE


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Wholly random orders and processes have nothing to do with each other."""
    return st.sampled_from([usual] * (len(others) + 2) + list(others))


names = mostly("d", "e")
runs = mostly("r", "s", None, DATE.isoformat())
dates = mostly(DATE, None, DATE + timedelta(days=1))
tasks = mostly("t", "u")
numbers = st.none() | st.integers(1, 3)
moments = mostly(BEFORE, at(-0.01), at(0.5), AFTER)
uuids = mostly(None, UUID, OTHER_UUID)
indexes = mostly(-1, 0, 1)
labels = st.builds(
    Label, mostly("d", "e", None), runs, dates, mostly("t", "u", None), mostly(None, -1, 0), numbers, numbers,
    uuids, mostly(HOME, None, "/srv/b"), mostly(KEY, None, "x:1/y"),
)  # fmt: skip
rows = st.builds(
    row, tasks, st.sampled_from(["running", "failed", "success", None]), map_index=indexes,
    try_number=numbers, job_id=numbers, ti_id=uuids, pid=st.sampled_from([None, 1, LISTENER, 600]),
    started_at=st.none() | moments, released_at=st.none() | moments,
)  # fmt: skip
orders = st.builds(
    order, kind=st.sampled_from(["run", "task"]), dag_id=names, run_id=runs, logical_date=dates,
    task_id=tasks,
    map_index=st.none() | indexes, self_reported=st.booleans(),
    targets=st.lists(rows, max_size=3).map(tuple), present=st.lists(rows, max_size=3).map(tuple),
)  # fmt: skip
processes = st.builds(
    process, labels,
    identity=st.builds(Identity, mostly(600, 0, 1, 2, LISTENER, 89), st.just(100)),
    role=mostly(Role.OTHER, *Role), trusted=mostly(True, False), contrary=mostly(None, "because"),
    with_runner=st.booleans(), line=st.sets(st.sampled_from([600, 599])).map(frozenset),
)  # fmt: skip
ours = site(untouchable=frozenset({0, 1, 2, LISTENER, 89}))


@settings(max_examples=1500)
@given(orders, processes, moments)
def test_never_the_wrong_one(order: StopOrder, process: Process, start: datetime) -> None:
    verdict = judge(order, process, start, ours)
    if verdict.decision not in {KILL, SETTLE}:
        return
    assert process.pid not in ours.untouchable
    assert process.role in {Role.RUNNER, Role.OTHER}
    assert process.trusted and process.contrary is None
    label = process.label
    assert label is not None
    assert label.airflow_home in {None, HOME} and label.database in {None, KEY}
    assert conflict(label, order.label()) is None


@given(
    start=st.sampled_from([at(0.5), AFTER]),
    written=st.booleans(),
    job=st.booleans(),
    released=st.booleans(),
    state=st.sampled_from(["running", "queued", None, "up_for_retry", "deferred"]),
    known=st.sampled_from(["job_id", "try_number", "ti_id", "nothing"]),
    kind=st.sampled_from(["run", "task"]),
    role=st.sampled_from([Role.RUNNER, Role.OTHER]),
)
def test_a_later_try_lives_while_its_row_is_unfinished(
    start: datetime, written: bool, job: bool, released: bool, state: str | None, known: str, kind: str,
    role: Role,
) -> None:  # fmt: skip
    old = row(ti_id=OTHER_UUID, released_at=at(0.1) if released else None, job_id=7 if job else None)
    new = replace(old, try_number=2, job_id=9 if job else None, ti_id=UUID, state=state)
    new = replace(new, started_at=start if written else None)
    mine = label() if known == "nothing" else label(**{known: getattr(new, known)})
    order_ = order(kind=kind, task_id="t" if kind == "task" else None, targets=(old,), present=(new,))
    assert judge(order_, process(mine, role=role, with_runner=True), start, site()).decision is SPARE


@given(orders, st.lists(processes, max_size=8))
def test_the_index_hides_nothing(order: StopOrder, found: list[Process]) -> None:
    picked = {id(p) for p in Index(found, lambda p: p.label).of(order)}
    assert len(picked) == len(list(Index(found, lambda p: p.label).of(order)))
    for one in found:
        if judge(order, one, BEFORE, ours).decision is not FOREIGN:
            assert id(one) in picked


ELSEWHERES = label(airflow_home="/srv/other", database="elsewhere:5432/airflow")


@pytest.mark.parametrize(
    ("tied", "more", "others", "whose"),
    [
        (label(airflow_home="/srv/other"), {}, (), Whose.RUN),  # perhaps the listener was told a wrong home
        (label(airflow_home="/srv/other"), {}, ("/srv/other",), Whose.ANOTHER),
        (label(airflow_home="/srv/other", database=KEY), {}, ("/srv/other",), Whose.RUN),
        (label(database="elsewhere:5432/airflow"), {}, (), Whose.RUN),  # perhaps through a pooler
        (ELSEWHERES, {}, (), Whose.ANOTHER),
        (ELSEWHERES, {"line": frozenset({500})}, (), Whose.RUN),  # our row names its runner
        (label(airflow_home="/srv/other", ti_id=UUID), {}, ("/srv/other",), Whose.RUN),
        (label(), {"contrary": ELSEWHERE}, (), Whose.RUN),
        (label(database="elsewhere:5432/airflow"), {"contrary": ELSEWHERE}, (), Whose.ANOTHER),
        (label(), {"contrary": "it runs under 'celeryd', pid 9"}, (), Whose.RUN),
        (label(), {"role": Role.SERVICE}, (), Whose.AIRFLOW),
        (label(), {"environ": {"DAGSTOP_SPARE": "1"}}, (), Whose.RUN),
        (label(), {"trusted": False}, (), Whose.RUN),
    ],
)
def test_whose_a_spared_process_is(tied: Label, more: Any, others: tuple[str, ...], whose: Whose) -> None:
    here = site(other_airflows=frozenset(others))
    stopped = order(targets=(row(ti_id=UUID),))
    verdict = judge(stopped, process(tied, **more), BEFORE, here)
    assert (verdict.decision, verdict.whose) == (SPARE, whose)


def test_another_database_proves_nothing_to_a_listener_that_knows_of_none() -> None:
    verdict = judge(order(), process(ELSEWHERES), BEFORE, site(databases=frozenset()))
    assert (verdict.decision, verdict.whose) == (SPARE, Whose.RUN)


def test_a_later_try_is_not_left_alive() -> None:
    cleared = order(targets=(CLEARED,), present=(RERUN,))
    assert judge(cleared, process(label(job_id=9)), AFTER, site()).whose is Whose.LATER_TRY
    unknown = order(targets=(), present=())
    assert judge(unknown, process(label()), AFTER, site()).whose is Whose.RUN


def test_only_its_environment_may_be_unread() -> None:
    environment, words = (
        process(unread={"environ": "no"}),
        process(unread={"environ": "no", "cmdline": "why"}),
    )
    assert judge(order(), environment, BEFORE, site()).decision is Decision.KILL
    spared = judge(order(), words, BEFORE, site())
    assert (spared.decision, spared.reason) == (Decision.SPARE, "why")


def test_what_says_nothing_and_may_not_be_asked_is_spared() -> None:
    """Its label has no AIRFLOW_HOME; nobody knows what its environment would say."""
    silent = process(replace(TITLE, job_id=None), unread={"environ": "no"})
    spared = judge(order(), silent, BEFORE, site())
    assert (spared.decision, spared.reason) == (Decision.SPARE, "no")
    recorded = replace(silent, line=frozenset({500}))
    assert judge(order(), recorded, BEFORE, site()).decision is Decision.KILL


def test_where_an_airflow_cannot_be_read_what_says_nothing_may_be_its() -> None:
    here = site(unread="/proc/5/environ cannot be read")
    silent = process(replace(TITLE, job_id=None))
    spared = judge(order(), silent, BEFORE, here)
    assert spared.decision is SPARE and spared.reason.endswith("/proc/5/environ cannot be read")
    assert judge(order(), process(), BEFORE, here).decision is KILL


def test_who_it_runs_as_is_said_as_far_as_it_is_known() -> None:
    known, unknown = process(trusted=False, uid=1), process(trusted=False, uid=-1)
    assert judge(order(), known, BEFORE, site()).reason.startswith("it runs as uid 1,")
    assert "a user that /proc/600/status does not show" in judge(order(), unknown, BEFORE, site()).reason


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"job_id": 7}, {"job_id": 7}, True),
        ({"ti_id": UUID}, {"ti_id": UUID}, True),
        ({"job_id": 7}, {"job_id": 8}, False),
        ({"ti_id": UUID}, {"ti_id": OTHER_UUID}, False),
        ({}, {}, False),
        ({"job_id": 7}, {}, False),
        ({"ti_id": UUID}, {}, False),
    ],
)
def test_two_are_of_one_try_by_what_is_new_for_each(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert _same_try(Label(task_id="t", **one), Label(task_id="t", **other)) is same
    assert not _same_try(Label(task_id="t", **one), Label(task_id="u", **other))
    assert not _same_try(Label(task_id="t", **one), None)


def test_the_rows_of_a_label_are_those_of_its_uuid_or_else_of_its_names() -> None:
    first, second = row(map_index=0, ti_id=UUID, job_id=8), row(map_index=1, ti_id=OTHER_UUID)
    other = row("u", job_id=8)
    asked = order(targets=(first, second, other), present=(replace(first, state="failed"),))
    both, alone = (first, replace(first, state="failed")), (second, None)
    assert _rows(asked, Label(task_id="t", ti_id=UUID)) == [both]
    assert _rows(asked, Label(task_id="t", ti_id="another")) == [both, alone]
    assert _rows(asked, Label(task_id="t", map_index=1)) == [alone]
    assert _rows(asked, Label(task_id="t", job_id=8)) == [both]
    assert _rows(asked, Label(task_id="t", job_id=9)) == [both, alone]
    assert _rows(asked, Label(task_id="v")) == [(None, None)]


def test_hands_off_says_what_would_have_died_and_nothing_else() -> None:
    asked = order(hands_off="observe only")
    verdict = judge(asked, process(), BEFORE, site())
    assert (verdict.decision, verdict.reason) == (
        SPARE,
        "observe only: it would die, of the stopped run",
    )
    assert judge(asked, process(role=Role.SERVICE), BEFORE, site()).reason == (
        "it is a service, which is never killed"
    )
    assert judge(asked, process(label(run_id="s")), BEFORE, site()).decision is FOREIGN


def test_of_several_map_indexes_it_may_be_the_one_that_failed_by_itself() -> None:
    ran, failed = row(map_index=0), row(map_index=1, state="failed")
    for rows, decision in (((ran, failed), SETTLE), ((failed, ran), SETTLE), ((ran, ran), KILL)):
        asked = order(targets=rows, present=())
        assert judge(asked, process(label(), **RUNNER), BEFORE, site()).decision is decision


# what a process and a row know of their tries; which of the two is older, if it began before or after the order
AGES: list[tuple[str, dict[str, Any], dict[str, Any], str | None, str | None]] = [
    ("the uuid", {"ti_id": UUID, "job_id": 9}, {"ti_id": UUID, "job_id": 7}, "same", "same"),
    ("another uuid, which has no order", {"ti_id": UUID, "job_id": 7}, {"ti_id": OTHER_UUID, "job_id": 7},
     "older", "later"),
    ("only the process has a uuid", {"ti_id": UUID, "job_id": 7}, {"job_id": 7}, "same", "same"),
    ("only the row has a uuid", {"job_id": 7}, {"ti_id": UUID, "job_id": 7}, "same", "same"),
    ("an earlier job", {"job_id": 6, "try_number": 2}, {"job_id": 7, "try_number": 1}, "older", "older"),
    ("a later job", {"job_id": 8, "try_number": 1}, {"job_id": 7, "try_number": 1}, "later", "later"),
    ("no job in the row", {"job_id": 8, "try_number": 1}, {"try_number": 1}, "same", "same"),
    ("no job in the process", {"try_number": 1}, {"job_id": 8, "try_number": 2}, "older", "older"),
    ("a later try", {"try_number": 3}, {"try_number": 2}, "later", "later"),
    ("no key that both know", {"job_id": 7}, {"try_number": 1}, None, None),
    ("nothing", {}, {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mine", "theirs", "before", "after"), [case[1:] for case in AGES], ids=[case[0] for case in AGES]
)
def test_the_strongest_key_that_both_know_says_which_try_is_older(
    mine: dict[str, Any], theirs: dict[str, Any], before: str | None, after: str | None
) -> None:
    there = row(**{"ti_id": None, "job_id": None, "try_number": None, **theirs})
    assert _age(Label(**mine), there, False) == before
    assert _age(Label(**mine), there, True) == after


@given(numbers, numbers, uuids, st.booleans())
def test_a_row_is_of_its_own_try_and_of_no_other(
    job: int | None, number: int | None, uuid: str | None, late: bool
) -> None:
    mine = row(job_id=job, try_number=number, ti_id=uuid)
    known = job is not None or number is not None or uuid is not None
    assert _age(_label_of(mine), mine, late) == ("same" if known else None)
    strongest = "ti_id" if uuid is not None else "job_id" if job is not None else "try_number"
    another: dict[str, Any] = {"ti_id": "another", "job_id": 99, "try_number": 99}
    other = {strongest: another[strongest]}
    if known:
        assert _age(_label_of(mine), replace(mine, **other), late) in {"older", "later"}
