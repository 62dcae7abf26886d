"""What is said to be all that an engine created is all: with random streams, losses and restarts."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from dagstop.host.creations import Creations

KEPT = 256


class FakeEngine:
    """It keeps its last events as a real one does, and loses them with a restart."""

    def __init__(self) -> None:
        self.ring: list[dict[str, Any]] = []
        self.made: list[tuple[str, float]] = []

    def happens(self, at: float, creates: bool) -> dict[str, Any]:
        ident = f"{len(self.made)}"
        event = {
            "Type": "container",
            "Action": "create" if creates else "exec_start: true",
            "Actor": {"ID": ident, "Attributes": {"name": "x", "image": "i"}},
            "timeNano": int(at * 1e9),
        }
        if creates:
            self.made.append((ident, at))
        self.ring = [*self.ring, event][-KEPT:]
        return event


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_missing_from_what_is_known(seed: int) -> None:
    random = Random(seed)
    engine, creations = FakeEngine(), Creations()
    now, streaming, answers = 1000.0, False, 0
    steps = random.choice([30, 300, 1500])
    for _ in range(steps):
        now += random.uniform(0.01, 1)
        what = random.random()
        if what < 0.02:
            engine.ring = []  # it was restarted
            creations.ended()
            streaming = False
        elif what < 0.06:
            creations.begun(now)
            streaming = True
        elif what < 0.08:
            creations.ended()
            streaming = False
        elif what < 0.15:
            creations.answered(engine.ring, now)
        else:
            event = engine.happens(now, random.random() < 0.5)
            if streaming and random.random() < 0.9:
                creations.heard(event)
        since = random.uniform(now - 50, now)
        until = random.uniform(since, now)
        known = creations.known(since, until)
        if known is not None:
            answers += 1
            assert {one.id for one in known} == {i for i, at in engine.made if since <= at <= until}
    assert answers or steps < 300, "never sure of anything"


def test_before_the_first_answer_nothing_is_known() -> None:
    creations = Creations()
    creations.begun(5.0)
    assert creations.known(5.0, 5.0) is None


def test_a_stream_reaches_back_to_its_beginning() -> None:
    creations = Creations()
    creations.begun(5.0)
    creations.answered([], 9.0)
    assert creations.known(5.0, 9.0) == []
    assert creations.known(4.9, 9.0) is None and creations.known(5.0, 9.1) is None


def test_it_is_time_for_the_next_answer_long_before_the_engine_forgets() -> None:
    """Events of networks push those of containers out as well."""
    engine, creations = FakeEngine(), Creations()
    engine.happens(999.0, creates=True)
    creations.answered(engine.ring, 1000.0)
    for number in range(1, 1000):
        creations.heard({**engine.happens(1000.0 + number, creates=True), "Type": "network"})
        if creations.behind:
            creations.answered(engine.ring, 1000.5 + number)
    creations.answered(engine.ring, 2001.0)
    assert creations.known(1000.0, 2000.0) is not None
