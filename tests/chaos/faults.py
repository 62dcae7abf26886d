"""The faults: each starts the orders, breaks something again and again meanwhile, and repairs it.

Each takes the scene with its listener not yet started, and returns once all is as it should be.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

from tests.chaos.scene import Scene
from tests.support.listener import Listener
from tests.support.ringer import ROLE, Ringer
from tests.support.watch import wait_until
from tests.testbed.postgres import connect

WORKING = "start host="
"""A log line of a listener that runs, whether or not there is a database to connect to."""


def nothing(scene: Scene) -> None:
    """No fault: what the others are to be compared with."""
    scene.listener.start()
    scene.begin()
    wait_until(lambda: not scene.ordering, 300, lambda: "the orders")


def listener_killed(scene: Scene) -> None:
    """SIGKILL at any instant, and a new one at once."""
    scene.listener.start()
    scene.begin()
    while scene.ordering:
        scene.pause(0.0, 1.0)
        scene.listener.kill()
        scene.injected()
        scene.listener.start(WORKING)


def listener_killed_amid(scene: Scene) -> None:
    """SIGKILL at the first death of a batch: between the signals and the report."""
    scene.listener.start()
    scene.begin()
    while scene.ordering:
        dead = len(scene.deaths.deaths)
        while scene.ordering and len(scene.deaths.deaths) == dead:
            time.sleep(0.0005)
        scene.listener.kill()
        scene.injected()
        scene.listener.start(WORKING)
        scene.pause(0.2, 0.8)


def connection_cut(scene: Scene) -> None:
    """pg_terminate_backend on every session of the listener."""
    cut = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name like 'dagstop listen%' and datname = current_database()"
    )
    scene.listener.start()
    scene.begin()
    while scene.ordering:
        scene.pause()
        with connect(scene.url) as connection, connection.cursor() as cursor:
            cursor.execute(cut)
            scene.times += cursor.rowcount


def postgres_restarted(scene: Scene) -> None:
    """Restarted with -m immediate: sessions end, transactions are lost, recovery runs."""
    scene.listener.start()
    scene.begin()
    while scene.ordering and scene.times < 5:
        scene.pause(0.2, 1.0)
        scene.server.halt()
        scene.injected()
        scene.server.start()


def postgres_away(scene: Scene) -> None:
    """Away for long, while tasks are being killed."""
    scene.listener.start()
    scene.begin()
    scene.pause(0.3, 0.8)
    scene.server.halt()
    scene.injected()
    time.sleep(scene.house.size.long)
    scene.server.start()


def network_black_hole(scene: Scene) -> None:
    """Packets between listener and Postgres vanish; nobody is told. Sessions of ours go another way."""
    rule = ["INPUT", "-p", "tcp", "-m", "multiport", "--ports", str(scene.server.port), "-j", "DROP"]
    scene.listener.start()
    scene.begin()
    scene.pause(0.2, 0.8)
    subprocess.run(["iptables", "-A", *rule], check=True)
    scene.injected()
    try:
        # noticed by keepalives and tcp_user_timeout, or it would be the kernel's two hours
        scene.listener.wait_for("database lost", timeout=90)
        wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)


def engine_stopped(scene: Scene) -> None:
    """The Docker engine SIGKILLed, away for a while, started again; containers live on meanwhile."""
    scene.listener.start()
    scene.begin()
    scene.pause(0.0, 0.3)
    scene.house.engine.halt()
    scene.injected()
    wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
    scene.house.engine.start()


def engine_restarted(scene: Scene) -> None:
    """The engine SIGKILLed and started at once, again and again."""
    scene.listener.start()
    scene.begin()
    while scene.ordering and scene.times < 4:
        scene.pause(0.0, 0.5)
        scene.house.engine.halt()
        scene.injected()
        scene.house.engine.start()


def engine_hung(scene: Scene) -> None:
    """The engine accepts and never answers."""
    scene.listener.start()
    scene.begin()
    scene.pause(0.0, 0.3)
    scene.proxy.hung.set()
    scene.injected()
    wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
    time.sleep(scene.house.size.long / 3)
    scene.proxy.heal()


def disk_full(scene: Scene) -> None:
    """No byte left for log and state, from before the first order; the listener is restarted meanwhile."""
    small = scene.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        words = [str(small) if w == str(scene.listener.state_dir) else w for w in scene.listener.command]
        scene.listener.command, scene.listener.log_path = words, small / "listener.log"
        scene.listener.start()
        fill(small / "filler")
        scene.injected()
        scene.begin()
        wait_until(lambda: len(scene.ordered) > len(scene.runs) / 2, 300, lambda: "half of the orders")
        with (
            scene.no_orders
        ):  # in the middle of a signal it would leave no trace: there is no disk to leave it on
            wait_until(scene.all_reported, 300, lambda: "the reports so far")
            scene.listener.kill()
            scene.listener.log_path = scene.folder / "listener.log"
            scene.listener.start()
        wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
        scene.settle()
    finally:
        scene.listener.kill()
        subprocess.run(["umount", small], check=True)


def fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (4096, 1):
            while True:
                os.write(descriptor, b"x" * size)
    except OSError:
        pass
    try:
        while True:
            os.write(descriptor, b"x")
    except OSError:
        os.close(descriptor)


def out_of_order(scene: Scene) -> None:
    """Orders with low ids become visible after others with higher ones were carried out."""
    held = scene.keep(4, alive=True)
    scene.listener.start()
    sessions = []
    for run in held:
        session = psycopg2.connect(scene.url)
        session.cursor().execute("update dag_run set state = 'failed' where run_id = %s", (run,))
        sessions.append(session)
        scene.injected()
    scene.begin()
    wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
    for run, session in zip(held, sessions, strict=True):
        session.commit()
        scene.ordered[run] = time.monotonic()
        session.close()
        scene.pause()


def at_once(scene: Scene) -> None:
    """Every run has a group, and all of them are failed by one UPDATE."""
    runs = scene.keep(len(scene.runs))
    scene.listener.start()
    scene.fail(runs)
    scene.injected()
    scene.begin()


def doorbells(scene: Scene) -> None:
    """A stranger rings 20,000 times a second, for a minute or longer: until the last order is made."""
    scene.listener.start()
    until = time.monotonic() + scene.house.size.long
    with Ringer(scene.url, scene.server.socket_url(scene.database, ROLE)) as ringer:
        scene.pause(1.0, 2.0)
        scene.begin()
        wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
        scene.settle()
        time.sleep(max(0.0, until - time.monotonic()))
    scene.times = ringer.rung
    scene.note = f"{ringer.per_second():.0f} notices a second"


def two_listeners(scene: Scene) -> None:
    """One works, one waits: SIGKILL the one that works, and fail a run at that very moment."""
    runs = scene.keep(min(10, len(scene.groups) // 2), alive=True)
    working, waiting = scene.listener.start(), _waiting(scene, 1)
    took: list[float] = []
    scene.begin()
    for number, run in enumerate(runs):
        scene.pause(0.5, 1.0)
        begun = time.monotonic()
        working.kill()
        scene.fail([run])
        scene.injected()
        scene.wait_until_dead(run)
        took.append(scene.deaths.last(scene.doomed[run]) - begun)
        scene.listener = working = waiting  # its log says what went wrong, and it is ended with the scene
        waiting = _waiting(scene, number + 2)
    wait_until(lambda: not scene.ordering, 300, lambda: "the orders")
    waiting.kill()
    took.sort()
    scene.note = (
        f"take-over {took[len(took) // 2] * 1000:.0f} ms in the median, {took[-1] * 1000:.0f} ms at most"
    )


def _waiting(scene: Scene, number: int) -> Listener:
    listener = Listener(scene.tcp_url, scene.folder, docker_url=scene.docker_url)
    listener.log_path = scene.folder / f"listener{number}.log"
    return listener.start("connected")


MASS = "all groups failed by one UPDATE"
FAULTS: dict[str, Callable[[Scene], None]] = {
    "none": nothing,
    "listener killed at any instant": listener_killed,
    "listener killed between signal and report": listener_killed_amid,
    "two listeners, the working one killed": two_listeners,
    "a stranger rings the doorbell": doorbells,
    "connection cut": connection_cut,
    "Postgres restarted, -m immediate": postgres_restarted,
    "Postgres away": postgres_away,
    "network to Postgres black-holed": network_black_hole,
    "orders committed out of id order": out_of_order,
    "database's clock 10 min ahead": nothing,
    "database's clock 10 min behind": nothing,
    "Docker engine away": engine_stopped,
    "Docker engine restarted": engine_restarted,
    "Docker engine hung": engine_hung,
    "disk full for log and state": disk_full,
    MASS: at_once,
}
CLOCKS = {"database's clock 10 min ahead": 600, "database's clock 10 min behind": -600}
