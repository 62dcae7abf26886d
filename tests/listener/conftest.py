"""Fixtures of the host half: tasks that look like Airflow's, a listener, a Docker engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dagstop.lab.docker_engine import Engine
from tests.support.tasks import Tasks


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    with Tasks(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine
