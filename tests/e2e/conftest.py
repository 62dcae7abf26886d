"""Fixtures of the end-to-end tests, and the table of each version that the matrix ends with.

AIRFLOW=1.10.0,2.11.2 selects versions (`1.10.0-bare`: without dagstop's cluster policy); MODE=up,late
selects modes, ACTION=sql_run,stop actions. Without MATRIX=full a part is played that fits CI: two modes on one start of Airflow.
tests/e2e/turns.py says which releases are played in short, today.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.e2e import turns
from tests.e2e.actions import ACTIONS, MODES, Act, acts_of
from tests.e2e.kinds import FEW, KINDS
from tests.e2e.play import Cell, Cells, Play
from tests.e2e.site import Site
from tests.support.browser import Browser, NoBrowser
from tests.testbed.airflows import RECIPES, VARIANTS
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server, binaries

FULL = os.environ.get("MATRIX") == "full"
_BARE = ("1.10.0-bare", "3.3.2-bare")  # those that say least of themselves without the policy
NAMED = tuple(filter(None, os.environ.get("AIRFLOW", "").split(",")))
VERSIONS = tuple(version for version in NAMED if version not in VARIANTS) if NAMED else (*RECIPES, *_BARE)
_ASKED = set(filter(None, os.environ.get("MODE", "").split(",")))
_MODES = tuple(
    mode for mode in MODES if not _ASKED or mode in _ASKED
)  # in their order: the last one kills Airflow
_ACTIONS = tuple(filter(None, os.environ.get("ACTION", "").split(","))) or ACTIONS
_IN_CI = {"up": ("ui_run", "sql_task"), "web_only": ("sql_run", "ui_task")}
_IN_CI_BARE = {"up": ("sql_task",), "web_only": ("sql_run",)}


def plays() -> dict[tuple[str, str], list[Act]]:
    """The acts of each start of Airflow, by version and mode (`ci`: all that there are in CI)."""
    found: dict[tuple[str, str], list[Act]] = {}
    for version in VERSIONS:
        generation = int(version.partition(".")[0])
        if FULL:
            for mode in _MODES:
                found[version, mode] = acts_of(mode, _ACTIONS, generation)
        else:
            part = _IN_CI_BARE if version.endswith("-bare") else _IN_CI
            found[version, "ci"] = [a for m in _MODES for a in acts_of(m, part.get(m, ()), generation)]
    return {name: acts for name, acts in found.items() if acts}


def turn_plays() -> dict[tuple[str, str], list[Act]]:
    """A run failed by SQL, with Airflow alive and dead, on each release whose turn it is."""
    found = {}
    for version in turns.wanted():
        generation = int(version.partition(".")[0])
        found[version, "turn"] = [
            act for mode in ("up", "web_only") for act in acts_of(mode, ("sql_run",), generation)
        ]
    return found


PLAYS = plays()
TURNS = turn_plays()
PLAYED: dict[tuple[str, str], Cells] = {}
BROKEN_OFF: dict[tuple[str, str], BaseException] = {}


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """One Docker engine for all."""
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def airflow_server() -> Iterator[Server]:
    """A Postgres with room for the connections of many tasks."""
    server = Server(list(binaries().values())[-1], max_connections=800)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    try:
        browser = Browser()
    except NoBrowser as exc:
        missing(exc)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def cells(request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server) -> Cells:
    """What came of the acts of one start of Airflow: played when it is first asked for."""
    key: tuple[str, str] = request.param
    if key in BROKEN_OFF:
        pytest.fail(f"the play broke off: {BROKEN_OFF[key]}")
    if key not in PLAYED:
        try:
            PLAYED[key] = _play(key, docker_engine, airflow_server)
        except BaseException as exc:
            BROKEN_OFF[key] = exc
            raise
    return PLAYED[key]


def _play(key: tuple[str, str], engine: Engine, server: Server) -> Cells:
    few = [kind for kind in KINDS if kind.name in FEW] if key in TURNS else None
    acts = TURNS[key] if few else PLAYS[key]
    more = {}
    if any(act.action == "timeout" for act in acts):
        more["DAGSTOP_TESTBED_SCHEDULED"] = "1"
    if few:
        more["DAGSTOP_TESTBED_TASKS"] = ",".join(kind.task_id for kind in few)
    site = Site(key[0], server, engine, "matrix", **more)
    try:
        play = Play(site, acts, few)
        play.run()
        return play.cells
    finally:
        site.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a table for each version: kinds of tasks by actions, below each mode that was played."""
    say = terminalreporter.write_line
    if taken := tuple(version for version, mode in (*PLAYED, *BROKEN_OFF) if mode == "turn"):
        terminalreporter.section("releases in turn")
        say(f"The turn of {turns.DAY} (UTC). To play it again: {turns.again(taken)}")
    for version in dict.fromkeys(version for version, _ in PLAYED):
        cells = {
            key: cell for (v, _), played in PLAYED.items() if v == version for key, cell in played.items()
        }
        actions = [action for action in ACTIONS if any(action == a for _, a, _ in cells)]
        terminalreporter.section(f"{version}: ms from commit or click to the last death")
        say(f"{'':<14}" + "".join(f"{action:>12}" for action in actions))
        for mode in dict.fromkeys(mode for mode, _, _ in cells):
            say(f"{MODES[mode]}:")
            for kind in ("run", *(kind.name for kind in KINDS)):
                row = [_shown(cells.get((mode, action, kind))) for action in actions]
                if any(row):
                    say((f"{kind:<14}" + "".join(f"{text:>12}" for text in row)).rstrip())


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.wrong:
        return "WRONG"
    return "good" if cell.milliseconds is None else f"{cell.milliseconds:.0f}"
