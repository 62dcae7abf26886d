"""Two Airflows with one AIRFLOW_HOME and the same ids: whose a container with tags is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dagstop.evidence.containers import judge_container, neighbours
from dagstop.evidence.twins import Neighbours
from dagstop.host.containers import Airflow, Container
from dagstop.model import Decision, StopOrder, Verdict, Whose
from tests.support.fake_proc import DATE, HOME, UUID, at, order, process, row, site

IDS: dict[str, Any] = {
    "AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_DAG_RUN_ID": "r", "AIRFLOW_CTX_TASK_ID": "t",
    "AIRFLOW_CTX_TRY_NUMBER": "1", "AIRFLOW_CTX_MAP_INDEX": "-1",
    "AIRFLOW_CTX_EXECUTION_DATE": DATE.isoformat(), "DAGSTOP_AIRFLOW_HOME": HOME,
}  # fmt: skip
BY_JOB: dict[str, Any] = {
    "DAGSTOP_HOSTNAME": "worker",
    "DAGSTOP_JOB_ID": "7",
    "DAGSTOP_PID": "500",
    "DAGSTOP_POLICY": "2",
}
BY_UUID: dict[str, str] = {"DAGSTOP_TI_ID": UUID, "DAGSTOP_POLICY": "2"}
OTHER_UUID = UUID.replace("0", "f")
THREE: dict[str, Any] = {"job_id": None, "ti_id": UUID, "pid": 500, "hostname": "worker"}
KILL, SPARE = Decision.KILL, Decision.SPARE


def container(number: int = 0, airflow: Airflow | None = None, **tags: str) -> Container:
    return Container(f"{number:064}", f"c{number}", "image", 0, at(-10), False, "no", tags, airflow=airflow)


def verdict(asked: StopOrder, seen: Container, *beside: Container, **more: Any) -> Verdict:
    others = neighbours([seen, *beside])
    return judge_container(asked, seen, None, at(-10), site(**more), others)


def of_rows(**more: Any) -> StopOrder:
    return order(targets=(row(**more),), present=(row(state="failed", **more),))


RETRIED: dict[str, Any] = {"try_number": 2, "job_id": 9, "pid": 600}

# what the tags say beside the ids, the row, decision, whose, words
CASES: list[tuple[dict[str, Any], StopOrder, Decision, Whose | None, str]] = [
    (BY_JOB, of_rows(), KILL, None, "run"),
    (BY_JOB, of_rows(pid=None, hostname=None), KILL, None, "run"),
    ({**BY_JOB, "DAGSTOP_JOB_ID": "8"}, of_rows(), SPARE, Whose.RUN, "no try"),
    ({**BY_JOB, "DAGSTOP_JOB_ID": "8", "DAGSTOP_HOSTNAME": "b"}, of_rows(), SPARE, Whose.ANOTHER, "no try"),
    ({**BY_JOB, "DAGSTOP_JOB_ID": "8", "DAGSTOP_HOSTNAME": "b"}, of_rows(hostname=None), SPARE, Whose.RUN, "no try"),
    ({**BY_JOB, "DAGSTOP_JOB_ID": "8", "DAGSTOP_HOSTNAME": "b"}, order(state_after="deleted"), SPARE, Whose.RUN,
     "no try"),
    ({**BY_JOB, "DAGSTOP_HOSTNAME": "b"}, of_rows(), SPARE, Whose.ANOTHER, "its host is b"),
    ({**BY_JOB, "DAGSTOP_PID": "501"}, of_rows(), SPARE, Whose.ANOTHER, "its pid is 501"),
    (BY_JOB, of_rows(job_id=None), SPARE, Whose.RUN, "no try"),
    ({**BY_JOB, "DAGSTOP_JOB_ID": "8", "DAGSTOP_HOSTNAME": "b"}, of_rows(job_id=None), SPARE, Whose.RUN, "no try"),
    (BY_JOB, order(targets=(), present=()), SPARE, Whose.RUN, "no try"),
    (BY_JOB, of_rows(task="u"), SPARE, Whose.RUN, "no try"),
    (BY_JOB, of_rows(**RETRIED), KILL, None, "run"),
    ({**BY_JOB, "DAGSTOP_HOSTNAME": "b"}, of_rows(**RETRIED), SPARE, Whose.RUN, "no try"),
    (BY_UUID, of_rows(**THREE), KILL, None, "run"),
    ({**BY_UUID, "DAGSTOP_TI_ID": OTHER_UUID}, of_rows(**THREE), SPARE, Whose.ANOTHER, f"uuid {OTHER_UUID}"),
    (BY_UUID, of_rows(), SPARE, Whose.RUN, "no try"),
    ({**BY_UUID, "DAGSTOP_TI_ID": OTHER_UUID}, of_rows(**{**THREE, "try_number": 2}), SPARE, Whose.RUN, ""),
]  # fmt: skip


@pytest.mark.parametrize(("tags", "asked", "decision", "whose", "words"), CASES)
def test_what_the_very_try_has_decides(
    tags: dict[str, Any], asked: StopOrder, decision: Decision, whose: Whose | None, words: str
) -> None:
    found = verdict(asked, container(**IDS, **tags))
    assert found.decision is decision, found.reason
    assert words in found.reason
    assert whose is None or found.whose is whose


def test_an_earlier_try_is_in_doubt_where_two_airflows_have_the_home() -> None:
    """Of a try that was retried the database keeps no job: the host's name alone may be a twin's too."""
    seen = container(**IDS, **BY_JOB)
    twins = [container(n, Airflow(HOME, project, None)) for n, project in enumerate("ab", 1)]
    assert verdict(of_rows(**RETRIED), seen).decision is KILL
    assert verdict(of_rows(**RETRIED), seen, *twins).decision is SPARE
    assert verdict(of_rows(), seen, *twins).decision is KILL


def test_a_later_try_lives_by_its_own_tags() -> None:
    again = row(state="running", try_number=2, job_id=9, pid=600, started_at=at(20))
    asked = order(targets=(row(released_at=at(10)),), present=(again,))
    later = {**BY_JOB, "DAGSTOP_JOB_ID": "9", "DAGSTOP_PID": "600"}
    seen = container(**{**IDS, "AIRFLOW_CTX_TRY_NUMBER": "2"}, **later)
    found = judge_container(asked, seen, None, at(30), site(), neighbours([seen]))
    assert (found.decision, found.whose) == (SPARE, Whose.LATER_TRY)
    assert verdict(asked, container(**IDS, **BY_JOB)).decision is KILL


AIRFLOWS: list[tuple[str, list[Airflow], bool, Decision]] = [
    ("nothing is known of any", [], False, KILL),
    ("ours on the host", [], True, KILL),
    ("one in containers", [Airflow(HOME, "a", "postgres:5432/airflow")] * 3, False, KILL),
    ("one, some of its containers name no database",
     [Airflow(HOME, "a", "postgres:5432/airflow"), Airflow(HOME, "a", None)], False, KILL),
    ("two projects, the same URL", [Airflow(HOME, "a", "db:5432/x"), Airflow(HOME, "b", "db:5432/x")], False,
     SPARE),
    ("two databases, no project", [Airflow(HOME, None, "a:5432/x"), Airflow(HOME, None, "b:5432/x")], False,
     SPARE),
    ("one on the host, one in containers", [Airflow(HOME, "b", None)], True, SPARE),
    ("another home", [Airflow("/srv/b", "b", None), Airflow(HOME, "a", None)], False, KILL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("airflows", "here", "decision"), [a[1:] for a in AIRFLOWS], ids=[a[0] for a in AIRFLOWS]
)
def test_ids_and_a_home_are_believed_where_one_airflow_has_it(
    airflows: list[Airflow], here: bool, decision: Decision
) -> None:
    beside = [container(n, airflow) for n, airflow in enumerate(airflows, 1)]
    found = verdict(of_rows(), container(**IDS), *beside, lives_here=here)
    assert found.decision is decision, found.reason
    assert (decision is SPARE) == ("earlier cluster policy" in found.reason)
    assert verdict(of_rows(), container(**IDS, **BY_JOB), *beside, lives_here=here).decision is KILL


def test_ids_and_a_home_are_not_believed_against_another_claim() -> None:
    twin = container(1, **IDS)
    assert "same try" in verdict(of_rows(), container(**IDS), twin).reason
    strong = container(1, **IDS, **{**BY_JOB, "DAGSTOP_HOSTNAME": "b"})
    assert "same try" in verdict(of_rows(), container(**IDS), strong).reason
    another_try = container(1, **{**IDS, "AIRFLOW_CTX_TRY_NUMBER": "2"})
    assert verdict(of_rows(), container(**IDS), another_try).decision is KILL


def test_ids_and_a_home_are_not_believed_against_another_date() -> None:
    """A manual run_id may be anything; two databases that have it seldom have its date."""
    late = {**IDS, "AIRFLOW_CTX_EXECUTION_DATE": (DATE + timedelta(seconds=1)).isoformat()}
    found = verdict(of_rows(), container(**late))
    assert found.decision is SPARE and "logical date" in found.reason and "`dagstop policy`" in found.reason


def test_hands_off_does_not_say_that_anothers_would_die() -> None:
    asked = order(hands_off="observe only")
    assert "would die" in verdict(asked, container(**IDS, **BY_JOB)).reason
    found = verdict(asked, container(**IDS, **{**BY_JOB, "DAGSTOP_HOSTNAME": "b"}))
    assert found.decision is SPARE and "would die" not in found.reason


def test_a_docker_client_of_the_run_needs_no_tags_but_none_may_contradict() -> None:
    from dagstop.evidence.containers import Client

    by = Client("c0", None, process())
    twin = container(1, Airflow(HOME, "b", None))
    beside = neighbours([twin])
    for tags, decision in (({}, KILL), (IDS, KILL), ({**IDS, **BY_JOB, "DAGSTOP_HOSTNAME": "b"}, SPARE)):
        seen = container(**tags)
        found = judge_container(of_rows(), seen, by, at(-10), site(lives_here=True), beside)
        assert found.decision is decision, (tags, found.reason)


def mapped(**more: Any) -> StopOrder:
    """Two map indexes of a task, each with a job of its own."""
    rows = tuple(row(map_index=n, job_id=70 + n, pid=500 + n, **more) for n in (0, 1))
    return order(targets=rows, present=tuple(replace(one, state="failed") for one in rows))


@pytest.mark.parametrize(
    ("index", "job", "decision"),
    [("0", "70", KILL), ("1", "71", KILL), ("1", "70", SPARE), ("0", "71", SPARE), ("2", "70", SPARE)],
)
def test_the_job_of_another_map_index_is_no_claim(index: str, job: str, decision: Decision) -> None:
    own = {**BY_JOB, "DAGSTOP_JOB_ID": job, "DAGSTOP_PID": f"5{job[1:].zfill(2)}"}
    found = verdict(mapped(), container(**{**IDS, "AIRFLOW_CTX_MAP_INDEX": index}, **own))
    assert found.decision is decision, found.reason


def test_tags_without_a_map_index_may_be_of_any() -> None:
    """Airflow 2.2 and older name none."""
    without = {name: value for name, value in IDS.items() if name != "AIRFLOW_CTX_MAP_INDEX"}
    for job, pid in (("70", "500"), ("71", "501")):
        tags = {**BY_JOB, "DAGSTOP_JOB_ID": job, "DAGSTOP_PID": pid}
        assert verdict(mapped(), container(**without, **tags)).decision is KILL
    assert verdict(mapped(), container(**without, **{**BY_JOB, "DAGSTOP_JOB_ID": "72"})).decision is SPARE


@pytest.mark.parametrize(
    ("number", "tries", "decision"),
    [
        ("1", (2, 3), KILL),
        ("2", (2, 3), SPARE),
        ("2", (1, 3), SPARE),
        ("2", (None, 3), KILL),
        ("2", (None, None), SPARE),
    ],
)
def test_a_try_is_an_earlier_one_if_all_rows_are_of_later_ones(
    number: str, tries: tuple[int | None, ...], decision: Decision
) -> None:
    """Of an earlier one the database has the host alone, and that is believed; not of one that it should have."""
    without = {name: value for name, value in IDS.items() if name != "AIRFLOW_CTX_MAP_INDEX"}
    rows = tuple(row(map_index=n, try_number=one, job_id=90 + n, pid=600 + n) for n, one in enumerate(tries))
    asked = order(targets=rows, present=rows)
    seen = container(**{**without, "AIRFLOW_CTX_TRY_NUMBER": number}, **BY_JOB)
    assert verdict(asked, seen).decision is decision


def test_a_try_without_a_number_is_not_known_to_the_database() -> None:
    """So a job that it does not have may be one that was deleted."""
    without = {name: value for name, value in IDS.items() if name != "AIRFLOW_CTX_TRY_NUMBER"}
    other = {**BY_JOB, "DAGSTOP_JOB_ID": "8", "DAGSTOP_HOSTNAME": "b"}
    for asked in (of_rows(try_number=None), of_rows()):
        found = verdict(asked, container(**without, **other))
        assert (found.decision, found.whose) == (SPARE, Whose.RUN)


def test_a_container_that_names_no_database_is_of_its_own_project() -> None:
    one, other = Airflow(HOME, "a", None), Airflow("/srv/b", "b", "db:5432/x")
    same_home = Airflow(HOME, "b", "db:5432/x")
    assert Neighbours.among([], [one, other]).airflows == {HOME: 1, "/srv/b": 1}
    assert Neighbours.among([], [one, same_home]).airflows == {HOME: 2}
    assert Neighbours.among([], [one, Airflow(HOME, "a", "db:5432/x"), None]).airflows == {HOME: 1}


def without(*names: str, **more: str) -> dict[str, str]:
    """The tags of an earlier policy, some of them lacking."""
    return {**{name: value for name, value in IDS.items() if name not in names}, **more}


def test_another_run_of_that_date_or_another_date_of_no_name_is_no_other_claim() -> None:
    """A run goes by its run_id; one of Airflow 1.10 that shows none by its date."""
    later = (DATE + timedelta(days=1)).isoformat()
    run, date = "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_EXECUTION_DATE"
    assert verdict(of_rows(), container(**IDS), container(1, **without(run, **{run: "s"}))).decision is KILL
    assert (
        verdict(of_rows(), container(**without(run)), container(1, **without(run, **{date: later}))).decision
        is KILL
    )
    assert verdict(of_rows(), container(**without(run)), container(1, **without(run))).decision is SPARE


def test_an_order_without_a_date_is_not_of_another_date() -> None:
    """Airflow 3 has runs without one."""
    rows = (row(),)
    assert verdict(order(targets=rows, logical_date=None), container(**IDS)).decision is KILL


def test_tags_without_a_home_may_be_of_any_airflow_here() -> None:
    silent = container(**without("DAGSTOP_AIRFLOW_HOME"))
    one, other = (
        container(1, Airflow(HOME, "a", "db:5432/x")),
        container(2, Airflow("/srv/b", "b", "db:5432/x")),
    )
    assert verdict(of_rows(), silent, one).decision is KILL
    both = verdict(of_rows(), silent, one, other)
    assert both.decision is SPARE and "two Airflows are here" in both.reason
    same_home = verdict(of_rows(), container(**IDS), one, container(2, Airflow(HOME, "b", "db:5432/x")))
    assert f"more than one Airflow here has the AIRFLOW_HOME {HOME}" in same_home.reason
