"""The one rule of outcomes: the worst that is true of an order on a host, whatever else happened there."""

from __future__ import annotations

from typing import Any

import pytest

from dagstop.model import Label, Outcome, Target, is_all_clear
from dagstop.report.findings import Findings, missing
from dagstop.report.task_logs import last_line
from dagstop.report.words import ended, left
from tests.support.fake_proc import UUID, at, order, row

DEAD = {"pid": 1, "start": 1, "died_at": "2026-01-01T00:00:00+00:00", "signals": []}
ALIVE = {**DEAD, "pid": 2, "died_at": None, "alive": "still there in state D"}
SPARED = {"pid": 3, "why": "it asks to be spared", "evidence": []}
LATER = {**SPARED, "why": "a later try, which is meant to run", "whose": "a later try's"}
ANOTHER = {**SPARED, "why": "its AIRFLOW_HOME is /srv/other", "whose": "another Airflow's"}

TRUE: list[tuple[Outcome, dict[str, Any]]] = [
    (Outcome.UNKILLABLE, {"processes": [ALIVE]}),
    (Outcome.SPARED, {"spared": [SPARED]}),
    (Outcome.COULD_NOT_LOOK, {"could_not_look": ["the environment of uid 50000"]}),
    (Outcome.NOT_FOUND, {"not_found": ["a"]}),
    (Outcome.STOPPED, {"processes": [DEAD]}),
    (Outcome.SUPERSEDED, {"spared": [LATER]}),
    (Outcome.NOTHING_FOUND, {}),
]


@pytest.mark.parametrize("number", range(len(TRUE)))
def test_the_worst_that_is_true_is_said(number: int) -> None:
    facts: dict[str, Any] = {}
    for _, more in TRUE[number:]:
        for name, value in more.items():
            facts[name] = [*facts.get(name, []), *value]
    assert [outcome for outcome, _ in TRUE] == list(Outcome)
    assert Findings(**facts).outcome(superseded=False) is TRUE[number][0]


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({"containers": [{**DEAD, "id": "c"}]}, Outcome.STOPPED),
        ({"processes": [DEAD], "spared": [LATER]}, Outcome.STOPPED),
        ({"processes": [DEAD], "spared": [ANOTHER]}, Outcome.STOPPED),
        ({"spared": [ANOTHER]}, Outcome.NOTHING_FOUND),
        ({"spared": [ANOTHER], "not_found": ["a"]}, Outcome.NOT_FOUND),
        ({"processes": [DEAD], "problem": "the engine does not answer"}, Outcome.COULD_NOT_LOOK),
        ({"ended_by_itself": ["a"]}, Outcome.NOTHING_FOUND),
    ],
)
def test_what_is_not_the_runs_is_not_left_alive(facts: dict[str, Any], outcome: Outcome) -> None:
    assert Findings(**facts).outcome(superseded=False) is outcome


def test_what_was_cleared_is_superseded() -> None:
    assert Findings().outcome(superseded=True) is Outcome.SUPERSEDED


def test_only_three_outcomes_are_an_all_clear() -> None:
    clear = {"stopped", "superseded", "nothing_found"}
    assert {outcome.value for outcome in Outcome if is_all_clear(outcome.value)} == clear
    assert not is_all_clear(None) and not is_all_clear("of a later release")


@pytest.mark.parametrize(
    ("rows", "told", "seen", "not_found", "alone"),
    [
        ([row()], [], [], ["t"], []),
        ([row()], [Label(task_id="t")], [], [], []),
        ([row()], [], [Label(task_id="t")], [], ["t"]),
        ([row()], [], [Label(task_id="t", job_id=7)], [], ["t"]),
        ([row()], [], [Label(task_id="t", job_id=6)], ["t"], []),  # an earlier try ended
        ([row(job_id=None, ti_id=UUID)], [], [Label(ti_id=UUID)], [], ["t"]),
        ([row(job_id=None, ti_id=UUID)], [Label(task_id="t", ti_id=UUID.replace("0", "f"))], [], ["t"], []),
        ([row(hostname="elsewhere")], [], [], [], []),
        ([row(state="queued")], [], [], [], []),
        ([row(map_index=0), row(map_index=1)], [Label(task_id="t", map_index=1)], [], ["t[0]"], []),
    ],
)
def test_which_tasks_are_missing(
    rows: list[Target], told: list[Label], seen: list[Label], not_found: list[str], alone: list[str]
) -> None:
    stopped = order(targets=tuple(rows))
    assert missing(stopped, told, lambda: seen, {"worker"}) == (not_found, alone)


def test_one_line_says_what_is_left() -> None:
    detail = {"processes": [DEAD, ALIVE], "spared": [SPARED, SPARED, LATER, ANOTHER], "not_found": ["a", "b"]}
    assert left(detail) == (
        "1 not dead: still there in state D; 2 left alive: it asks to be spared; not found: a, b"
    )
    assert left({"spared": [LATER, ANOTHER]}) == "" == left({})
    assert left({"could_not_look": ["x"], "problem": "y"}) == "could not look: x; trouble: y"
    assert ended(detail | {"ended_by_itself": ["c"]}) == "2 processes, ended by itself: c"
    first = {"processes": [DEAD, {**DEAD, "noticed": "ended before it was signalled"}], "containers": [DEAD]}
    assert ended(first) == "2 processes, 1 container, 1 of them ended before it was signalled"
    second = {**first, "processes": first["processes"][1:] * 2}
    assert ended(second) == "2 processes, 1 container, 2 of them ended before they were signalled"


def test_a_tasks_log_is_not_told_of_more_than_is_so() -> None:
    found = Findings(processes=[DEAD], spared=[SPARED], last_death_at=at(1))
    line = last_line(order(), found, found.outcome(superseded=False), "h")
    assert line is not None and line.startswith("stopped, except for what was spared by dagstop: ")
    assert last_line(order(), Findings(spared=[SPARED]), Outcome.SPARED, "h") is None
