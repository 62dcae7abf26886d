"""Commit to the death of a whole bash group: young groups, old ones, and 300 runs at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.crowd import Group
from tests.bench.profile import Trace
from tests.bench.stage import CROWD, Dagstop, Side, Stage, both
from tests.bench.table import Found, Row, median

YOUNG = 0.05
OLD = 10.0
MANY = 300


def run(stage: Stage) -> Found:
    found = Found("groups")
    stage.crowd.grow(CROWD)
    with both(stage) as (bare, dagstop):
        times = young(stage, (bare, dagstop), stage.times(100))
        base = median(times["bare"])
        row = Row(
            "young group (50 ms) dead",
            "bare",
            base,
            median(times["dagstop"]),
            "ms",
            "<= 1.5 x bare, 2 of 100 > 3 x",
        )
        late = sum(took > 3 * base for took in times["dagstop"])
        late_bare = sum(took > 3 * base for took in times["bare"])
        count = len(times["dagstop"])
        row.met = row.dagstop <= 1.5 * base and late <= 0.02 * count
        row.note = f"over 3 x bare: {late} of {count}, slowest {max(times['dagstop']):.1f} ms; bare itself {late_bare}"
        found.rows.append(row)
        times = old(stage, (bare, dagstop), stage.times(50))
        row = Row(
            "old group (10 s) dead",
            "bare",
            median(times["bare"]),
            median(times["dagstop"]),
            "ms",
            "<= 0.5 x bare",
        )
        row.met = row.dagstop <= 0.5 * median(times["bare"])
        found.rows.append(row)
        bare_ms = many(bare)
        row = Row(
            f"{MANY} runs ({3 * MANY} processes) dead", "bare", bare_ms, many(dagstop), "ms", "<= 1000 ms"
        )
        row.met = row.dagstop <= 1000
        found.rows.append(row)
    _trace(stage, found)
    return found


def young(stage: Stage, sides: Sequence[Side], count: int) -> dict[str, list[float]]:
    """In turn, a fresh group for each; milliseconds by side."""
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(count):
        for side in sides:
            run_id = f"{side.name}_young{len(stage.crowd.pids)}_{number}"
            side.add_runs([run_id])
            times[side.name].append(_kill_young(side, run_id))
            calm(side)
    return times


def _kill_young(side: Side, run_id: str) -> float:
    begun = time.monotonic()
    group = side.group(run_id)
    group.members()
    time.sleep(max(0.0, begun + YOUNG - time.monotonic()))
    return side.kill([group], "run_id", run_id)


def old(stage: Stage, sides: Sequence[Side], count: int) -> dict[str, list[float]]:
    """The same for groups that have been running for a while."""
    groups: dict[str, list[Group]] = {}
    for side in sides:
        run_ids = [f"{side.name}_old{len(stage.crowd.pids)}_{number}" for number in range(count)]
        side.add_runs(run_ids)
        groups[side.name] = [side.group(run_id) for run_id in run_ids]
    time.sleep(OLD)
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(count):
        for side in sides:
            group = groups[side.name][number]
            times[side.name].append(side.kill([group], "run_id", group.run_id))
            calm(side)
    return times


def many(side: Side, count: int = MANY) -> float:
    """That many runs of one DAG, failed by one UPDATE."""
    dag_id = f"many{time.monotonic_ns()}"
    run_ids = [f"{dag_id}_{number}" for number in range(count)]
    side.add_runs(run_ids, dag_id)
    groups = [side.group(run_id, dag_id) for run_id in run_ids]
    time.sleep(1)
    took = side.kill(groups, "dag_id", dag_id)
    calm(side)
    return took


def calm(side: Side) -> None:
    """Until dagstop has reported: its writing is not to burden the next measurement."""
    if isinstance(side, Dagstop):
        with side.connection.cursor() as cursor:
            cursor.execute("select count(*) from dagstop.stop_order")
            (orders,) = cursor.fetchone() or (0,)
        side.connection.commit()
        side.reported(orders)
    time.sleep(0.05)


def _trace(stage: Stage, found: Found) -> None:
    """Where the time goes, and how often /proc is read for 300 orders."""
    path = Path(stage.folder / "trace")
    dagstop = Dagstop(stage, trace=path)
    try:
        trace = Trace(path)
        for number in range(stage.times(30)):
            run_id = f"traced{number}"
            dagstop.add_runs([run_id])
            begun = time.monotonic()
            took = _kill_young(dagstop, run_id)
            calm(dagstop)
            trace.add(begun + YOUNG, took, dagstop)
        found.profile = trace.stages()
        before = path.stat().st_size
        many(dagstop)
        words = path.read_text()[before:].splitlines()
        looks = sum("Watch.look ended" in line for line in words)
        rounds = sum("Stopping._look ended" in line for line in words)
        row = Row(f"passes over /proc for {MANY} orders", "rounds", rounds, looks, "", "1 per round")
        row.met = looks <= rounds
        found.rows.append(row)
    finally:
        dagstop.end()
