"""One run of a backfill is failed: the others succeed, and the failed one only where the user asks for it."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.never_breaks.logs import troubles
from tests.e2e.never_breaks.tasks import START_SECONDS, closed, dead
from tests.e2e.site import Site, marked
from tests.testbed import proc

pytestmark = pytest.mark.e2e

DAYS = ("2024-01-02", "2024-01-03")


def test_a_backfill(site: Site) -> None:
    airflow = site.airflow
    first = begun(site)
    by_day = waiting(site)
    victim, other = (run for run, _ in (by_day[day] for day in DAYS))
    airflow.fail_run_by_sql("backfilled", victim)
    dead(site, by_day[DAYS[0]][1])
    closed(site, "backfilled", victim)
    assert all(p.alive() for p in by_day[DAYS[1]][1]), site.listener_log()
    (airflow.home / "marks").mkdir(exist_ok=True)
    (airflow.home / "marks" / "go").touch()
    airflow.wait_for(lambda: states(site, other) == ("success", "success"), "backfilled", START_SECONDS)
    over(site, first)
    assert states(site, victim) == ("failed", "failed")

    # again, without asking for what failed
    through(site, "backfill_again")
    airflow.wait_for(lambda: states(site, victim) == ("failed", "failed"), "left alone", START_SECONDS)
    assert states(site, other) == ("success", "success")

    closed(site, "backfilled", victim)
    through(site, "backfill_failed", rerun=True)
    airflow.wait_for(lambda: states(site, victim) == ("success", "success"), "rerun", START_SECONDS)
    for log in ("backfill_first", "backfill_again", "backfill_failed"):
        assert troubles(airflow.printed(log)) == [], log


def begun(site: Site) -> subprocess.Popen[bytes]:
    """A backfill of which both days run.

    It is begun again if it breaks off at once: 2.x's forked workers close a connection that they share with
    it (LocalWorkerBase.run disposes of the pool), and now and then it was about to use that.
    """
    for _ in range(3):
        backfill = begin(site, "backfill_first")

        def ended(backfill: subprocess.Popen[bytes] = backfill) -> bool:
            return site.airflow.generation < 3 and backfill.poll() is not None

        site.airflow.wait_for(
            lambda ended=ended: ended() or set(waiting(site)) == set(DAYS), "both days running", START_SECONDS
        )
        if not ended():
            return backfill
        assert broke_off(site, "backfill_first"), site.airflow.printed("backfill_first")
    raise AssertionError("it broke off three times")


def through(site: Site, log: str, *, rerun: bool = False) -> None:
    """A backfill from its beginning to its end, begun again if it breaks off."""
    for _ in range(3):
        over(site, begin(site, log, rerun=rerun))
        if not broke_off(site, log):
            return
    raise AssertionError("it broke off three times")


def broke_off(site: Site, log: str) -> bool:
    """Whether its connection was closed by its own workers; then its log is forgotten."""
    if site.airflow.generation != 2:
        return False
    if "server closed the connection unexpectedly" not in site.airflow.printed(log):
        return False
    site.airflow.forget(log)
    return True


def begin(site: Site, log: str, *, rerun: bool = False) -> subprocess.Popen[bytes]:
    """Start a backfill of both days, as people do."""
    first, last = DAYS
    if site.airflow.generation == 1:
        again = ["--rerun_failed_tasks"] if rerun else []
        return site.airflow.begin(log, "backfill", "-s", first, "-e", last, *again, "backfilled")
    if site.airflow.generation == 2:
        again = ["--rerun-failed-tasks"] if rerun else []
        return site.airflow.begin(log, "dags", "backfill", "-s", first, "-e", last, *again, "backfilled")
    command = ["backfill", "create", "--dag-id", "backfilled", "--from-date", first, "--to-date", last]
    return site.airflow.begin(log, *command, "--reprocess-behavior", "failed" if rerun else "none")


def over(site: Site, backfill: subprocess.Popen[bytes]) -> None:
    """Wait until it is; its exit code says whether all of it succeeded."""
    airflow = site.airflow
    airflow.wait_for(lambda: backfill.poll() is not None, "through its backfill", START_SECONDS)
    if airflow.generation == 3:  # the scheduler carries it out
        left = "SELECT 1 FROM backfill WHERE completed_at IS NULL"
        airflow.wait_for(lambda: not airflow.query(left), "through its backfill", START_SECONDS)


def waiting(site: Site) -> dict[str, tuple[str, list[proc.Process]]]:
    """By day: its run, and the processes of its task."""
    column = "logical_date" if site.airflow.generation == 3 else "execution_date"
    day = f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day"
    runs = site.airflow.query(f"SELECT run_id, {day} FROM dag_run WHERE dag_id = 'backfilled'")
    found = {row["day"]: (row["run_id"], marked(row["run_id"])) for row in runs}
    return {
        day: (run, processes)
        for day, (run, processes) in found.items()
        if day in DAYS and processes and site.airflow.task_states(run) == {"waits": "running"}
    }


def states(site: Site, run: str) -> tuple[str | None, str | None]:
    """Of the run and of its task."""
    state = site.airflow.run("backfilled", run)["state"]
    return state, site.airflow.task_states(run).get("waits")
