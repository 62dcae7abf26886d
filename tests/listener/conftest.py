"""Fixtures of the host half: tasks that look like Airflow's, a listener, a Docker engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from dagstop.lab.docker_engine import Engine, EngineError
from tests.support.pooler import Pooler, PoolerError
from tests.support.tasks import Tasks


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    with Tasks(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """A real Docker engine; without one (no root, no dockerd) its tests are skipped, never in CI."""
    try:
        engine = Engine()
    except EngineError as exc:
        missing(exc)
    with engine:
        yield engine


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


def missing(what: Exception) -> NoReturn:
    """Skip loudly on a developer's machine, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI skips nothing: {what}")
    pytest.skip(str(what))
