"""The old try of a cleared task dies by SIGKILL where it would write into the new try's row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagstop.evidence.match import judge
from dagstop.model import Decision, Label, Process, StopOrder
from tests.support.fake_proc import UUID, at, order, process, row, site
from tests.support.tries import BEFORE, CLEARED, OTHER_UUID, RERUN, RUNNER, THREE, TITLE, label

CLEARED_AND_RUNS = order(targets=(CLEARED,), present=(RERUN,))


@pytest.mark.parametrize(
    ("of", "seen", "at_once"),
    [
        (CLEARED_AND_RUNS, process(TITLE, **RUNNER), True),
        (order(targets=(CLEARED,), present=(row(state=None),)), process(TITLE, **RUNNER), True),
        (replace(CLEARED_AND_RUNS, kind="task", task_id="t", self_reported=True), process(TITLE, **RUNNER), True),
        # of one of several map indexes, of which one runs again
        (order(targets=(replace(CLEARED, map_index=0), replace(CLEARED, map_index=1)),
               present=(replace(RERUN, map_index=0), row(map_index=1, state="failed"))),
         process(label(), **RUNNER), True),
        (CLEARED_AND_RUNS, process(TITLE), False),  # what the runner started may clean up
        (order(), process(TITLE, **RUNNER), False),
        (order(present=(row(),)), process(TITLE, **RUNNER), False),  # the row is its own yet
        (order(targets=(CLEARED,), present=(row(state="success"),)), process(TITLE, **RUNNER), False),
        (order(targets=(replace(THREE, released_at=at(10)),), present=(replace(RERUN, ti_id=OTHER_UUID),)),
         process(Label(ti_id=UUID), **RUNNER), False),
    ],
)  # fmt: skip
def test_who_may_write_nothing_more_dies_at_once(of: StopOrder, seen: Process, at_once: bool) -> None:
    verdict = judge(of, seen, BEFORE, site())
    assert (verdict.decision, verdict.at_once) == (Decision.KILL, at_once)
