"""`python -m tests.chaos [--small] [WORD ...]`, inside tests.testbed.namespace and `unshare --net` (`make chaos`).

Plays every fault whose name holds one of the WORDs, prints the table, and exits 1 unless all is zero.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagstop.install import install
from tests.chaos.faults import CLOCKS, FAULTS, MASS
from tests.chaos.leak import leak
from tests.chaos.network import loopback_up
from tests.chaos.scene import FULL, SMALL, House, Scene, Size
from tests.chaos.verdict import Verdict
from tests.support.airflow_tables import schema_sql
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server, binaries, rows

OUTPUT = Path("build/chaos")
LEAK = "leak"
HEADS = ("fault", "times", "orders", "lost", "hurt", "untrue", "kill, median", "slowest", "last report")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help=", ".join([*FAULTS, LEAK]))
    parser.add_argument("--small", action="store_true", help="a few of everything: a minute or two in all")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    chosen = [
        name for name in [*FAULTS, LEAK] if not options.words or any(word in name for word in options.words)
    ]
    if not chosen:
        parser.error(f"no such fault: {' '.join(options.words)}; there are: {', '.join([*FAULTS, LEAK])}")
    if not os.environ.get("DAGSTOP_TEST_NAMESPACE") or os.geteuid() != 0:
        sys.exit(
            "It kills for real, fills disks and drops packets; as root, in namespaces of its own: make chaos"
        )
    loopback_up()
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    lines, words = play(chosen, SMALL if options.small else FULL, random.Random(options.seed))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "table.txt").write_text("\n".join([*lines, *words]) + "\n")
    print("\n".join([*lines, *words]))
    return 1 if any(word.startswith("!") for word in words) else 0


def play(chosen: list[str], size: Size, chance: random.Random) -> tuple[list[str], list[str]]:
    """The lines of the table, and what is to be said besides; what begins with "!" is wrong."""
    table: list[tuple[str, ...]] = [HEADS]
    words: list[str] = []
    with postgres() as server, Engine() as engine:
        house = House(server, "full", engine, size, chance)
        for name in chosen:
            begun = time.monotonic()
            if name == LEAK:
                words += leak(house)
            else:
                row, said = one(house, name)
                table.append(row)
                words += said
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADS))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
    return lines if len(table) > 1 else [], words


def one(house: House, name: str) -> tuple[tuple[str, ...], list[str]]:
    """Play one fault; its row, and its words."""
    with scene_of(house, name) as scene:
        FAULTS[name](scene)
        verdict = scene.verdict()
        words = [f"* {name}: {scene.note}"] if scene.note else []
        words += [f"! {name}: {word}" for word in verdict.words[:20]]
        if not verdict.good:
            (OUTPUT / "logs").mkdir(parents=True, exist_ok=True)
            (OUTPUT / "logs" / f"{name.replace(' ', '_')}.log").write_text(scene.listener.log())
        return row_of(name, scene, verdict), words


def row_of(name: str, scene: Scene, verdict: Verdict) -> tuple[str, ...]:
    counts = (scene.times, verdict.orders, verdict.lost, verdict.hurt, verdict.untrue)
    times = (f"{verdict.median_ms():.0f} ms", f"{verdict.most_ms():.0f} ms", f"{verdict.last_report:.1f} s")
    return (name, *map(str, counts), *times)


@contextmanager
def scene_of(house: House, name: str) -> Iterator[Scene]:
    ahead = CLOCKS.get(name, 0)
    if not ahead:
        with Scene(house, house.server, name, mass=name == MASS) as scene:
            yield scene
        return
    with postgres(ahead) as server, Scene(house, server, name, clock_ahead=float(ahead)) as scene:
        yield scene


@contextmanager
def postgres(ahead: int = 0) -> Iterator[Server]:
    """A server with a database `full` in which dagstop is installed; its clock `ahead` by so many seconds."""
    # like any server: what was committed is there after a crash
    shift = {
        "LD_PRELOAD": "/usr/$LIB/faketime/libfaketime.so.1",
        "FAKETIME": f"{ahead:+}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    os.environ.update(shift if ahead else {})
    try:
        server = Server(binaries().get("pg15") or binaries()[max(binaries())])
    finally:
        for variable in shift:
            os.environ.pop(variable, None)
    try:
        rows(server.url("postgres"), "alter system set synchronous_commit = on")
        rows(server.url("postgres"), "select pg_reload_conf()")
        now = float(rows(server.url("postgres"), "select extract(epoch from clock_timestamp())")[0][0])
        if abs(now - time.time() - ahead) > 30:
            raise RuntimeError("the clock of Postgres could not be moved: apt-get install faketime")
        url = server.create_database(name="full")
        server.psql(url, schema_sql("2.11.2"))
        install(url)
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
