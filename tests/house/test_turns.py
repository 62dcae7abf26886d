"""Which releases take turns in CI."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.e2e import turns
from tests.testbed import airflows

WEEK = [dt.date(2026, 12, 28) + dt.timedelta(days=n) for n in range(len(turns.PAIRS))]


def test_each_release_has_one_turn_in_a_round() -> None:
    met = [release for day in WEEK for release in turns.turn(day)]
    assert sorted(met) == sorted(release for pair in turns.PAIRS for release in pair)
    assert len(set(met)) == len(met)
    assert len(WEEK) <= 14


def test_each_release_can_be_built_and_is_not_played_every_time_anyway() -> None:
    for pair in turns.PAIRS:
        for release in pair:
            assert release not in airflows.RECIPES
            airflows.recipe(release)


def test_a_day_has_the_same_turn_whenever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN", "AIRFLOW", "MATRIX"):
        monkeypatch.delenv(name, raising=False)
    assert turns.wanted() == turns.turn(turns.DAY)
    assert turns.turn(WEEK[0]) != turns.turn(WEEK[1])
    assert turns.turn(WEEK[0]) == turns.turn(WEEK[0] + dt.timedelta(days=len(turns.PAIRS)))


def test_turn_names_others_and_airflow_chooses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATRIX", raising=False)
    monkeypatch.setenv("AIRFLOW", "2.11.2")
    monkeypatch.delenv("TURN", raising=False)
    assert turns.wanted() == ()
    monkeypatch.setenv("TURN", "2.7.3,3.2.2")
    assert turns.wanted() == ("2.7.3", "3.2.2")
    assert turns.again(turns.wanted()).startswith("TURN=2.7.3,3.2.2 make e2e ")
