"""Fixtures for all tests: Postgres servers, and databases with Airflow's tables in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from dagstop.install import install
from tests.support import random_tests  # noqa: F401
from tests.support.airflow_tables import SHAPES, AirflowDatabase, schema_sql
from tests.support.fence import Fence, FenceError
from tests.testbed.docker_engine import Engine, EngineError
from tests.testbed.postgres import Server, binaries, rows

SETUP = Path(__file__).parent / "setup"
# what starts a server; a test that starts one without them has the marker `server`
SERVER_FIXTURES = frozenset({"server", "docker_engine", "airflow_server"})
_servers: dict[str, Server] = {}
GEN_RANDOM_UUID = """
    create function pg_catalog.gen_random_uuid() returns uuid language sql volatile
    as $$ select pg_catalog.md5(pg_catalog.random()::text || pg_catalog.clock_timestamp())::uuid $$
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="only tests that start no server of any kind")
    parser.addoption("--servers", action="store_true", help="only the others")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --unit: no Postgres, no Docker engine, no Airflow. With --servers: what needs one of them."""
    if config.getoption("--unit") == config.getoption("--servers"):
        return
    left_out = [item for item in items if _needs_server(item) == config.getoption("--unit")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _needs_server(item: pytest.Item) -> bool:
    used = SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    return bool(used) or any(item.get_closest_marker(name) for name in ("server", "e2e"))


def pytest_unconfigure() -> None:
    """End every server that the session started."""
    while _servers:
        _servers.popitem()[1].stop()


@pytest.fixture(scope="session", params=sorted(binaries()))
def server(request: pytest.FixtureRequest) -> Server:
    """A Postgres server for the whole session, one for each release found on this machine."""
    name = request.param
    if name not in _servers:
        _servers[name] = Server(binaries()[name])
        if int(name.removeprefix("pg")) < 13:  # the tests call what came with 13; dagstop does not
            rows(_servers[name].url("template1"), GEN_RANDOM_UUID)
        for shape in SHAPES:
            url = _servers[name].create_database(name=f"bare_{shape}")
            _servers[name].psql(url, schema_sql(shape))
            url = _servers[name].create_database(template=f"bare_{shape}", name=f"full_{shape}")
            install(url)
    return _servers[name]


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """An Airflow release whose tables a database has."""
    return str(request.param)


@pytest.fixture
def bare_db(server: Server, shape: str) -> Iterator[AirflowDatabase]:
    """A database with Airflow's tables and nothing of dagstop."""
    yield from _copy(server, "bare", shape)


@pytest.fixture
def airflow_db(server: Server, shape: str) -> Iterator[AirflowDatabase]:
    """A database with Airflow's tables and dagstop installed."""
    yield from _copy(server, "full", shape)


def _copy(server: Server, kind: str, shape: str) -> Iterator[AirflowDatabase]:
    url = server.create_database(template=f"{kind}_{shape}")
    yield AirflowDatabase(url, shape)
    server.drop_database(url)


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
def fence() -> Iterator[Fence]:
    """A user of the test's own, behind which a killer reaches nothing else; gone with the test."""
    try:
        made = Fence()
    except FenceError as exc:
        missing(exc)
    with made:
        yield made


def missing(what: Exception) -> NoReturn:
    """Skip loudly on a developer's machine, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI skips nothing: {what}")
    pytest.skip(str(what))


def require_packages(*names: str) -> None:
    """`missing` if one of these Debian packages, of those that tests/setup lists, is not there."""
    lacking = subprocess.run([SETUP, "--lacking"], capture_output=True, text=True, check=True).stdout.split()
    if wanted := [name for name in names if name in lacking]:
        missing(RuntimeError(f"apt-get install {' '.join(wanted)}"))
