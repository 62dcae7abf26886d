"""Which processes of a run were seen to end, and how long that is remembered."""

from __future__ import annotations

from typing import Any

import pytest

from dagstop.evidence import departed
from dagstop.evidence.departed import KEPT, Departed
from dagstop.model import Identity, Label, Process
from tests.support.fake_proc import HOME, order, process, row, site


def of(task: str, run: str = "r", **more: Any) -> Process:
    return process(Label(dag_id="d", run_id=run, task_id=task, airflow_home=HOME), **more)


def tasks(known: Departed, **more: Any) -> list[str | None]:
    return [label.task_id for label in known.of(order(**more), site())]


def test_only_what_was_the_runs_own_is_named() -> None:
    known = Departed()
    known.add(of("a"))
    known.add(of("b", run="s"))
    known.add(of("c", trusted=False))
    known.add(of("d", contrary="because"))
    known.add(process(Label(dag_id="d", run_id="r", task_id="e", airflow_home="/srv/b")))
    assert tasks(known) == ["a"]


def test_a_process_of_no_task_says_nothing_when_it_ends() -> None:
    known, stranger = Departed(), process()
    stranger.label = None
    known.add(stranger)
    known.add(of("a"))
    assert tasks(known) == ["a"]


def test_what_ended_in_a_container_is_of_the_host_name_that_airflow_has() -> None:
    known = Departed()
    inside = Identity(400, 1)
    known.add(of("a", place=inside, trusted=False), "worker")
    known.add(of("b", place=inside), "another")
    known.add(of("c", place=inside))
    assert tasks(known) == ["a"]
    assert tasks(known, targets=(), present=(row(hostname="another"),)) == ["b"]
    assert tasks(known, targets=(), present=()) == []


def test_the_latest_are_known_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [1000.0]
    monkeypatch.setattr(departed, "MOST", 2)
    monkeypatch.setattr("dagstop.evidence.departed.time.monotonic", lambda: moment[0])
    known = Departed()
    for task in ("a", "b", "a", "c"):
        known.add(of(task))
    assert tasks(known) == ["a", "c"]
    moment[0] += KEPT
    known.add(of("d"))
    assert tasks(known) == ["c", "d"]
    moment[0] += 1
    assert tasks(known) == ["d"]
