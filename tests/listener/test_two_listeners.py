"""Two listeners on one host: one works, one waits and takes over; another database needs its own state."""

from __future__ import annotations

from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for


@one_server
@shape_2
def test_the_second_waits_and_takes_over_when_the_first_is_killed(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running()
    tasks.bash("sleep 7321", tasks.environment("dag", "run"))
    wait_for("sleep 7321")
    first, second = Listener(airflow_db.url, tmp_path), Listener(airflow_db.url, tmp_path)
    second.log_path = tmp_path / "second.log"
    with first:
        first.wait_until_remembered(1)
        second.start("waiting")
        try:
            assert "--state-dir" in second.log()
            first.kill()
            airflow_db.set_run("failed")  # nobody may be listening at this moment
            (report,) = second.wait_for_reports(1)
            assert report["outcome"] == "stopped" and not find("sleep 7321")
            assert second.log().index("waiting") < second.log().index("connected")
        finally:
            second.kill()
