"""A run failed by SQL stops, with Airflow alive and with all of it dead, on the two releases whose turn it is today.

`TURN=2.7.3,3.2.2 make e2e ARGS=tests/e2e/test_turns.py` plays others; what was played is said at the end.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import TURNS
from tests.e2e.kinds import FEW
from tests.e2e.play import Cells

pytestmark = pytest.mark.e2e

CELLS = [
    pytest.param(play, act.mode, act.action, kind, id=f"{play[0]}-{act.mode}-{act.action}-{kind}")
    for play, acts in TURNS.items()
    for act in acts
    for kind in ("run", *FEW)
]


@pytest.mark.parametrize(("cells", "mode", "action", "kind"), CELLS, indirect=["cells"])
def test_it_stops(cells: Cells, mode: str, action: str, kind: str) -> None:
    assert cells[mode, action, kind].wrong == []
