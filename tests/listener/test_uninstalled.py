"""A listener whose schema is taken away, is of an earlier release, and comes back."""

from __future__ import annotations

from pathlib import Path

from dagstop.install import install, uninstall
from tests.releases import RELEASES, restore
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.postgres import Server

BACK = 90.0  # seconds; a listener retries after some at the latest


@one_server
@shape_2
def test_uninstalled_and_installed_again_under_a_listener(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    for number, run in enumerate(("before", "after")):
        airflow_db.add_running(run, number=number)
        tasks.bash(f"sleep 760{number}", tasks.environment("dag", run))
        wait_for(f"sleep 760{number}")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed", "before")
        listener.wait_for_reports(1)
        assert uninstall(airflow_db.url)
        listener.wait_for("attempt=2", timeout=BACK)
        said = [line for line in listener.log().splitlines() if "attempt=1 " in line]
        assert len(said) == 1 and "dagstop install" in said[0]
        assert "Traceback" not in listener.log()
        install(airflow_db.url)
        airflow_db.set_run("failed", "after")  # its order has the number that the other one had
        (report,) = listener.wait_for_reports(1, timeout=BACK)
        assert (report["id"], report["run_id"], report["outcome"]) == (1, "after", "stopped")
        assert not find("sleep 7601")


@one_server
@shape_2
def test_a_listener_that_is_ahead_of_its_schema_works_once_that_is_upgraded(
    server: Server, shape: str, tmp_path: Path, tasks: Tasks
) -> None:
    db = restore(server, RELEASES[-1], shape)
    db.add_running("run", number=9)
    tasks.bash("sleep 7611", tasks.environment("dag", "run"))
    wait_for("sleep 7611")
    with Listener(db.url, tmp_path) as listener:
        install(db.url)
        db.set_run("failed")
        db.wait_until("select outcome = 'stopped' from dagstop.history where run_id = 'run'", BACK)
        assert not find("sleep 7611")
        assert "Traceback" not in listener.log()
    server.drop_database(db.url)
