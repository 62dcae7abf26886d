"""Which runner a fork that lost its parent was forked from."""

from __future__ import annotations

import pytest

from dagstop.evidence import forks
from dagstop.evidence.forks import Forks
from dagstop.model import Identity, Label, Process
from tests.support.fake_proc import FakeProc, process

TITLE = Label(dag_id="d", run_id="r", task_id="t")


def one(pid: int, start: int, title: Label | None = TITLE) -> Process:
    return process(identity=Identity(pid, start), title=title)


@pytest.fixture
def known(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> Forks:
    """Processes of one hundred have one memory layout; those of nine hundred show none."""
    monkeypatch.setattr(proc, "layout", lambda pid: None if pid >= 900 else (pid // 100,))
    return Forks(proc)


def test_one_title_in_one_layout_is_one_runners(known: Forks) -> None:
    runner = one(500, 100)
    known.note(runner)
    known.note(one(501, 100))  # itself a fork
    assert known.runner_of(one(502, 100)) is runner
    assert known.runner_of(one(502, 99)) is None, "it is older"
    assert known.runner_of(runner) is None
    assert known.runner_of(one(602, 200)) is None
    assert known.runner_of(one(502, 200, Label(dag_id="d", run_id="r", task_id="u"))) is None


def test_what_has_no_title_or_shows_no_layout_has_no_runner(known: Forks) -> None:
    known.note(one(500, 100, None))
    known.note(one(900, 100))
    assert known.runner_of(one(501, 200, None)) is None
    assert known.runner_of(one(901, 200)) is None


def test_the_latest_runners_are_known(known: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "MOST", 2)
    runners = [one(pid, 100) for pid in (500, 600, 700)]
    for runner in runners:
        known.note(runner)
    assert [known.runner_of(one(r.pid + 1, 200)) for r in runners] == [None, *runners[1:]]
