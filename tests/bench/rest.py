"""The listener at rest, and how everything grows with the number of processes on the host."""

from __future__ import annotations

import time
from pathlib import Path

from dagstop.evidence.watch import Watch
from tests.bench import bare as yardstick
from tests.bench import groups
from tests.bench.stage import CROWD, Dagstop, Stage, both, cpu_seconds, resident_mib
from tests.bench.table import Curve, Found, Row, median
from tests.support.fake_proc import LISTENER, FakeProc

SIZES = (400, 1250, 5000)
SIMULATED = (400, 1250, 5000, 20000)


def run(stage: Stage) -> Found:
    found = Found("rest")
    stage.crowd.grow(CROWD)
    dagstop = Dagstop(stage)
    try:
        percent, mib = _rest(stage, dagstop)
    finally:
        dagstop.end()
    found.rows.append(
        Row(f"at rest, {CROWD} processes: of a core", "", None, percent, "%", "<= 0.5 %", percent <= 0.5)
    )
    found.rows.append(Row("at rest: resident", "", None, mib, "MiB", "<= 45 MiB", mib <= 45))
    return found


def growth(stage: Stage) -> Found:
    """Real processes up to 5,000, a simulated /proc up to 20,000."""
    found = Found("growth")
    kills: dict[str, list[tuple[float, float]]] = {}
    rest: dict[str, list[tuple[float, float]]] = {"CPU at rest, %": [], "resident, MiB": []}
    for size in SIZES:
        stage.crowd.grow(size)
        with both(stage) as (bare, dagstop):
            percent, mib = _rest(stage, dagstop)
            rest["CPU at rest, %"].append((size, percent))
            rest["resident, MiB"].append((size, mib))
            for what, times in (
                ("young", groups.young(stage, (bare, dagstop), stage.times(30))),
                ("old", groups.old(stage, (bare, dagstop), stage.times(30))),
            ):
                for name, took in times.items():
                    kills.setdefault(f"{what}, {name}", []).append((size, median(took)))
            for side in (bare, dagstop):
                kills.setdefault(f"300 runs, {side.name}", []).append((size, groups.many(side)))
    found.curves.append(Curve("Commit to last death", "processes on the host", "ms", kills))
    found.curves.append(Curve("The listener at rest", "processes on the host", "% or MiB", rest))
    found.curves.append(
        Curve(
            "Passes over a simulated /proc", "processes", "ms", _simulated(stage.folder / "proc", SIMULATED)
        )
    )
    for curve in found.curves:
        # what makes the yardstick itself slow (a simulated /proc is larger than the processor's caches) is nobody's work
        machine = max([1.0, *(_of_linear(points) for name, points in curve.series.items() if "bare" in name)])
        for name, points in curve.series.items():
            (x0, y0), (x1, y1) = points[0], points[-1]
            row = Row(f"growth of {name}, {x0:g} to {x1:g}", "at the least", y0, y1, "", "linear or better")
            row.note = f"{_of_linear(points):.2f} of linear growth"
            row.met = None if "bare" in name else _of_linear(points) <= 1.25 * machine
            found.rows.append(row)
    return found


def _of_linear(points: list[tuple[float, float]]) -> float:
    """How the first and the last of a curve's points differ: 1 if both coordinates grew alike."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    return (y1 / y0) / (x1 / x0)


def _rest(stage: Stage, dagstop: Dagstop) -> tuple[float, float]:
    """Per cent of a core, and MiB."""
    time.sleep(3)
    seconds = 5 if stage.quick else 20
    before, begun = cpu_seconds(dagstop.pid), time.monotonic()
    time.sleep(seconds)
    percent = 100 * (cpu_seconds(dagstop.pid) - before) / (time.monotonic() - begun)
    return percent, resident_mib(dagstop.pid)


def _simulated(root: Path, sizes: tuple[int, ...]) -> dict[str, list[tuple[float, float]]]:
    root.mkdir()
    proc = FakeProc(root)
    watch = Watch(proc, trusted_uids=lambda: frozenset({0}), own_pid=LISTENER)
    curves: dict[str, list[tuple[float, float]]] = {"bare pass": [], "look": [], "tick": []}
    environment = {f"VARIABLE_{n}": "x" * 50 for n in range(25)}
    pid = 1000
    for size in sizes:
        while pid < 1000 + size - 2:
            proc.add(pid, argv=("sleep", "1"), environ=environment, start=pid)
            pid += 1
        for _ in range(3):
            watch.look()
        curves["bare pass"].append((size, _milliseconds(lambda: yardstick.stop(b"no such thing", str(root)))))
        curves["look"].append((size, _milliseconds(watch.look)))
        curves["tick"].append((size, _milliseconds(watch.tick)))
    return curves


def _milliseconds(work: object) -> float:
    assert callable(work)
    times = []
    for _ in range(7):
        begun = time.monotonic()
        work()
        times.append((time.monotonic() - begun) * 1000)
    return median(times)
