"""Random tests take the same examples at each run, and others in each round of a soak (tests/soak.py)."""

from __future__ import annotations

import os

from hypothesis import settings

FIRST_VARIABLE = "DAGSTOP_FIRST_WORLD"
WORLDS_VARIABLE = "DAGSTOP_WORLDS"

settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("soak", database=None, deadline=None, print_blob=True)
settings.load_profile("same")


def worlds(number: int) -> range:
    """The seeds of a test that draws its worlds itself: `number` of them, if no variable says otherwise."""
    first = int(os.environ.get(FIRST_VARIABLE, "0"))
    return range(first, first + int(os.environ.get(WORLDS_VARIABLE, number)))
