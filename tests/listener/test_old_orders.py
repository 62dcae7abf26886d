"""Orders that were closed before a listener was there: it looks for what lives, and claims nothing else."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.containers import Run, running
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.docker_engine import Engine

pytestmark = [one_server, shape_2]


def test_a_listener_under_a_new_name_claims_nothing(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, docker_engine: Engine, run: Run
) -> None:
    airflow_db.add_log_table()
    for number, name in enumerate(("run", "run1", "run2")):
        airflow_db.add_running(name, ("a", "b"), number=number)
    # the container's tags say `worker`
    airflow_db.rows("update task_instance set hostname = %s where run_id <> 'run'", (socket.gethostname(),))
    container = run(["sleep", "600"])
    tasks.bash("sleep 7361", tasks.environment("dag", "run1", "a"))
    wait_for("sleep 7361")
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        airflow_db.rows("update dag_run set state = 'failed'")
        before = [report["outcome"] for report in listener.wait_for_reports(3)]
        listener.wait_for_audit_log()
        assert listener.stop() == 0
    assert not running(container) and not find("sleep 7361"), show(listener.reports())
    told = airflow_db.one("select count(*) from log")
    tasks.bash("sleep 7362", tasks.environment("dag", "run2", "a"))  # what lives still dies
    wait_for("sleep 7362")
    with Listener(airflow_db.url, tmp_path, "--host", "host-2", docker_url=docker_engine.url) as listener:
        reports = [report for report in listener.wait_for_reports(6) if report["host"] == "host-2"]
        listener.wait_for_audit_log()
    assert [report["outcome"] for report in reports] == ["nothing_found", "nothing_found", "stopped"], show(
        reports
    )
    assert [len(report["detail"]["containers"]) for report in reports] == [0, 0, 0]
    assert not find("sleep 7362")
    assert before == ["stopped", "not_found", "not_found"]  # of task b nothing was ever seen
    assert airflow_db.one("select count(*) from log") == told + 1
