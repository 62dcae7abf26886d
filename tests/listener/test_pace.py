"""How often the listener reads what the kernel tells."""

from __future__ import annotations

import pytest

from dagstop.pace import Pace

LEAST, MOST, BURST, SHARE = 0.002, 0.05, 0.01, 0.02


def test_after_a_rest_it_reads_again_at_once_for_a_while() -> None:
    pace = Pace(LEAST, MOST, BURST, SHARE)
    for start in (100.0, 200.0):
        rests = [pace.rest(0.001, start) for _ in range(9)]
        assert rests == [LEAST] * 9
        assert pace.rest(0.01, start) == MOST


@pytest.mark.parametrize(("took", "used"), [(0.0001, SHARE), (0.0005, SHARE), (0.01, 0.01 / 0.06)])
def test_in_the_long_run_it_takes_its_share_or_rests_as_long_as_it_may(took: float, used: float) -> None:
    pace, now, work = Pace(LEAST, MOST, BURST, SHARE), 100.0, 0.0
    while now < 200.0:
        now, work = now + took, work + took
        now += pace.rest(took, now)
    assert work / 100 == pytest.approx(used, rel=0.03)


def test_what_it_took_too_much_long_ago_is_forgiven() -> None:
    pace = Pace(LEAST, MOST, BURST, SHARE)
    for _ in range(100):
        assert pace.rest(1.0, 100.0) == MOST
    assert pace.rest(0.0, 100.0 + MOST) == LEAST
