"""Every kind of task, failed in every way, whichever process is dead, on every Airflow: it stops, and only it.

`pytest -k 3.3.2-up-ui_run-daemons` selects a cell, `make matrix` prints them all.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import PLAYS
from tests.e2e.kinds import kinds_of
from tests.e2e.play import Cells

pytestmark = pytest.mark.e2e

CELLS = [
    pytest.param(play, act.mode, act.action, kind, id=f"{play[0]}-{act.mode}-{act.action}-{kind}")
    for play, acts in PLAYS.items()
    for act in acts
    for kind in ("run", *(k.name for k in kinds_of(int(play[0].partition(".")[0]))))
]


@pytest.mark.parametrize(("cells", "mode", "action", "kind"), CELLS, indirect=["cells"])
def test_it_stops(cells: Cells, mode: str, action: str, kind: str) -> None:
    assert cells[mode, action, kind].wrong == []
