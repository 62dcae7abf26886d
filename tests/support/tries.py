"""Labels, rows and runners of a task's tries, for tests of `judge`."""

from __future__ import annotations

from typing import Any

from dagstop.model import Label, Role
from tests.support.fake_proc import HOME, UUID, at, row

OTHER_UUID = UUID.replace("0", "f")
BEFORE, AFTER = at(-30), at(30)
"""When a process started, beside the order."""
CLEARED = row(released_at=at(10), job_id=7, try_number=1)
RERUN = row(job_id=9, try_number=2, started_at=at(20))
THREE = row(job_id=None, ti_id=UUID)
"""A row of Airflow 3."""
RUNNER: dict[str, Any] = {"role": Role.RUNNER, "with_runner": True, "line": frozenset({600, 599})}
"""A process that is a task's runner."""
TITLE = Label(dag_id="d", run_id="r", task_id="t", job_id=7)
"""What a runner's title says."""


def label(**more: Any) -> Label:
    """What the environment of the run's processes says."""
    facts = {"dag_id": "d", "run_id": "r", "task_id": "t", "airflow_home": HOME}
    return Label(**{**facts, **more})
