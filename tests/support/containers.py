"""Containers as an Airflow task starts them, on a real Docker engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tests.support.airflow_tables import NO_PROCESS
from tests.testbed.docker_engine import IMAGE, Engine

Run = Callable[..., Container]
TRY = {
    "DAGSTOP_HOSTNAME": "worker",
    "DAGSTOP_JOB_ID": "7",
    "DAGSTOP_PID": str(NO_PROCESS),
    "DAGSTOP_POLICY": "2",
}
"""Of the row that `AirflowDatabase.add_running` makes."""
TWIN = {**TRY, "DAGSTOP_HOSTNAME": "5e8f0d7c1b2a"}
"""Of another Airflow's try with the same ids, and by chance the same job id and pid."""


@contextmanager
def task_containers(engine: Engine, home: Path) -> Iterator[Run]:
    """Give a function that starts a container as DockerOperator does under the cluster policy.

    All are removed at the end.
    tags: whether it carries any; more_tags: those of another try, instead of TRY; home: another AIRFLOW_HOME.
    """
    client = engine.client()
    started: list[Container] = []

    def start(command: list[str], *, dag: str = "dag", tags: bool = True, **more: Any) -> Container:
        environment = {
            "AIRFLOW_CTX_DAG_ID": dag,
            "AIRFLOW_CTX_DAG_RUN_ID": "run",
            "AIRFLOW_CTX_TASK_ID": "a",
            "AIRFLOW_CTX_TRY_NUMBER": "1",
            "DAGSTOP_AIRFLOW_HOME": more.pop("home", str(home)),
            **more.pop("more_tags", TRY),
        }
        container = client.containers.run(
            IMAGE,
            command,
            detach=True,
            network_mode="none",
            environment=environment if tags else {},
            **more,
        )
        started.append(container)
        return container

    yield start
    for container in started:
        try:
            container.remove(force=True)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as exc:
            if exc.status_code != 409:  # its removal is under way
                raise
    client.close()


def running(container: Container) -> bool:
    try:
        container.reload()
    except docker.errors.NotFound:
        return False
    return container.status in {"running", "paused", "restarting"}
