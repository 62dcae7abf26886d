"""What is spared whatever the order, and what of a runner outlives a restart of the listener."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dagstop.evidence.runners import checked, doubt, doubts, row_of, runner_of, undoubted
from dagstop.model import Identity, Label, Process, Role
from tests.support.fake_proc import process

SPARE_ME = {"DAGSTOP_SPARE": "1"}
JOB = Label(dag_id="d", run_id="r", task_id="t", job_id=7)


def runner(**more: Any) -> Process:
    facts: dict[str, Any] = {"role": Role.RUNNER, "title": JOB, "identity": Identity(500, 90)}
    return process(JOB, **{**facts, **more})


def read_label(facts: Any) -> Label:
    return JOB if facts == JOB.facts() else Label(task_id="another")


def kept(one: Process | None) -> Process | None:
    return runner_of(row_of(one), read_label)


@pytest.mark.parametrize(
    "one",
    [
        process(),
        process(runner=runner()),
        # a title ties a runner whose environment is unread, and its children
        process(unread={"environ": "no"}),
        process(runner=runner(unread={"environ": "no"})),
    ],
)
def test_nothing_speaks_against_it(one: Process) -> None:
    assert undoubted(one)


@pytest.mark.parametrize(
    "doubted",
    [
        {"contrary": "it runs under 'sshd'"},
        {"environ": SPARE_ME},
        {"unread": {"cmdline": "no"}},
        {"unread": {"cmdline": "no", "environ": "no"}},
    ],
)
def test_what_speaks_against_a_runner_speaks_against_what_it_started(doubted: dict[str, Any]) -> None:
    assert not undoubted(process(**doubted))
    assert not undoubted(process(runner=runner(**doubted)))
    assert undoubted(process(runner=runner()))


@pytest.mark.parametrize("doubted", [{"trusted": False}, {"place": Identity(400, 50)}])
def test_another_user_or_a_container_is_in_doubt(doubted: dict[str, Any]) -> None:
    assert not undoubted(process(**doubted))


def test_a_runner_is_kept_with_what_speaks_against_it() -> None:
    doubted = runner(
        trusted=False, contrary="why", environ=SPARE_ME, uid=3, line=frozenset({500, 499}),
        vouchers=frozenset({3, 4}), inner=frozenset({31}), unread={"cmdline": "no", "environ": "no"},
    )  # fmt: skip
    again = kept(doubted)
    assert again is not None
    assert (again.identity, again.label, again.title) == (doubted.identity, JOB, JOB)
    assert (again.role, again.trusted, again.contrary, again.uid) == (Role.RUNNER, False, "why", 3)
    assert (again.line, again.vouchers, again.inner) == (doubted.line, doubted.vouchers, doubted.inner)
    assert again.unread == {"cmdline": "no"}  # others stand in for its environment
    assert not undoubted(again) and again.kin_spared
    sound = kept(runner())
    assert sound is not None and undoubted(sound) and not sound.kin_spared
    assert kept(None) is None and kept(replace(runner(), label=None)) is None


def test_so_many_runners_above_each_other_are_kept() -> None:
    """A task may start `airflow tasks run`; a circle in a file must not be followed for ever."""
    chain: Process | None = None
    for number in range(12):
        chain = runner(identity=Identity(500 + number, 90), runner=chain)
    pids = []
    again = kept(chain)
    while again is not None:
        pids.append(again.pid)
        again = again.runner
    assert pids == [511, 510, 509, 508, 507, 506, 505, 504]
    saved, depth = row_of(chain), 0
    while saved is not None:
        saved, depth = saved[-1], depth + 1
    assert depth == len(pids)  # the file, too


def test_a_row_deeper_than_those_is_not_followed() -> None:
    row: Any = None
    for number in range(20):
        row = [number + 1, 1, JOB.facts(), True, [], doubts(runner()), {}, row]
    found, depth = runner_of(row, read_label), 0
    while found is not None:
        found, depth = found.runner, depth + 1
    assert depth == 8


def test_what_an_earlier_release_kept_has_no_doubts() -> None:
    early = runner_of([500, 90, JOB.facts(), 1, [499]], read_label)
    assert early is not None and early.trusted and early.contrary is None and early.runner is None
    assert early.line == {499} and early.uid == -1  # nobody's, as far as is known
    facts = {name: value for name, value in doubts(runner()).items() if name not in ("vouchers", "inner")}
    assert checked(facts)["vouchers"] == checked(facts)["inner"] == frozenset()


@pytest.mark.parametrize("wrong", [{"contrary": 3}, {"uid": "3"}, {"uid": True}, {"uid": None}])
def test_doubts_of_another_shape_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="another shape"):
        checked({**doubts(runner()), **wrong})


def test_what_lived_in_a_container_is_found_there_again_or_spared() -> None:
    again = process()
    doubt(again, doubts(process(place=Identity(400, 50))))
    assert again.contrary is not None and not undoubted(again)
    named = process()
    doubt(named, doubts(process(place=Identity(400, 50), contrary="why")))
    assert named.contrary == "why"
