"""What the settings protect is not stopped, with a real Postgres and real processes; the grace period of a DAG."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.settings import set_setting
from tests.support.tasks import Tasks, find, wait_for


@one_server
@shape_2
@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("observe_only", "on", "observe only"), ("protected", "d*", "protected DAG")],
)
def test_what_would_have_died_is_reported_and_lives(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, name: str, value: str, why: str
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7201 & wait", tasks.environment("dag", "run"))
    wait_for("sleep 7201")
    with Listener(airflow_db.url, tmp_path) as listener:
        set_setting(airflow_db, name, value)  # while it runs
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "spared", show(report)
        assert report["detail"]["processes"] == []
        assert {item["why"] for item in report["detail"]["spared"]} == {
            f"{why}: it would die, of the stopped run"
        }
        assert "sleep 7201" in {item["command"] for item in report["detail"]["spared"]}
        # a chore that follows the report
        airflow_db.wait_until("select closed_at is not null from dagstop.stop_order where run_id = 'run'")
        history = dagstop("history", "--database-url", airflow_db.url).stdout
        assert "spared" in history
        set_setting(airflow_db, name, "off" if name == "observe_only" else "other")
        airflow_db.set_run("running")
        airflow_db.set_run("failed")
        assert listener.wait_for_reports(2)[1]["outcome"] == "stopped"
        wait_for("sleep 7201", 0)


@one_server
@shape_2
def test_observing_ends_what_is_under_way(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    """The grace period of an order runs when the settings change: no SIGKILL follows."""
    airflow_db.add_running("run")
    stubborn = tasks.bash("trap 'echo no' TERM; while :; do sleep 0.2; done", tasks.environment("dag", "run"))
    set_setting(airflow_db, "grace_seconds", "20")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        airflow_db.wait_until("select exists (select from dagstop.report where first_signal_at is not null)")
        set_setting(airflow_db, "observe_only", "on")
        (report,) = listener.wait_for_reports(1)
        assert stubborn.poll() is None
        pids = {item.get("pid") for item in report["detail"]["spared"]}
        assert stubborn.pid in pids, show(report)


@one_server
@shape_2
def test_a_process_may_ask_to_be_spared(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7211 & wait", tasks.environment("dag", "run", DAGSTOP_SPARE="1"))
    tasks.bash("sleep 7212", tasks.environment("dag", "run", DAGSTOP_SPARE="0"))
    wait_for("sleep 7211")
    wait_for("sleep 7212")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "spared", show(report)
        assert find("sleep 7211") and not find("sleep 7212")
        spared = {item["command"]: item["why"] for item in report["detail"]["spared"]}
        assert spared["sleep 7211"] == "it asks to be spared: DAGSTOP_SPARE=1", show(report)


@one_server
@shape_2
def test_what_a_spared_process_starts_later_is_no_news(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    environment = tasks.environment("dag", "run", DAGSTOP_SPARE="1")
    tasks.bash("while :; do sleep 0.1; done", environment)
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "spared", show(report)
        time.sleep(3)
        assert airflow_db.one("select reported_at from dagstop.report") == report["reported_at"], (
            listener.log()
        )


@one_server
@shape_2
def test_the_grace_of_its_dag_goes_before_the_listeners(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    stubborn = tasks.bash("trap 'echo no' TERM; while :; do sleep 0.2; done", tasks.environment("dag", "run"))
    with Listener(airflow_db.url, tmp_path, "--grace", "600") as listener:
        set_setting(airflow_db, "grace_seconds", "500")
        set_setting(airflow_db, "grace_seconds:dag", "1")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=60)
        (item,) = [p for p in report["detail"]["processes"] if p["pid"] == stubborn.pid]
        assert [name for name, _ in item["signals"]] == ["SIGTERM", "SIGKILL"]


@one_server
@pytest.mark.parametrize("what", ["deleted", "removed"])
def test_what_else_orders_a_stop(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, what: str
) -> None:
    """A deleted run, or a running task instance that is set removed; the same again in a run of that name lives."""
    set_setting(airflow_db, "also_stop_on", what)
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set task_id = 't'")
    tasks.bash("sleep 7221 & wait", tasks.environment("dag", "run"))
    wait_for("sleep 7221")
    with Listener(airflow_db.url, tmp_path) as listener:
        if what == "deleted":
            airflow_db.rows("delete from dag_run")
        else:
            airflow_db.set_task("t", what)
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        assert {item["why"] for item in report["detail"]["processes"]} == {
            f"of the stopped {'run' if what == 'deleted' else 'task'}"
        }
        wait_for("sleep 7221", 0)
        history = dagstop("history", "--database-url", airflow_db.url).stdout
        assert f", {what}\t" in history
    if what == "deleted":
        # a host that comes back later, and a run of that name created again
        airflow_db.rows("delete from task_instance")
        airflow_db.add_running("run", ("t",))
        if not airflow_db.has_uuid:
            airflow_db.rows("update task_instance set job_id = 9")
        tasks.bash("sleep 7222 & wait", tasks.environment("dag", "run"))
        wait_for("sleep 7222")
        options = ("--host", "host-2", "--state-dir", str(tmp_path / "other"))
        with Listener(airflow_db.url, tmp_path, *options) as listener:
            reports = listener.wait_for_reports(2)
        assert [r["outcome"] for r in reports] == ["stopped", "superseded"], show(reports)
        assert find("sleep 7222")


@one_server
@shape_2
@pytest.mark.parametrize("value", ["stop", "spare"])
def test_what_a_finished_task_left_running_dies_unless_the_setting_spares_it(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, value: str
) -> None:
    airflow_db.add_running("run")
    airflow_db.add_task("done", "success", end_date=FIRST_DATE)
    tasks.bash("sleep 7281", tasks.environment("dag", "run", "a"))
    tasks.bash("sleep 7282", tasks.environment("dag", "run", "done"))
    for number in (7281, 7282):
        wait_for(f"sleep {number}")
    set_setting(airflow_db, "finished_tasks", value)
    with Listener(airflow_db.url, tmp_path) as listener:
        explained = dagstop(
            "explain", "dag", "run", "--database-url", airflow_db.url, "--airflow-home", str(tmp_path)
        ).stdout
        assert ("finished_tasks" in explained) == (value == "spare")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)  # what is spared by that setting is not left alive
    assert not find("sleep 7281") and bool(find("sleep 7282")) == (value == "spare")
