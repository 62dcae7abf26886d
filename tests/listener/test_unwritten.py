"""An order that could not be written in time is carried out as soon as it is written; what was cleared since survives."""

from __future__ import annotations

from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for

pytestmark = [one_server, shape_2]


def test_a_late_order_stops_what_ran_then_and_not_what_was_cleared_since(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run", tasks=("a", "b"))
    tasks.bash("sleep 7941", tasks.environment("dag", "run", "a"))
    tasks.bash("sleep 7942", tasks.environment("dag", "run", "b"))
    wait_for("sleep 7941")
    wait_for("sleep 7942")
    with Listener(airflow_db.url, tmp_path) as listener:
        with airflow_db.transaction() as dba:
            dba.execute("lock table dagstop.stop_order in share mode")
            airflow_db.set_run("failed")
            airflow_db.set_task("b", None)
            airflow_db.rows(
                "update task_instance set start_date = now(), job_id = 8, try_number = 2 where task_id = 'b'"
            )
            airflow_db.set_task("b", "running")
            again = tasks.environment("dag", "run", "b", AIRFLOW_CTX_TRY_NUMBER="2")
            tasks.bash("sleep 7943", again)
            wait_for("sleep 7943")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    assert not find("sleep 7941") and not find("sleep 7942")
    assert find("sleep 7943") and airflow_db.states() == {"a": "failed", "b": "running"}
