"""explain and ps know what the host's listener remembers, wherever it keeps that."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import NO_DOCKER, failing
from tests.support.listener import Listener, dagstop
from tests.support.marks import on_one
from tests.support.tasks import Tasks, wait_for


@on_one
def test_both_see_what_only_the_listener_remembers(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    command = "setsid env -i sleep 7371 & wait"
    runner = tasks.runner("airflow task runner: dag a run 7", command, session=True)
    (pid,) = wait_for("sleep 7371")
    where = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path), *NO_DOCKER, "--json")

    def seen(*options: str) -> tuple[bool, bool]:
        explained = json.loads(dagstop("explain", "dag", "run", *where, *options).stdout)
        listed = json.loads(dagstop("ps", *where, *options).stdout)
        pids = [process["pid"] for task in listed["tasks"] for process in task["processes"]]
        return f"pid {pid}" in {fact["what"] for fact in explained["found"]}, pid in pids

    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_until_remembered(3)
        runner.kill()
        runner.wait(5)
        airflow_db.wait_until("select detail ? 'state_dir' from dagstop.listener")
        assert seen() == (True, True)  # the running listener says where it keeps it
        listener.stop()
    assert seen() == (False, False)  # nobody says it any more
    assert seen("--state-dir", str(listener.state_dir)) == (True, True)
    tasks.end(pid)


@on_one
def test_a_state_dir_that_is_not_there_is_said(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    where = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path), "--state-dir", "/nowhere")
    airflow_db.add_running("run")
    for command in (("ps",), ("explain", "dag", "run")):
        said = failing(*command, *where).stderr
        assert (
            said == "dagstop: --state-dir /nowhere is not a directory; pass the one that the listener uses\n"
        )
