"""What a deleted, skipped or removed row orders: the tries that it was, and no later one of the same name."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from dagstop.evidence.match import judge
from dagstop.model import Decision, Label, Process, StopOrder, Target
from dagstop.report.findings import is_superseded
from tests.support.fake_proc import UUID, at, order, process, row, site
from tests.support.tries import AFTER, BEFORE, OTHER_UUID, RUNNER, TITLE, label

GONE = row(released_at=at(0.001))
ANEW = row(job_id=9, started_at=at(20))  # a run of the same name, made after the order
UUID_GONE = replace(GONE, job_id=None, ti_id=UUID)
UUID_ANEW = replace(ANEW, job_id=None, ti_id=OTHER_UUID)


def deleted(*present: Target, targets: tuple[Target, ...] = (GONE,), what: str = "deleted") -> StopOrder:
    return order(state_after=what, targets=targets, present=present)


@pytest.mark.parametrize(
    ("name", "of", "seen", "started", "killed"),
    [
        ("its try", deleted(), process(), BEFORE, True),
        ("what its try forks late", deleted(), process(label(job_id=7)), AFTER, True),
        ("of a task that did not run then", deleted(), process(label(task_id="u")), BEFORE, True),
        ("of such a task, begun later", deleted(), process(label(task_id="u")), AFTER, False),
        ("its try, the run created again", deleted(ANEW), process(label(job_id=7)), BEFORE, True),
        ("the run created again", deleted(ANEW), process(label(job_id=9)), AFTER, False),
        ("created again, its row not read yet", deleted(), process(label(job_id=9)), AFTER, False),
        ("created again, its row not read yet, of a first try too", deleted(), process(label(try_number=1)), AFTER, False),
        ("the same, no row deleted of its task", deleted(targets=()), process(label(try_number=1)), AFTER, False),
        ("created again, which ended since", deleted(replace(ANEW, state="success")), process(label(try_number=1)),
         AFTER, False),
        ("1.10: its row stays", deleted(row(state="failed"), targets=(row(),)), process(label(job_id=7)), AFTER, True),
        ("1.10: a message that comes late", deleted(row(state="failed"), targets=(row(),)),
         process(label(job_id=9)), AFTER, False),
        ("created again, without a number", deleted(ANEW), process(label()), AFTER, False),
        ("created again and failed by itself", deleted(replace(ANEW, state="failed")), process(label(job_id=9)),
         AFTER, False),
        ("3.x", deleted(targets=(UUID_GONE,)), process(Label(ti_id=UUID), **RUNNER), BEFORE, True),
        ("3.x, created again", deleted(UUID_ANEW, targets=(UUID_GONE,)), process(Label(ti_id=OTHER_UUID), **RUNNER),
         AFTER, False),
        ("skipped", deleted(row(state="skipped"), targets=(row(),), what="skipped"), process(), BEFORE, True),
        ("skipped, cleared, failed by itself",
         deleted(replace(ANEW, state="failed"), targets=(row(),), what="skipped"), process(label(job_id=9)),
         AFTER, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_who_dies(name: str, of: StopOrder, seen: Process, started: datetime, killed: bool) -> None:
    verdict = judge(of, seen, started, site())
    assert verdict.decision is (Decision.KILL if killed else Decision.SPARE), (name, verdict.reason)
    assert not killed or verdict.reason == "of the stopped run"


def test_an_old_runner_may_write_nothing_into_the_row_made_anew() -> None:
    runner = process(TITLE, **RUNNER)
    assert judge(deleted(ANEW), runner, BEFORE, site()).at_once
    assert not judge(deleted(), runner, BEFORE, site()).at_once  # on_kill has its time


def test_what_is_deleted_is_not_superseded_by_that() -> None:
    assert not is_superseded(deleted())
    assert is_superseded(deleted(what="failed"))


def test_it_is_called_what_it_was() -> None:
    assert deleted().cause == "DAG run deleted"
    assert order(kind="task", task_id="t", state_after="skipped").cause == "task instance marked skipped"
