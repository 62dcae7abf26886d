"""One Postgres, one crowd, and the two that are compared: dagstop's listener and the bare yardstick."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from dagstop.install import install
from tests.bench.crowd import Crowd, Group
from tests.support.airflow_tables import AirflowDatabase, schema_sql
from tests.support.fence import Fence
from tests.support.listener import Listener
from tests.support.watch import DeathWatch
from tests.testbed.postgres import Server, binaries, rows

SHAPE = "2.11.2"
CROWD = 400


class Stage:
    """What all subjects share. `quick`: fewer repetitions, for those who work on the bench itself."""

    def __init__(self, quick: bool, output: Path) -> None:
        self.quick = quick
        self.output = output
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-bench-"))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.crowd = Crowd()
        self.server = Server(binaries().get("pg15") or binaries()[max(binaries())])
        rows(self.server.url("postgres"), "alter system set max_connections = 400")
        self.server.halt()
        self.server.start()
        self.server.psql(self.server.create_database(name="bare"), schema_sql(SHAPE))
        install(self.server.create_database(template="bare", name="full"))

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.crowd.end()
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self, template: str) -> AirflowDatabase:
        """A copy of "full" (dagstop installed) or of "bare", or of another database made here."""
        return AirflowDatabase(self.server.create_database(template=template), SHAPE)

    def times(self, full: int) -> int:
        return max(3, full // 10) if self.quick else full


class Side:
    """One that stops runs: its database, and a session there that fails them as a person would."""

    name = ""

    def __init__(self, stage: Stage, template: str, fence: Fence | None = None) -> None:
        """fence: behind which it and its groups are to run."""
        self.stage = stage
        self.database = stage.database(template)
        self.within = fence.within() if fence is not None else []
        self.home = fence.home if fence is not None else stage.folder / f"{self.name}-home"
        self.home.mkdir(exist_ok=True)
        self.connection = psycopg2.connect(self.database.url)
        self.statement_ms = 0.0  # how long the last UPDATE itself took
        self.commit_ms = 0.0
        self.failed_at = 0.0  # time.monotonic() from just before that commit

    def add_runs(self, run_ids: Sequence[str], dag_id: str = "dag") -> None:
        """Running runs, each with one running task `a`."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "insert into dag_run (dag_id, run_id, state, execution_date, start_date, run_type)"
                " select %s, r, 'running', clock_timestamp() - n * interval '1 day', now(), 'manual'"
                " from unnest(%s) with ordinality as u (r, n)",
                (dag_id, list(run_ids)),
            )
            cursor.execute(
                "insert into task_instance (dag_id, run_id, task_id, state, try_number, hostname, pid, job_id,"
                " start_date, pool, pool_slots, operator) select %s, r, 'a', 'running', 1, 'host-1', 4194305, n, now(),"
                " 'default_pool', 1, 'BashOperator' from unnest(%s) with ordinality as u (r, n)",
                (dag_id, list(run_ids)),
            )
        self.connection.commit()

    def group(self, run_id: str, dag_id: str = "dag") -> Group:
        """What a task of that run would have started."""
        return Group(self.home, run_id, dag_id, self.within)

    def fail(self, column: str, value: str) -> float:
        """UPDATE dag_run; gives time.monotonic() from just before the commit."""
        begun = time.monotonic()
        with self.connection.cursor() as cursor:
            cursor.execute(f"update dag_run set state = 'failed' where {column} = %s", (value,))
            self.tell(cursor, column, value)
        before = self.failed_at = time.monotonic()
        self.connection.commit()
        self.statement_ms, self.commit_ms = (before - begun) * 1000, (time.monotonic() - before) * 1000
        return before

    def tell(self, cursor: psycopg2.extensions.cursor, column: str, value: str) -> None:
        """What the statement must say besides."""

    def kill(self, groups: Sequence[Group], column: str, value: str) -> float:
        """Fail it; milliseconds from the commit to the death of the last process of `groups`."""
        with DeathWatch([member for group in groups for member in group.members()]) as watch:
            before = self.fail(column, value)
            wait_for_deaths(watch)
            took = (watch.last() - before) * 1000
        for group in groups:
            group.end()
        return took


class Bare(Side):
    name = "bare"

    program = "tests.bench.bare"

    def __init__(self, stage: Stage, fence: Fence | None = None) -> None:
        super().__init__(stage, "bare", fence)
        words = [*self.within, sys.executable, "-m", self.program, self.database.url]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def tell(self, cursor: psycopg2.extensions.cursor, column: str, value: str) -> None:
        names = {"run_id": "AIRFLOW_CTX_DAG_RUN_ID", "dag_id": "AIRFLOW_CTX_DAG_ID"}
        cursor.execute("select pg_notify('bare', %s)", (f"{names[column]}={value}",))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


class Dagstop(Side):
    name = "dagstop"

    def __init__(
        self,
        stage: Stage,
        docker_url: str = "unix:///nowhere",
        *,
        trace: Path | None = None,
        fence: Fence | None = None,
        told: bool = True,
        program: Sequence[str] = ("dagstop",),
    ) -> None:
        """fence: behind which the kernel tells it of forks, if `told`. program: the module, and its first words."""
        super().__init__(stage, "full", fence)
        environment = {"BENCH_TRACE": str(trace)} if trace else {}
        within = fence.within(told=told) if fence is not None else []
        self.listener = Listener(
            self.database.url, self.home, docker_url=docker_url, fence=within, **environment
        )
        self.listener.command.remove("-v")
        at = self.listener.command.index("dagstop")
        self.listener.command[at : at + 1] = program if trace is None else ["tests.bench.traced"]
        self.listener.start()

    @property
    def pid(self) -> int:
        assert self.listener.process is not None
        return self.listener.process.pid

    def reported(self, count: int) -> None:
        """Until that many reports are final: what follows must not run beside their writing."""
        self.database.wait_until(
            f"select count(*) >= {count} from dagstop.report where outcome is not null", 60
        )

    def end(self) -> None:
        self.listener.kill()
        self.connection.close()


def wait_for_deaths(watch: DeathWatch, timeout: float = 60.0) -> None:
    until = time.monotonic() + timeout
    while left := watch.alive():
        if time.monotonic() > until:
            raise RuntimeError(f"still alive after {timeout} s: {left[:5]}")
        time.sleep(0.002)


@contextmanager
def both(stage: Stage) -> Iterator[tuple[Bare, Dagstop]]:
    """The yardstick and dagstop, idle side by side; measure them in turn."""
    bare, dagstop = Bare(stage), Dagstop(stage)
    try:
        yield bare, dagstop
    finally:
        bare.end()
        dagstop.end()


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of another process, to the nanosecond (clock_gettime(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
