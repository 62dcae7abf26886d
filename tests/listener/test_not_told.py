"""A run that was running while no listener ran: its report says so, and stays what it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, query, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, wait_for
from tests.support.watch import wait_until

pytestmark = [one_server, shape_2]
WHY = "no listener ran"


def test_a_report_says_when_nobody_was_told(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("before")
    airflow_db.add_running("after", number=1)
    with Listener(airflow_db.url, tmp_path) as listener:
        tasks.bash("sleep 7841", tasks.environment("dag", "before", "a"))
        wait_for("sleep 7841")
        listener.wait_until_remembered(1)
        listener.kill()
        listener.start()
        tasks.bash("sleep 7842", tasks.environment("dag", "after", "a"))
        wait_for("sleep 7842")
        airflow_db.set_run("failed", "before")
        airflow_db.set_run("failed", "after")
        reports = {report["run_id"]: report for report in listener.wait_for_reports(2)}
        assert {report["outcome"] for report in reports.values()} == {"stopped"}, show(reports)
        assert "not_told" not in reports["after"]["detail"], show(reports)
        (gap,) = reports["before"]["detail"]["not_told"]
        assert gap["why"] == WHY and gap["from"] < gap["to"], show(gap)
        ask = "select detail -> 'not_told' -> 0 ->> 'why' as why from dagstop.listener"
        wait_until(lambda: [row["why"] for row in query(airflow_db.url, ask)] == [WHY], 20, listener.log)
    said = dagstop("history", "--database-url", airflow_db.url).stdout
    assert said.count("not told what it forked from") == 1, said


def conmon(name: str, seconds: int) -> subprocess.Popen[bytes]:
    """What podman leaves beside each container: nothing about it says who asked for that."""
    program = f"import time; time.sleep({seconds})"
    return subprocess.Popen(["conmon", "-c", program, "-n", name], executable=sys.executable, env={})


def test_a_container_of_podman_that_may_be_the_runs_is_named(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """The kernel does not tell here."""
    airflow_db.add_running("run")
    older = conmon("older", 7844)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > 2, 60, lambda: "older than the clocks may differ")
    tasks.bash("sleep 7843", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7843")
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_until_remembered(1)
        younger = conmon("younger", 7845)
        try:
            options = ["--database-url", airflow_db.url, "--airflow-home", str(tmp_path), "--json"]
            options += ["--docker-url", "unix:///nowhere", "--state-dir", str(listener.state_dir)]
            said = json.loads(dagstop("explain", "dag", "run", *options).stdout)
            spared = [one["what"] for one in said["found"] if one["verdict"] == "spare"]
            assert spared == ["podman container younger"], show(said)
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1)
            assert report["outcome"] == "spared", show(report)
            assert report["detail"]["containers_untied"] == ["younger"], show(report)
            assert older.poll() is None and younger.poll() is None
        finally:
            for one in (older, younger):
                one.kill()
                one.wait()
