"""An outcome says the worst of what is known: an all-clear only where all that was found died."""

from __future__ import annotations

from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import failing
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import on_one
from tests.support.tasks import Tasks, find, wait_for

OTHERS = "postgresql://airflow@elsewhere.example/airflow"


@on_one
def test_one_death_does_not_make_an_order_stopped(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    tasks.bash("sleep 7311", tasks.environment("dag", "run", "a"))
    tasks.bash("sleep 7312", tasks.environment("dag", "run", "a", DAGSTOP_SPARE="1"))
    wait_for("sleep 7311")
    wait_for("sleep 7312")
    where = ("--database-url", airflow_db.url)
    with Listener(airflow_db.url, tmp_path) as listener:
        done = failing("stop", "dag", "run", "--wait", *where)
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared", show(report)
    assert not find("sleep 7311") and find("sleep 7312")
    why = "left alive: it asks to be spared: DAGSTOP_SPARE=1"
    assert "host-1: spared (1 process, 0 containers, " in done.stdout and f", 1 {why}" in done.stdout
    assert f"1 process; 1 {why}" in dagstop("history", *where).stdout
    checked = dagstop("check", *where, check=False).stdout
    assert f"warning\torder 1\tdag run on host-1: spared: 1 {why}" in checked


@on_one
def test_what_airflow_says_runs_here_and_nobody_saw_is_not_found(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run", ("a", "b"))
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    tasks.bash("sleep 7313", tasks.environment("dag", "run", "b"))
    wait_for("sleep 7313")
    where = ("--database-url", airflow_db.url)
    with Listener(airflow_db.url, tmp_path) as listener:
        done = failing("stop", "dag", "run", "--wait", *where)
        (report,) = listener.wait_for_reports(1)
        checked = dagstop("check", *where, check=False).stdout
    assert (report["outcome"], report["detail"]["not_found"]) == ("not_found", ["a"]), show(report)
    assert report["closed_at"] is not None and not find("sleep 7313")
    assert "host-1: not_found (1 process, 0 containers, " in done.stdout
    assert "not found: a" in done.stdout
    assert "not found: a" in dagstop("history", *where).stdout
    assert "warning\torder 1\tdag run on host-1: not_found: not found: a" in checked


@on_one
def test_a_task_that_was_seen_to_end_is_not_missed(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    runner = tasks.runner("airflow task runner: dag a run 7", "sleep 7314")
    wait_for("sleep 7314")
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_until_remembered(2)
        runner.terminate()
        runner.wait(5)
        for pid in find("sleep 7314"):
            tasks.end(pid)
        wait_for("sleep 7314", 0)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "nothing_found", show(report)
    assert report["detail"]["ended_by_itself"] == ["a"] and "not_found" not in report["detail"]


@on_one
def test_what_is_surely_another_airflows_is_not_left_alive(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    other = {"AIRFLOW_HOME": "/srv/other", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": OTHERS}
    tasks.bash("sleep 7315", tasks.environment("dag", "run", "a"))
    tasks.bash("sleep 7316", tasks.environment("dag", "run", "a", **other))
    wait_for("sleep 7315")
    wait_for("sleep 7316")
    where = ("--database-url", airflow_db.url)
    with Listener(airflow_db.url, tmp_path) as listener:
        said = dagstop("stop", "dag", "run", "--wait", *where).stdout
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    assert {item["whose"] for item in report["detail"]["spared"]} == {"another Airflow's"}
    assert find("sleep 7316") and not find("sleep 7315")
    assert "left alive" not in said + dagstop("history", *where).stdout
