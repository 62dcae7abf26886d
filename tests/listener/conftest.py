"""Fixtures of the host half: tasks that look like Airflow's, a listener, a Docker engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.containers import Run, task_containers
from tests.support.pooler import Pooler, PoolerError
from tests.support.tasks import Tasks
from tests.testbed.docker_engine import Engine


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    with Tasks(tmp_path) as started:
        yield started


@pytest.fixture
def run(docker_engine: Engine, tmp_path: Path) -> Iterator[Run]:
    """Start a container of a task whose AIRFLOW_HOME is `tmp_path`; see `task_containers`."""
    with task_containers(docker_engine, tmp_path) as start:
        yield start


@pytest.fixture
def pooler() -> Iterator[Callable[[str], str]]:
    """Give it a database's URL: the URL of the same database through PgBouncer."""
    started: list[Pooler] = []

    def through(url: str) -> str:
        try:
            started.append(Pooler(url))
        except PoolerError as exc:
            missing(exc)
        return started[-1].through(url)

    yield through
    for one in started:
        one.stop()
