"""A runner is judged by its own start, whatever it started later; and what ties a silent one to this Airflow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagstop.evidence.match import judge
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Decision, Identity, Process, Role, Whose
from tests.support.fake_proc import HOME, at, order, process, row, site
from tests.support.tries import AFTER, BEFORE, CLEARED, RERUN, TITLE, label

START = 100 * TICKS_PER_SECOND


def child_of(runner: Process) -> Process:
    """Its own words name the try that was failed."""
    return process(label(job_id=7), identity=Identity(600, START), runner=runner)


@pytest.mark.parametrize(
    ("seconds_before", "decision"),
    [
        (60, Decision.KILL),
        (31, Decision.KILL),
        (29, Decision.SPARE),
        (0, Decision.SPARE),
        (-60, Decision.SPARE),  # it was seen later than what it started: nothing begins before its runner
    ],
)
def test_a_runner_is_judged_by_when_it_began(seconds_before: int, decision: Decision) -> None:
    """The child began 30 seconds after the order; the runner does not say of what try it is."""
    start = START - seconds_before * TICKS_PER_SECOND
    runner = process(
        replace(TITLE, job_id=None, airflow_home=HOME), role=Role.RUNNER, identity=Identity(590, start)
    )
    cleared = order(targets=(CLEARED,), present=(RERUN,))
    assert judge(cleared, replace(child_of(runner), runner=None), AFTER, site()).decision is Decision.KILL
    verdict = judge(cleared, child_of(runner), AFTER, site())
    assert verdict.decision is decision
    if decision is Decision.SPARE:
        assert verdict.whose is Whose.LATER_TRY and verdict.reason.startswith(
            "the runner 590 that started it"
        )


def test_each_runner_above_speaks_for_it_and_no_circle_is_endless() -> None:
    spared = process(role=Role.RUNNER, identity=Identity(580, 1), environ={"DAGSTOP_SPARE": "1"})
    of_another = process(label(run_id="s"), role=Role.RUNNER, identity=Identity(590, 2), runner=spared)
    unlabelled = process(role=Role.RUNNER, identity=Identity(591, 3), runner=of_another)
    unlabelled.label = None
    one = child_of(unlabelled)
    verdict = judge(order(), one, BEFORE, site())
    assert (verdict.decision, "the runner 580" in verdict.reason) == (Decision.SPARE, True)
    spared.environ, of_another.environ = {}, {"DAGSTOP_SPARE": "1"}  # which is its own run's wish
    spared.runner = unlabelled
    assert judge(order(), one, BEFORE, site()).decision is Decision.KILL


def test_an_airflow_without_a_process_here_is_no_rival_of_a_silent_process() -> None:
    """It has containers here, of which one that is silent may be."""
    silent = process(replace(TITLE, job_id=None))
    assert (
        judge(order(), silent, BEFORE, site(homes_elsewhere=frozenset({"/srv/b"}))).decision is Decision.KILL
    )
    assert (
        judge(order(), silent, BEFORE, site(foreign_homes=frozenset({"/srv/b"}))).decision is Decision.SPARE
    )
    stand_in = replace(silent, identity=Identity(-1, 0))
    here = site(homes_elsewhere=frozenset({"/srv/b"}))
    assert judge(order(), stand_in, BEFORE, here).decision is Decision.SPARE
    assert judge(order(), stand_in, at(-30), site()).decision is Decision.KILL


def test_what_names_its_map_index_is_not_spared_with_a_runner_of_its_try_that_names_none() -> None:
    """A runner's title has the job, which the row did not have yet; what it started has the index, too."""
    asked = order(
        kind="task",
        task_id="t",
        map_index=1,
        targets=(row(map_index=1, state="queued", job_id=None),),
        present=(),
    )
    runner = process(replace(TITLE, airflow_home=HOME), role=Role.RUNNER, identity=Identity(590, START))
    assert "which map index" in judge(asked, runner, BEFORE, site()).reason
    one = replace(child_of(runner), label=label(job_id=7, map_index=1))
    assert judge(asked, one, BEFORE, site()).decision is Decision.KILL
