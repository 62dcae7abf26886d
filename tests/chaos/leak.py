"""Thousands of orders through one listener: descriptors, threads and memory do not grow."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from dagstop.evidence.recent_orders import MOST
from tests.chaos.people import DAG
from tests.chaos.scene import FULL, House, Scene
from tests.support.listener import query
from tests.support.watch import wait_until

GROWTH = 3.0
"""MiB: an allocator has its moods."""


def leak(house: House) -> list[str]:
    """What is to be said of it; what begins with "!" is wrong."""
    # as many ended orders as it remembers go before
    first, orders = (MOST, 10_000) if house.size is FULL else (100, 400)
    batch = first // 10
    with Scene(house, house.server, "leak") as scene:
        scene.listener.start()
        scene.begin()
        verdict = scene.verdict()  # all that it ever does was done once: containers, groups
        for number in range(10):
            _more(scene, number, batch)
        before = _facts(scene)
        for number in range(10, 10 + orders // batch):
            _more(scene, number, batch)
        after = _facts(scene)
    said = [f"! leak: {word}" for word in verdict.words]
    words = "{0} descriptors, {1} threads, {2:.1f} MiB"
    said.append(f"* leak: before {words.format(*before)}; {orders} orders later {words.format(*after)}")
    if after[0] > before[0] + 2 or after[1] > before[1] + 1 or after[2] > before[2] + GROWTH:
        said.append("! leak: it grows")
    return said


def _more(scene: Scene, number: int, count: int) -> None:
    runs = [f"leak{number}_{n}" for n in range(count)]
    query(
        scene.url,
        "insert into dag_run (dag_id, run_id, state, execution_date, start_date, run_type)"
        " select %s, r, 'running', now() - (%s * 10000 + n) * interval '1 minute', now(), 'manual'"
        " from unnest(%s) with ordinality as u (r, n)",
        (DAG, number + 100, runs),
    )
    query(
        scene.url,
        "insert into task_instance (dag_id, run_id, task_id, state, try_number, hostname, pid, job_id, start_date,"
        " pool, pool_slots, operator) select %s, r, 'a', 'running', 1, 'host-1', 4194305, n, now(), 'default_pool', 1,"
        " 'BashOperator' from unnest(%s) with ordinality as u (r, n)",
        (DAG, runs),
    )
    query(scene.url, "update dag_run set state = 'failed' where run_id = any (%s)", (runs,))
    left = (
        "select count(*) as n from dagstop.stop_order o where not exists"
        " (select from dagstop.report r where r.order_id = o.id and r.outcome is not null)"
    )
    wait_until(lambda: query(scene.url, left)[0]["n"] == 0, 120, lambda: scene.listener.log()[-2000:])


def _facts(scene: Scene) -> tuple[int, int, float]:
    assert scene.listener.process is not None
    pid = scene.listener.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return len(os.listdir(f"/proc/{pid}/fd")), threads, pages * resource.getpagesize() / 2**20
