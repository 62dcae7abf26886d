"""What doorbells, which anybody may ring, can make the listener do with the engines."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

from dagstop.kill.container_hunt import LEARN_PAUSE, ContainerHunts
from dagstop.outside.engine import Engine
from dagstop.outside.procfs import ProcFS


class CountingEngine:
    exists = True

    def __init__(self) -> None:
        self.listings = 0
        self.most_threads = 0

    def learn(self) -> None:
        self.listings += 1
        alive = sum(thread.name == "engines" for thread in threading.enumerate())
        self.most_threads = max(self.most_threads, alive)


def hunts(engine: Any, proc: Path) -> ContainerHunts:
    return ContainerHunts([cast(Engine, engine)], ProcFS(str(proc)), 10.0, lambda: None)


def test_a_flood_of_doorbells_lists_the_containers_some_times_a_second(tmp_path: Path) -> None:
    engine = CountingEngine()
    some = hunts(engine, tmp_path)
    begun = time.monotonic()
    for _ in range(5000):
        some.warm_up()
    elapsed = time.monotonic() - begun
    assert 1 <= engine.listings <= elapsed / LEARN_PAUSE + 1
    assert engine.most_threads == 1
