"""The releases between those that every `make e2e` plays: two a day, so that a week meets all of them.

Each of them was built and seen to pass before it got a turn (docs/behaviour.md says when). `TURN=2.7.3,3.2.2` names
others than today's.
"""

from __future__ import annotations

import datetime as dt
import os

PAIRS = (
    ("2.5.3", "3.0.6"),
    ("2.6.3", "3.1.8"),
    ("2.7.3", "3.2.2"),
    ("2.8.4", "3.3.0"),
    ("2.9.3", "3.3.1"),
    ("2.10.0", "2.11.0"),
    ("2.10.5", "2.11.1"),
)
DAY = dt.datetime.now(dt.timezone.utc).date()  # once: a run of the tests may go past midnight


def turn(day: dt.date) -> tuple[str, ...]:
    """The releases of that day, in UTC."""
    return PAIRS[day.toordinal() % len(PAIRS)]


def wanted() -> tuple[str, ...]:
    """Those that are to be played now: `TURN` names them, else the day; none where `AIRFLOW` or MATRIX=full choose."""
    named = tuple(filter(None, os.environ.get("TURN", "").split(",")))
    if named or os.environ.get("AIRFLOW") or os.environ.get("MATRIX") == "full":
        return named
    return turn(DAY)


def again(versions: tuple[str, ...]) -> str:
    """The command that plays them again on any day."""
    return f"TURN={','.join(versions)} make e2e ARGS=tests/e2e/test_turns.py"
