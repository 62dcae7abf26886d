"""What lives on is not called stopped, by any command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import failing
from tests.support.listener import Listener, dagstop
from tests.support.marks import on_one
from tests.support.tasks import Tasks, find, wait_for


@on_one
def test_stop_does_not_call_stopped_what_is_spared(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7303", tasks.environment("dag", "run", AIRFLOW_HOME="/srv/other"))
    wait_for("sleep 7303")
    where = ("--database-url", airflow_db.url)
    with Listener(airflow_db.url, tmp_path):
        done = failing("stop", "dag", "run", "--wait", *where)
    assert "host-1: spared, 1 left alive: its AIRFLOW_HOME is /srv/other" in done.stdout
    assert "1 left alive: its AIRFLOW_HOME is /srv/other" in dagstop("history", *where).stdout
    assert find("sleep 7303")


@on_one
def test_check_warns_of_what_runs_in_a_failed_run_and_of_a_home_that_is_none(
    airflow_db: AirflowDatabase, tmp_path: Path
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    airflow_db.set_run("failed")
    airflow_db.rows("update task_instance set state = null")
    airflow_db.rows("update task_instance set state = 'running'")
    where = ("--database-url", airflow_db.url)
    with Listener(airflow_db.url, tmp_path):
        said = dagstop("check", *where).stdout
        assert "warning\trun dag run\tfailed, and 1 of its tasks run\t`dagstop stop`" in said
        said = failing("check", *where, AIRFLOW_HOME="/nowhere").stdout
        assert "failed\tAIRFLOW_HOME\t/nowhere is not a directory\tset AIRFLOW_HOME" in said
        home: Any = {"AIRFLOW_HOME": str(tmp_path)}
        said = dagstop("check", *where, **home).stdout
        assert f"warning\tAIRFLOW_HOME\tthere is no airflow.cfg in {tmp_path}\tset AIRFLOW_HOME" in said
        assert "AIRFLOW_HOME" not in dagstop("check", *where, **home, AIRFLOW_CONFIG="/srv/a.cfg").stdout
        (tmp_path / "airflow.cfg").touch()
        assert "AIRFLOW_HOME" not in dagstop("check", *where, **home).stdout
