"""Fixtures of the end-to-end tests, and the table they end with.

AIRFLOW=1.10.0,2.11.2 selects versions (`1.10.0-bare`: without dagstop's cluster policy);
MODE=up or MODE=dead selects that half of the cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dagstop.lab.airflows import RECIPES
from dagstop.lab.docker_engine import Engine
from dagstop.lab.postgres import Server, binaries, rows
from tests.e2e.stage import Stage

CELLS = (("up", "sql"), ("up", "ui"), ("dead", "ui"), ("dead", "sql"))  # in this order: see Stage
MODES = tuple(filter(None, os.environ.get("MODE", "").split(","))) or ("up", "dead")
VERSIONS = tuple(filter(None, os.environ.get("AIRFLOW", "").split(","))) or tuple(RECIPES)
SELECTED = [cell for cell in CELLS if cell[0] in MODES]


@dataclass
class Row:
    """One line of the table; times in ms from the commit (sql) or from the click (ui)."""

    version: str
    mode: str
    action: str
    processes: int
    containers: int
    work: float
    runners: float | None
    confirmed: float


TABLE: list[Row] = []


def run_id(mode: str, action: str) -> str:
    """The run that belongs to a cell."""
    return f"e2e_{6101 + CELLS.index((mode, action))}"


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """One Docker engine for all."""
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def airflow_server() -> Iterator[Server]:
    """A Postgres with room for the connections of many tasks."""
    server = Server(list(binaries().values())[-1])
    try:
        rows(server.url("postgres"), "alter system set max_connections = 300")
        server.halt()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module", params=VERSIONS)
def stage(request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server) -> Iterator[Stage]:
    """One Airflow per version, every run of every selected cell already at work."""
    version, _, bare = request.param.partition("-")
    stage = Stage(version, not bare, airflow_server.create_database(), docker_engine)
    try:
        stage.start([run_id(*cell) for cell in SELECTED])
        yield stage
    finally:
        stage.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if not TABLE:
        return
    say = terminalreporter.write_line
    terminalreporter.section("from the commit (sql) or the click (ui) to the last death, in ms")
    say("airflow      alive action processes containers  bash+containers   runners  confirmed")
    for row in TABLE:
        runners = "-" if row.runners is None else f"{row.runners:.1f}"
        say(
            f"{row.version:<12} {row.mode:<5} {row.action:<6} {row.processes:>9}"
            f" {row.containers:>10} {row.work:>16.1f} {runners:>9} {row.confirmed:>10.1f}"
        )
