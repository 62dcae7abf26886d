"""What the tests in this folder wait for, and what a person types."""

from __future__ import annotations

from tests.e2e.site import Site, is_runner, marked
from tests.support.watch import wait_until
from tests.testbed import proc

LONG = frozenset({"6030", "6031"})  # what `long` starts
START_SECONDS = 240.0
DEATH_SECONDS = 120.0
QUIET_SECONDS = 10.0


def started(site: Site, run: str, besides: list[proc.Process] | None = None) -> list[proc.Process]:
    """What `long` started, once all of it is there; `besides` is of an earlier try."""
    earlier = {p.identity for p in besides or ()}
    found: list[proc.Process] = []

    def there() -> bool:
        found[:] = [p for p in marked(run) if p.identity not in earlier and number(p) in LONG]
        return {number(p) for p in found} == LONG and state(site, run) == "running"

    site.airflow.wait_for(there, f"running {run}", START_SECONDS)
    return found


def runners(site: Site, run: str) -> list[proc.Process]:
    """Airflow's own processes that run a task of the run."""
    keys = site.keys(run)
    return [p for p in proc.everyone() if is_runner(p) and keys & set(" ".join(p.command).split())]


def heard(site: Site, dag: str, run: str) -> None:
    """Wait until the scheduler knows how `long` ended: 1.10.0's names no try, and would think that of a new one."""
    said = f"Executor reports {dag}.long execution_date={site.airflow.date(dag, run)} "
    logs = site.airflow.home / "output"
    if site.release == "1.10.0":
        site.airflow.wait_for(
            lambda: any(said in path.read_text(errors="replace") for path in logs.glob("*.log")),
            "told of the old try's end",
        )


def number(process: proc.Process) -> str:
    """What tells what a process belongs to."""
    return process.command[1].partition(".")[0]


def state(site: Site, run: str) -> str | None:
    """The state of `long`."""
    return site.airflow.task_states(run).get("long")


def fail(site: Site, dag: str, run: str, kind: str) -> None:
    """What a person types."""
    if kind == "run":
        site.airflow.fail_run_by_sql(dag, run)
        return
    column = "execution_date" if site.airflow.generation == 1 else "run_id"
    failed = site.airflow.execute(
        f"UPDATE task_instance SET state = 'failed' WHERE dag_id = %s AND task_id = 'long' AND {column} ="
        f" (SELECT {column} FROM dag_run WHERE dag_id = %s AND run_id = %s)",
        (dag, dag, run),
    )
    assert failed == 1


def dead(site: Site, processes: list[proc.Process]) -> None:
    """Wait until they are."""
    wait_until(lambda: not any(p.alive() for p in processes), DEATH_SECONDS, site.listener_log)


def closed(site: Site, dag: str, run: str) -> None:
    """Wait until no order of the run is open."""
    open_ones = "SELECT 1 FROM dagstop.stop_order WHERE dag_id = %s AND run_id = %s AND closed_at IS NULL"
    wait_until(lambda: not site.airflow.query(open_ones, (dag, run)), DEATH_SECONDS, site.listener_log)
