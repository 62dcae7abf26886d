"""One fault's scene: runs with and without processes, a listener, orders made by UPDATE, and the verdict."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg2

from tests.chaos.people import DAG, Containers, Group, bystanders, tags
from tests.chaos.proxy import Proxy
from tests.chaos.verdict import Verdict, judge, wait_for_reports
from tests.support.listener import Listener
from tests.support.watch import DeathWatch, wait_until
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server, connect


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    orders: int
    groups: int
    containers: int
    bystanders: int
    seconds: float  # over which the orders are made
    long: float  # a long absence
    mass: int  # groups that are failed by one UPDATE


FULL = Size(orders=1000, groups=100, containers=20, bystanders=500, seconds=10, long=60, mass=2000)
SMALL = Size(orders=60, groups=12, containers=2, bystanders=16, seconds=1.5, long=4, mass=60)


@dataclass
class House:
    """What the faults share: a Postgres with a template database, and a Docker engine's containers."""

    server: Server
    template: str
    engine: Engine
    size: Size
    random: random.Random


@dataclass
class Scene:
    """Everything about one fault. All our own sessions go through Postgres's unix socket."""

    house: House
    server: Server
    name: str
    times: int = 0  # how often the fault was injected
    note: str = ""
    ordered: dict[str, float] = field(default_factory=dict)  # run_id -> time.monotonic() of its commit
    mass: bool = False  # every run has a group, but for two with a container
    clock_ahead: float = 0.0  # seconds that the database's clock is ahead of ours
    patience: float = 90.0

    def __post_init__(self) -> None:
        size = self.house.size
        if self.mass:
            size = replace(size, orders=size.mass + 2, groups=size.mass, containers=2)
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-chaos-"))
        self.proxy = Proxy(self.folder / "docker.sock", self.house.engine.url)
        self.docker_url = self.proxy.url
        url = self.server.create_database(template=self.house.template)
        self.database = url.rsplit("/", 1)[1]
        self.url, self.tcp_url = self.server.socket_url(self.database), url
        self.runs = [f"{self.name}_{number}" for number in range(size.orders)]
        self._add_runs()
        chosen = self.house.random.sample(self.runs, size.groups + size.containers)
        self.groups = {
            run: Group(self.folder, run, number) for number, run in enumerate(chosen[: size.groups])
        }
        self.strangers = bystanders(self.folder, self.runs, size.bystanders)
        self.containers = Containers(self.house.engine)
        self.inits = {run: self.containers.run(tags(self.folder, run)) for run in chosen[size.groups :]}
        self.foreign = [self.containers.run({"NOTE": "foreign"}) for _ in range(2)]
        for group in self.groups.values():
            group.settle()
        self.doomed = {run: group.members for run, group in self.groups.items()}
        self.doomed |= {run: [init] for run, (_, init) in self.inits.items()}
        self.deaths = DeathWatch([one for some in self.doomed.values() for one in some])
        self.listener = Listener(self.tcp_url, self.folder, docker_url=self.docker_url)
        self._kept: list[str] = []
        self.no_orders = threading.Lock()
        """Held by who wants none made for a while."""
        self._thread = threading.Thread(target=self._order, daemon=True)
        self._broken: Exception | None = None

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.listener.process, *self.strangers):
            if process is not None:
                process.kill()
                process.wait()
        for group in self.groups.values():
            group.end()
        self.containers.end()
        self.proxy.close()
        self.deaths.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, count: int, *, alive: bool = False) -> list[str]:
        """Runs that the fault orders itself; `alive`: such as have a group."""
        of = [run for run in (self.groups if alive else self.runs) if run not in self._kept]
        self._kept += of[:count]
        return of[:count]

    def begin(self) -> None:
        """Start to make the orders, in a thread, at random moments."""
        self._thread.start()

    @property
    def ordering(self) -> bool:
        return self._thread.is_alive()

    def pause(self, least: float = 0.0, most: float = 0.5) -> None:
        """A random time; the whole point is that nobody chose the instant."""
        time.sleep(self.house.random.uniform(least, most))

    def injected(self) -> None:
        self.times += 1

    def fail(self, runs: Sequence[str]) -> None:
        """What a person types, again until it is committed. Raises only what no absence explains."""
        while True:
            try:
                with connect(self.url) as connection, connection.cursor() as cursor:
                    cursor.execute(
                        "update dag_run set state = 'failed' where run_id = any (%s) and state = 'running'",
                        (list(runs),),
                    )
                break
            except psycopg2.Error as exc:
                # a server that goes during a statement is sometimes a plain DatabaseError, without a code
                if exc.pgcode is not None and not isinstance(exc, psycopg2.OperationalError):
                    raise
                time.sleep(0.05)
        moment = time.monotonic()
        self.ordered.update(dict.fromkeys(runs, moment))

    def wait_until_dead(self, run: str) -> None:
        """Until nothing of a run lives."""
        members = self.doomed[run]
        wait_until(
            lambda: all(p.identity in self.deaths.deaths for p in members),
            self.patience,
            lambda: str(members),
        )

    def settle(self) -> None:
        """Wait for the last report, as long as a verdict would."""
        wait_for_reports(self)

    def all_reported(self) -> bool:
        """Whether each order made so far has its final report."""
        with connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select not exists (select from dagstop.stop_order o where not exists"
                " (select from dagstop.report r where r.order_id = o.id and r.outcome is not null))"
            )
            (done,) = cursor.fetchone() or (False,)
        return bool(done)

    def verdict(self) -> Verdict:
        """Wait for the last order, then for the last report; count."""
        self._thread.join(300)
        if self._broken is not None:
            raise self._broken
        assert not self._thread.is_alive(), "the orders could not be made"
        return judge(self)

    def _order(self) -> None:
        runs = [run for run in self.runs if run not in self._kept]
        batches = max(4, min(100, len(runs) // 5))
        try:
            for number in range(batches):
                with self.no_orders:
                    self.fail(runs[number::batches])
                self.pause(0.0, 2 * self.house.size.seconds / batches)
        except Exception as exc:
            self._broken = exc

    def _add_runs(self) -> None:
        """Running ones; the recorded pid is more than Linux gives: a bystander's would leave it in doubt."""
        with connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "insert into dag_run (dag_id, run_id, state, execution_date, start_date, run_type)"
                " select %s, r, 'running', now() - n * interval '1 hour', now(), 'manual'"
                " from unnest(%s) with ordinality as u (r, n)",
                (DAG, self.runs),
            )
            cursor.execute(
                "insert into task_instance (dag_id, run_id, task_id, state, try_number, hostname, pid, job_id,"
                " start_date, pool, pool_slots, operator) select %s, r, 'a', 'running', 1, 'host-1', 4194305, n,"
                " now(), 'default_pool', 1, 'BashOperator' from unnest(%s) with ordinality as u (r, n)",
                (DAG, self.runs),
            )
