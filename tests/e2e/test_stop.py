"""A real DAG run, marked failed with Airflow alive or dead, stops; nothing beside it does."""

from __future__ import annotations

import time

import pytest

from dagstop.lab import proc
from tests.e2e.conftest import SELECTED, TABLE, Row, run_id
from tests.e2e.stage import DAG, Bystanders, Stage
from tests.support.watch import DeathWatch, hold, wait_until

pytestmark = pytest.mark.e2e

DEATH_SECONDS = 60.0
QUIET_SECONDS = 15.0
SUPERVISOR_SECONDS = 60.0  # it notices its runner's death with its own heartbeat


@pytest.mark.parametrize(("mode", "action"), SELECTED)
def test_a_run_marked_failed_stops_and_nothing_else_does(stage: Stage, mode: str, action: str) -> None:
    run = run_id(mode, action)
    stage.prepare(mode, action)
    bystanders = stage.bystanders(run)
    try:
        work, runners = stage.victims(run)
        assert len(work) >= 6
        assert bool(runners) == (mode == "up")
        with DeathWatch([*work, *runners]) as watch:
            began = fail(stage, action, run)
            wait_until(
                lambda: not watch.alive(),
                DEATH_SECONDS,
                lambda: why(stage, [*watch.alive(), *stage.orders(run)]),
            )
            last_work = watch.last(work)
            last_runner = watch.last(runners) if runners else None
        wait_until(lambda: all_reported(stage, run), 30, lambda: why(stage, stage.orders(run)))
        TABLE.append(
            Row(
                version=stage.version + ("" if stage.engine else "-bare"),
                mode=mode,
                action=action,
                processes=len(work) + len(runners),
                containers=1 if stage.engine else 0,
                work=1000 * (last_work - began),
                runners=None if last_runner is None else 1000 * (last_runner - began),
                confirmed=1000 * (stage.confirmed_at(run) - began),
            )
        )
        if mode == "up":
            wait_until(
                lambda: not stage.supervisors(run),
                SUPERVISOR_SECONDS,
                lambda: why(stage, stage.supervisors(run)),
            )
        hold(lambda: nothing_comes_back(stage, run, action, bystanders), QUIET_SECONDS)
        assert stage.airflow.run(DAG, run)["state"] == "failed"
        assert bystanders.harmed() == [], stage.listener_log()
    finally:
        bystanders.end()
    for order in stage.orders(run):
        assert order["outcomes"] == ["stopped"], (order, stage.listener_log())


def fail(stage: Stage, action: str, run: str) -> float:
    """Mark the run failed; time.monotonic() just before the commit (sql) or the click (ui)."""
    if action == "sql":
        return stage.airflow.fail_run_by_sql(DAG, run)
    began = time.monotonic()
    stage.airflow.fail_run_by_ui(DAG, run)
    return began


def all_reported(stage: Stage, run: str) -> bool:
    """Whether every order of the run has a final report."""
    orders = stage.orders(run)
    return bool(orders) and all(o["outcomes"] and None not in o["outcomes"] for o in orders)


def nothing_comes_back(stage: Stage, run: str, action: str, bystanders: Bystanders) -> None:
    """Assert that the run is over: in the database, among the processes, in the engine."""
    pending = "failed"
    if action == "ui" and stage.airflow.generation > 1:
        pending = "skipped"  # Airflow's own code does so before the run turns failed
    states = stage.airflow.task_states(run)
    expected = dict.fromkeys(states, "failed")
    expected |= {"already_done": "success", "never_started": pending}
    assert states == expected, stage.listener_log()
    assert stage.victims(run) == ([], []), stage.listener_log()
    assert stage.running_containers(run) == [], stage.listener_log()
    assert bystanders.harmed() == [], stage.listener_log()


def why(stage: Stage, left: object) -> str:
    """What a failed wait has to say."""
    shown = [f"{p.pid} {p.command}" if isinstance(p, proc.Process) else p for p in as_list(left)]
    return f"{shown}\nlistener:\n{stage.listener_log()[-6000:]}"


def as_list(value: object) -> list[object]:
    """`value`, or a list of it."""
    return value if isinstance(value, list) else [value]
