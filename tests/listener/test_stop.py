"""The whole path with a real Postgres and real processes: a row turns failed, its processes die."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.tasks import Tasks, find, wait_for


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    with Tasks(tmp_path) as started:
        yield started


def test_a_failed_run_stops_and_nothing_else_does(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.add_running("other", number=1)
    tasks.bash("sleep 7001 & sleep 7002 & wait", tasks.environment("dag", "run"))
    tasks.bash("sleep 7003", tasks.environment("dag", "other"))
    tasks.bash("sleep 7004", tasks.environment("dag", "run", AIRFLOW_HOME="/srv/other"))
    tasks.bash("sleep 7005", {"PATH": "/bin:/usr/bin", "NOTE": "AIRFLOW_CTX_DAG_ID=dag run"})
    for number in range(7001, 7006):
        wait_for(f"sleep {number}")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        assert not find("sleep 7001") and not find("sleep 7002")
        assert find("sleep 7003") and find("sleep 7004") and find("sleep 7005")
        assert [item["why"] for item in report["detail"]["spared"]] == ["its AIRFLOW_HOME is /srv/other"]
        assert report["closed_at"] is not None
        assert listener.stop() == 0
