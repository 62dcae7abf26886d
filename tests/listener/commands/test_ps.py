"""`dagstop ps`: a line for each try of each Airflow, its containers with it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import NO_DOCKER, ps
from tests.support.containers import Run
from tests.support.listener import dagstop, show
from tests.support.marks import on_one
from tests.support.tasks import Tasks, wait_for
from tests.testbed.docker_engine import Engine

TITLE = "airflow task runner: dag a run 7"


@on_one
def test_two_airflows_with_one_title_are_two_lines(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """Neither shows its home: the title overwrote the runner's environment, and the child gave its up."""
    airflow_db.add_running("run")
    ours = tasks.runner(TITLE, "exec env -i sleep 7381")
    theirs = tasks.runner(TITLE, "exec env -i sleep 7382", AIRFLOW_HOME="/srv/other")
    wait_for("sleep 7381")
    wait_for("sleep 7382")
    airflow_db.rows("update task_instance set pid = %s", (ours.pid,))
    where = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path), *NO_DOCKER)
    rows = json.loads(dagstop("ps", "--json", *where).stdout)["tasks"]
    states = {process["pid"]: row["state"] for row in rows for process in row["processes"]}
    assert len(rows) == 2 and len(states) == 4, rows
    assert states[ours.pid] == "running" and states[theirs.pid] is None, rows
    assert "possibly another Airflow's" in dagstop("ps", *where).stdout


@on_one
def test_a_container_stands_with_its_runner(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, docker_engine: Engine, run: Run
) -> None:
    """Its tags name the try, the runner's title the job."""
    airflow_db.add_running("run")
    tasks.runner(TITLE, "sleep 7383")
    wait_for("sleep 7383")
    container = run(["sleep", "600"])
    rows = ps(airflow_db, tmp_path, docker_engine)["tasks"]
    assert len(rows) == 1, show(rows)
    row = rows[0]
    assert [item["name"] for item in row["containers"]] == [container.name]
    assert not row["orphan"] and row["state"] == "running" and len(row["processes"]) == 2


@on_one
def test_an_orphaned_container_has_an_age(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    airflow_db.add_running("run")
    run(["sleep", "600"])
    (row,) = ps(airflow_db, tmp_path, docker_engine)["tasks"]
    assert row["orphan"] and row["age_seconds"] > 0
