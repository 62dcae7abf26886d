"""Many listeners on one database: from the commit until the last one is awake, and what the committer pays."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

import psycopg2

from tests.bench.stage import Dagstop, Side, Stage
from tests.bench.table import Curve, Found, Row, median

SIZES = (1, 10, 50, 200)
CORES = sorted(os.sched_getaffinity(0))


class _Plain(Side):
    """No dagstop: an UPDATE and a NOTIFY. What it pays for many listeners is Postgres' own."""

    name = "plain"

    def tell(self, cursor: psycopg2.extensions.cursor, column: str, value: str) -> None:
        cursor.execute("notify dagstop")


def run(stage: Stage) -> Found:
    found = Found("fleet")
    side = Dagstop(stage)
    side.listener.kill()  # only its database is wanted: the fleet listens in its place
    plain = _Plain(stage, "bare")
    commits, _ = _measured(stage, plain)
    without = _medians(commits)
    commits, wakes = _measured(stage, side)
    paid, awake = _medians(commits), _medians(wakes)
    commits, _ = _measured(stage, side, apart=True)
    apart = _medians(commits)
    for one in (plain, side):
        one.connection.close()
    curves = {
        "last awake": awake,
        "UPDATE and commit": paid,
        "the same without dagstop": without,
        "the same on a core of its own": apart,
    }
    found.curves.append(Curve("A fleet on one database", "listeners", "ms", curves))
    (_, alone), (_, together) = paid[0], paid[-1]
    what = "UPDATE and commit with 200 listeners"
    for name, curve in ((what, paid), (f"{what}, on a core of its own", apart)):
        row = Row(name, "1 listener", curve[0][1], curve[-1][1], "ms", "<= 2 x")
        row.met = curve[-1][1] <= 2 * curve[0][1]
        found.rows.append(row)
    added = without[-1][1] - without[0][1]
    what = "what 199 more listeners add to a commit"
    found.rows.append(Row(what, "plain NOTIFY", added, together - alone, "ms", "none"))
    found.rows.append(
        Row("commit to last of 200 awake", "1 listener", awake[0][1], awake[-1][1], "ms", "a curve")
    )
    return found


def _measured(
    stage: Stage, side: Side, *, apart: bool = False
) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """By size of the fleet: ms of each UPDATE and commit, and ms from each commit to the last one awake.

    apart: the committer has a core that no listener and no listening backend runs on, as a server has cores to
    spare: what is left is its own work.
    """
    commits: dict[int, list[float]] = {size: [] for size in SIZES}
    wakes: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(4):
        for size in SIZES:
            fleet = _Fleet(side.database.url, size)
            if apart:
                fleet.keep_off(side)
            for number in range(stage.times(20)):
                run_id = f"fleet{size}_{turn}_{number}_{apart}"
                side.add_runs([run_id])
                time.sleep(0.02)
                before = side.fail("run_id", run_id)
                wakes[size].append((fleet.last_awake() - before) * 1000)
                commits[size].append(side.statement_ms + side.commit_ms)
            fleet.end()
    os.sched_setaffinity(0, CORES)
    return commits, wakes


def _medians(times: dict[int, list[float]]) -> list[tuple[float, float]]:
    return [(size, median(found)) for size, found in times.items()]


class _Fleet:
    """Connections that LISTEN, in a process of their own; it prints when the last one woke."""

    def __init__(self, url: str, size: int) -> None:
        words = [sys.executable, "-m", "tests.bench.fleet", url, str(size)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.last_awake()  # "ready"

    def last_awake(self) -> float:
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def keep_off(self, side: Side) -> None:
        """Share the machine: one core for the committer and its backend, the others for what listens."""
        first, *others = CORES
        backends = side.database.rows("select pid from pg_stat_activity where query like 'listen%'")
        for pid in (self._process.pid, *(pid for (pid,) in backends)):
            os.sched_setaffinity(pid, others)
        for pid in (0, side.connection.get_backend_pid()):
            os.sched_setaffinity(pid, {first})

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def _serve(url: str, size: int) -> None:
    os.nice(19)
    connections = {}
    poller = select.epoll()
    for _ in range(size):
        connection = psycopg2.connect(url)
        connection.autocommit = True
        connection.cursor().execute("listen dagstop")
        connections[connection.fileno()] = connection
        poller.register(connection.fileno(), select.EPOLLIN)
    print(time.monotonic(), flush=True)
    while True:
        asleep = set(connections)
        while asleep:
            for descriptor, _ in poller.poll():
                connection = connections[descriptor]
                connection.poll()
                if connection.notifies:
                    connection.notifies.clear()
                    asleep.discard(descriptor)
        print(time.monotonic(), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
