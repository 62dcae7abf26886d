"""task_logs.py: the last line of a stopped task's own log file, from real processes that write one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener
from tests.support.marks import one_server, shape_2, shape_3
from tests.support.tasks import Tasks, wait_for
from tests.support.watch import wait_until

# a runner, or a supervisor of Airflow 3, that has its log file open
WRITER = """
import sys, subprocess, time
import setproctitle
title, path, mode = sys.argv[1:]
setproctitle.setproctitle(title)
log = open(path, mode)
log.write("begun\\n"); log.flush()
child = subprocess.Popen(["sleep", "7900"])
child.wait()
time.sleep(300)
"""


def writer(tasks: Tasks, title: str, path: Path, mode: str = "a") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tasks.home)}
    tasks.start([sys.executable, "-c", WRITER, title, str(path), mode], environment, session=True)
    tasks.wait_for_file(path)
    wait_for("sleep 7900")


@one_server
@shape_2
def test_the_runner_s_file_says_who_stopped_it(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    path = tmp_path / "logs/dag_id=dag/run_id=run/task_id=a/attempt=1.log"
    writer(tasks, "airflow task runner: dag a run 7", path)
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        wait_until(lambda: len(path.read_text().splitlines()) == 2, 30, listener.log)
        last = path.read_text().splitlines()[-1]
        user = airflow_db.one("select session_user")
        assert f"WARNING - stopped by dagstop: DAG run marked failed by {user} from " in last
        assert last.endswith("on host-1 processes: 2, containers: 0")


@one_server
@shape_2
@pytest.mark.parametrize(
    ("name", "mode"), [("other/a/1.log", "a"), ("dag/a/1.txt", "a"), ("dag/a/1.log", "w")]
)
def test_no_file_that_may_be_another_s(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, name: str, mode: str
) -> None:
    """Its path names another DAG, is not a log, or what is written would not come at its end."""
    airflow_db.add_running("run")
    path = tmp_path / "logs" / name
    writer(tasks, "airflow task runner: dag a run 7", path, mode)
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        assert listener.stop() == 0
    assert path.read_text() == "begun\n"


@one_server
@shape_3
def test_airflow_3_s_supervisor_writes_json(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    ti_id = airflow_db.one("select id::text from task_instance")
    path = tmp_path / "logs/dag_id=dag/run_id=run/task_id=a/attempt=1.log"
    writer(tasks, f"airflow supervisor: {ti_id}", path)
    tasks.runner(f"airflow worker -- {ti_id}", "sleep 7901")
    wait_for("sleep 7901")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        wait_until(lambda: len(path.read_text().splitlines()) == 2, 30, listener.log)
    facts = json.loads(path.read_text().splitlines()[-1])
    assert facts["event"].startswith("stopped by dagstop: DAG run marked failed by ")
    assert (facts["level"], facts["logger"]) == ("warning", "dagstop")


@one_server
@shape_2
def test_a_dry_run_writes_nothing(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    airflow_db.add_running("run")
    path = tmp_path / "logs/dag/a/1.log"
    writer(tasks, "airflow task runner: dag a run 7", path)
    with Listener(airflow_db.url, tmp_path, "--dry-run") as listener:
        airflow_db.set_run("failed")
        wait_until(lambda: "would be stopped" in listener.log(), 30, listener.log)
        assert listener.stop() == 0
    assert path.read_text() == "begun\n"
