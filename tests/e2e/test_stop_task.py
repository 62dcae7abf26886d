"""One task instance marked failed on a real Airflow: its processes and container die, the run's others live."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dagstop.lab import proc
from dagstop.lab.docker_engine import Engine
from dagstop.lab.postgres import Server
from tests.e2e.conftest import MODES, VERSIONS
from tests.e2e.stage import DAG, LEFT_ALONE, Stage
from tests.support.watch import hold, wait_until

pytestmark = pytest.mark.e2e

BY_SQL, BY_UI, DEAD = "e2e_6201", "e2e_6202", "e2e_6203"
SLEEPS = {
    "tree": ("6001", "6002"),
    "ignores_term": ("6003",),
    "daemonised": ("6004", "6005"),
    "retries_left": ("6006",),
    "container": ("6007",),
}
CELLS = [
    ("up", "sql", BY_SQL, "tree"),
    ("up", "sql", BY_SQL, "retries_left"),
    ("up", "sql", BY_SQL, "container"),
    ("up", "ui", BY_UI, "ignores_term"),
    ("up", "ui", BY_UI, "retries_left"),
    ("up", "ui", BY_UI, "container"),
    ("dead", "ui", DEAD, "daemonised"),  # the web server alone lives on
    ("dead", "ui", DEAD, "container"),
    ("dead", "sql", DEAD, "tree"),
    ("dead", "sql", LEFT_ALONE, "container"),
]
DEATH_SECONDS = 60.0
QUIET_SECONDS = 6.0


@pytest.fixture(scope="module", params=[version for version in VERSIONS if "-" not in version])
def stage(request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server) -> Iterator[Stage]:
    """One Airflow per version with three runs at work."""
    stage = Stage(request.param, True, airflow_server.create_database(), docker_engine)
    try:
        stage.start([BY_SQL, BY_UI, DEAD])
        yield stage
    finally:
        stage.stop()


@pytest.mark.parametrize(("mode", "action", "run", "task"), [c for c in CELLS if c[0] in MODES])
def test_a_task_marked_failed_stops_alone(stage: Stage, mode: str, action: str, run: str, task: str) -> None:
    stage.prepare(mode, action)
    before = working(run)
    assert before[task] == len(SLEEPS[task])
    if action == "sql":
        statement = "UPDATE task_instance SET state = 'failed' WHERE task_id = %s AND " + run_of(stage)
        assert stage.airflow.execute(statement, (task, run)) == 1
    else:
        stage.airflow.fail_task_by_ui(DAG, run, task)
    wait_until(lambda: working(run)[task] == 0, DEATH_SECONDS, stage.listener_log)
    wait_until(lambda: outcomes(stage, run, task) == ["stopped"], 30, stage.listener_log)

    def quiet() -> None:
        assert stage.airflow.task_states(run)[task] == "failed", stage.listener_log()
        assert working(run) == {**before, task: 0}, stage.listener_log()

    hold(quiet, QUIET_SECONDS)


def run_of(stage: Stage) -> str:
    """The condition that picks a run's task instances, in the shape of the version."""
    if stage.airflow.generation == 1:
        return "execution_date = (SELECT execution_date FROM dag_run WHERE run_id = %s)"
    return "run_id = %s"


def outcomes(stage: Stage, run: str, task: str) -> list[str | None]:
    """What was reported on the orders about the task."""
    found: list[str | None] = []
    for order in stage.orders(run):
        if order["task_id"] == task:
            found += order["outcomes"]
    return found


def working(run: str) -> dict[str, int]:
    """How many of each task's marked processes live."""
    number = run.rsplit("_", 1)[1]
    alive = [
        p.command[1] for p in proc.everyone() if p.state != "Z" and p.command[0] == "sleep" and p.command[1:]
    ]
    return {task: sum(f"{sleep}.{number}" in alive for sleep in sleeps) for task, sleeps in SLEEPS.items()}
