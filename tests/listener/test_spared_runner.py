"""A runner that only its title ties to this Airflow: with it live its children and its container."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, descendants, find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
JOB_OF_NOBODY = "airflow task runner: dag a run 6"


def test_what_it_started_lives_also_when_it_is_gone(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks
) -> None:
    airflow_db.add_running("run")  # by job 7
    client = f"docker run --rm --network none --name spared {IMAGE} sleep 7822"
    go = tmp_path / "go"
    daemon = f"setsid sleep 7821 & until [ -e {go} ]; do sleep 0.1; done"
    command = f'sh -c "{daemon}" & {client} & sleep 7823; true'
    named: Any = tasks.environment("dag", "run", "a", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path))
    runner = tasks.runner(JOB_OF_NOBODY, command, **named)
    left: list[int] = []
    try:
        for number in (7821, 7822, 7823):
            wait_for(f"sleep {number}")
        with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
            listener.wait_until_remembered(7)
            go.touch()  # an orphan in a session of its own from now on
            wait_for(f"sh -c {daemon}", 0)
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1)
            assert report["outcome"] == "spared", show(report)
            reasons = {item["why"] for item in report["detail"]["spared"]}
            assert reasons == {
                "nothing but its title ties it to this Airflow",
                f"the runner {runner.pid} that started it is spared: nothing but its title ties it to"
                " this Airflow",
            }, show(report)
            assert "spared" in {item.get("container") for item in report["detail"]["spared"]}, show(report)
        left += [*descendants(runner.pid), *find("sleep 7821")]
        runner.kill()  # the title is gone with it; bash and all below live on
        runner.wait(10)
        with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
            airflow_db.set_run("running")
            airflow_db.set_run("failed")
            second = listener.wait_for_reports(2)[1]
        assert len(second["detail"]["spared"]) >= 4, show(second)
        assert second["outcome"] == "spared", show(second)
        assert all(find(f"sleep {number}") for number in (7821, 7822, 7823)), show(second)
    finally:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        docker_engine.remove_containers()
