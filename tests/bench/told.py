"""What it brings and costs that the kernel tells of each fork: `python -m tests.bench.told`, as root.

In the initial pid namespace, behind tests.support.fence: the kernel tells of forks only there. Other
programs of the machine count in what is measured at rest: each row says how many processes they forked.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.bench import groups, typed
from tests.bench.crowd import Group
from tests.bench.profile import Trace
from tests.bench.stage import Bare, Dagstop, Side, Stage, cpu_seconds, resident_mib
from tests.bench.table import median
from tests.support.fake_proc import FakeProc
from tests.support.fence import Fence, FencedTasks
from tests.support.forks import STORM
from tests.support.tasks import Tasks
from tests.testbed.docker_engine import IMAGE, Engine

SECONDS = 20.0
SIZES = (400, 5000, 20000)
FORKS = 2000  # a second
KILLS = 40
UP_SECONDS = 20.0
"""An `up` of one service, and the time in which it becomes known what it created."""
UPS = {"up of a task": "docker-compose up -d", "up of nobody": "docker-compose up -d", "nothing": "true"}
PROJECT = f"""
version: '3'
services:
  web: {{image: {IMAGE}, network_mode: none, command: [sleep, '600']}}
"""
CROWD = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(int(sys.argv[1])):
    if not os.fork():
        signal.pause()
print("there", flush=True)
signal.pause()
"""


class Floor(Bare):
    """Is given the pids: nothing can be faster."""

    name = "floor"
    program = "tests.bench.floor"

    def __init__(self, stage: Stage, fence: Fence | None = None) -> None:
        super().__init__(stage, fence)
        self._pids: list[int] = []

    def kill(self, groups: Sequence[Group], column: str, value: str) -> float:
        self._pids = [member.pid for group in groups for member in group.members()]
        return super().kill(groups, column, value)

    def tell(self, cursor: psycopg2.extensions.cursor, column: str, value: str) -> None:
        cursor.execute("select pg_notify('floor', %s)", (" ".join(map(str, self._pids)),))


def main() -> None:
    """Print a line for each size of the host; what is at rest is of a core's time."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.told", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {' '.join(sorted(unknown))}")
    with Stage(options.quick, Path("build/bench")) as stage, Fence() as fence:
        for part in options.parts or PARTS:
            PARTS[part](stage, fence)


def kills(stage: Stage, fence: Fence) -> None:
    """Commit to last death on a growing host, beside the floor and the bare yardstick."""
    print(f"{'ms from commit to last death':34}{'floor':>9}{'bare':>9}{'dagstop':>9}")
    for size in SIZES:
        with _crowd(fence, size):
            sides = (Floor(stage, fence), Bare(stage, fence), Dagstop(stage, fence=fence))
            try:
                _must_be_told(sides[-1])
                for what, measure in (("known", groups.old), ("young", groups.young)):
                    times = measure(stage, sides, stage.times(KILLS))
                    shown = "".join(f"{median(times[side.name]):9.2f}" for side in sides)
                    print(f"{f'{what} group of 3, {size} processes':34}{shown}", flush=True)
            finally:
                for side in sides:
                    side.end()


def stages(stage: Stage, fence: Fence) -> None:
    """Where the time goes: medians of the moments that a traced listener wrote down, from the commit on."""
    for size in (SIZES[0], SIZES[-1]):
        with _crowd(fence, size):
            path = fence.home / f"trace-{size}"
            dagstop = Dagstop(stage, trace=path, fence=fence)
            try:
                _must_be_told(dagstop)
                for what, age in (("known", groups.OLD), ("young", groups.YOUNG)):
                    print(f"{what} group of 3, {size} processes")
                    for moment, at, since in _traced(stage, dagstop, path, what, age):
                        print(f"  {at:8.2f} ms {since:+8.2f}  {moment}", flush=True)
            finally:
                dagstop.end()


def _traced(
    stage: Stage, dagstop: Dagstop, path: Path, what: str, age: float
) -> list[tuple[str, float, float]]:
    trace = Trace(path)
    started: dict[str, Group] = {}
    runs = [f"{what}{number}" for number in range(stage.times(KILLS))]
    dagstop.add_runs(runs)
    for run_id in runs if age == groups.OLD else ():
        started[run_id] = dagstop.group(run_id)
        started[run_id].members()
    time.sleep(age if started else 0.0)
    for run_id in runs:
        if (group := started.get(run_id)) is None:
            group = dagstop.group(run_id)
            group.members()
            time.sleep(age)
        begun = time.monotonic()
        took = dagstop.kill([group], "run_id", run_id)
        groups.calm(dagstop)
        trace.add(begun, took, dagstop)
    return trace.stages()


def rest(stage: Stage, fence: Fence) -> None:
    """At rest, with the kernel's word and without, in turn."""
    print(f"{'at rest, of a core':34}{'told':>28}{'looks':>28}")
    for size in SIZES:
        with _crowd(fence, size):
            _at_rest(f"{size} processes", stage, fence)


def silent(stage: Stage, fence: Fence) -> None:
    """What the listener does by itself: nobody's forks reach it, and /proc is simulated."""
    print("at rest where nobody forks, of a core, over a minute")
    root = fence.home / "proc"
    root.mkdir()
    proc, made = FakeProc(root), 2
    for size in SIZES:
        for pid in range(1000 + made, 1000 + size):
            proc.add(pid, argv=("sleep", "1"), environ={"PATH": "/usr/bin:/bin"}, start=pid)
        made = size
        os.chown(root, fence.uid, fence.uid)
        dagstop = Dagstop(stage, fence=fence, program=["tests.bench.silent", str(root)])
        try:
            _must_be_told(dagstop)
            time.sleep(5)
            before, began = cpu_seconds(dagstop.pid), time.monotonic()
            time.sleep(6 if stage.quick else 60)
            percent = 100 * (cpu_seconds(dagstop.pid) - before) / (time.monotonic() - began)
            print(f"{size:6} processes {percent:7.3f} %{resident_mib(dagstop.pid):6.0f} MiB", flush=True)
        finally:
            dagstop.end()
        dagstop.listener.log_path.unlink()


def storm(stage: Stage, fence: Fence) -> None:
    """Beside a program that forks without end: where no task runs, and where one does."""
    with _beside(fence, STORM, str(FORKS), until="there"):
        _at_rest(f"beside {FORKS} forks a second", stage, fence)
    with _beside(fence, STORM, str(FORKS), until="there"):
        _at_rest(f"beside {FORKS} forks a second, a task", stage, fence, task=True)


def _at_rest(name: str, stage: Stage, fence: Fence, *, task: bool = False) -> None:
    used: list[str] = []
    for told in (True, False):
        dagstop = Dagstop(stage, fence=fence, told=told)
        try:
            if told:
                _must_be_told(dagstop)
            if task:
                dagstop.add_runs(["task"])
                dagstop.group("task").members()
            time.sleep(3)
            before, forks, began = cpu_seconds(dagstop.pid), _forks(), time.monotonic()
            time.sleep(2 if stage.quick else SECONDS)
            took = time.monotonic() - began
            percent = 100 * (cpu_seconds(dagstop.pid) - before) / took
            used.append(f"{percent:.2f} % ({(_forks() - forks) / took:.0f} forks/s)")
            lost = dagstop.listener.log().count("process events lost")
            mib = resident_mib(dagstop.pid)
        finally:
            dagstop.end()
        dagstop.listener.log_path.unlink()
        if lost:
            used[-1] += f", {lost} gaps"
    print(f"{name:34}{used[0]:>28}{used[1]:>28}   {mib:.0f} MiB", flush=True)


def _must_be_told(side: Side) -> None:
    told = "(detail -> 'process_events' ->> 'told')::boolean"
    side.database.wait_until(f"select coalesce(bool_and({told}), false) from dagstop.listener", 20)


def _forks() -> int:
    """Of the whole machine since its start, threads too."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes "))


def containers(stage: Stage, fence: Fence) -> None:
    """What a task's docker clients have created, from the commit to the last death, beside `docker kill`."""
    with Engine() as engine, FencedTasks(fence) as tasks:
        engine.folder.chmod(0o711)
        os.chmod(engine.url.removeprefix("unix://"), 0o666)
        dagstop = Dagstop(stage, engine.url, fence=fence)
        try:
            _must_be_told(dagstop)
            print(
                f"{'ms from commit to last death':34}{'docker kill':>12}{'dagstop':>9}{'ratio':>7}{'bar':>9}"
            )
            for row in typed.rows(stage, engine, dagstop, tasks, told=True, times=stage.times(20)):
                met = f"{row.ratio:7.2f}{row.bar:>9}{'' if row.met else '  NO'}  {row.note}"
                print(f"{row.what:34}{row.baseline:12.2f}{row.dagstop:9.2f}{met}", flush=True)
        finally:
            dagstop.end()


def ups(stage: Stage, fence: Fence) -> None:
    """What the listener uses from the start of a `docker-compose up -d` on: of a task, and of nobody."""
    print(f"{f'CPU of the listener over {UP_SECONDS:g} s':34}{'ms':>8}{'of a core':>11}{'forks/s':>9}")
    with Engine() as engine, FencedTasks(fence) as tasks:
        engine.folder.chmod(0o711)
        os.chmod(engine.url.removeprefix("unix://"), 0o666)
        dagstop = Dagstop(stage, engine.url, fence=fence)
        used: dict[str, list[tuple[float, float]]] = {what: [] for what in UPS}
        try:
            _must_be_told(dagstop)
            for number in range(max(1, stage.times(4))):
                for what, line in UPS.items():
                    run_id = f"{what.replace(' ', '_')}{number}"
                    dagstop.add_runs([run_id])
                    used[what].append(_of_an_up(dagstop, engine, tasks, run_id, line))
                    engine.remove_containers()
            for what, found in used.items():
                seconds, forks = median([one for one, _ in found]), median([one for _, one in found])
                percent = 100 * seconds / UP_SECONDS
                print(f"{what:34}{seconds * 1000:8.0f}{percent:9.2f} %{forks:9.0f}", flush=True)
        finally:
            dagstop.end()


def _of_an_up(dagstop: Dagstop, engine: Engine, tasks: Tasks, run_id: str, line: str) -> tuple[float, float]:
    """Seconds of CPU time, and what the machine forked meanwhile, a second."""
    folder = tasks.home / run_id
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(PROJECT)
    environ = tasks.environment("dag", run_id, "a", DOCKER_HOST=engine.url, HOME=str(tasks.home))
    if "task" not in run_id:
        environ = {name: environ[name] for name in ("PATH", "DOCKER_HOST", "HOME")}
    before, forks, began = cpu_seconds(dagstop.pid), _forks(), time.monotonic()
    process = tasks.bash(line, environ, folder=folder)
    time.sleep(UP_SECONDS)
    took = time.monotonic() - began
    found = cpu_seconds(dagstop.pid) - before, (_forks() - forks) / took
    if process.poll() != 0:
        raise RuntimeError(f"{line} of {run_id} did not end well within {UP_SECONDS:g} s")
    return found


@contextmanager
def _crowd(fence: Fence, size: int) -> Iterator[None]:
    alone = len([name for name in os.listdir("/proc") if name.isdigit()])
    with _beside(fence, CROWD, str(max(0, size - alone)), until="there"):
        yield


@contextmanager
def _beside(fence: Fence, program: str, argument: str, until: str = "") -> Iterator[None]:
    command = [*fence.within(), sys.executable, "-c", program, argument]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            if until:
                assert process.stdout is not None and process.stdout.readline().strip() == until
            yield
        finally:
            fence.end()


PARTS: dict[str, Callable[[Stage, Fence], None]] = {
    "kills": kills,
    "containers": containers,
    "ups": ups,
    "stages": stages,
    "rest": rest,
    "silent": silent,
    "storm": storm,
}

if __name__ == "__main__":
    main()
