"""Airflow is upgraded underneath dagstop, with Airflow's own commands, from 1.10 to 2.x to 3.x.

Its 2.2.0 migration drops task_instance and creates it again: our triggers are lost with it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import plain_environment
from tests.testbed import airflows
from tests.testbed.airflow import Airflow
from tests.testbed.postgres import Server, connect, rows

pytestmark = pytest.mark.e2e

OLD, MIDDLE, NEW = "1.10.15", "2.11.2", "3.3.2"
DAG = "upgraded"
RUNS = (
    "in_old",
    "lost_in_middle",
    "healed_in_middle",
    "task_in_middle",
    "in_new",
    "task_in_new",
    "left_alone",
)
FINISHED = ("success", "failed", "skipped", "upstream_failed")
UNFINISHED = (None, "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule", "shutdown")
EVERYTHING = [*FINISHED, *UNFINISHED]
GIVEN_WAY = {("cascade_statement", "55P03")}  # lock_not_available
IMPATIENT = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''10ms''', current_database()); END $$
"""
LOST = {f"trigger task_instance.dagstop_{name}" for name in ("order", "fence", "deleted")}
_FILL = """
INSERT INTO dag (dag_id, is_paused, is_active, schedule_interval) VALUES (%(dag)s, false, true, 'null');
INSERT INTO dag_run (dag_id, run_id, execution_date, start_date, state, external_trigger)
SELECT %(dag)s, r.run_id, timestamptz '2021-03-01 00:00:00.5+00' + r.number * interval '1 day', now(), 'running', true
FROM unnest(%(runs)s::text[]) WITH ORDINALITY AS r (run_id, number);
INSERT INTO task_instance
    (task_id, dag_id, execution_date, start_date, end_date, duration, state, try_number, max_tries, hostname,
     unixname, job_id, pool, pool_slots, queue, priority_weight, operator, pid)
SELECT coalesce(s.state, 'none'), d.dag_id, d.execution_date, now() - interval '1 hour',
    CASE WHEN s.state = ANY (%(finished)s::text[]) THEN now() - interval '30 minutes' END, NULL, s.state, 1, 2,
    'worker', 'airflow', 1, 'default_pool', 1, 'default', 1, 'BashOperator', 4711
FROM dag_run d CROSS JOIN unnest(%(states)s::text[]) AS s (state)
"""


class Site:
    """One metadata database, and the Airflows that bring it from release to release."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder

    def migrate(self, version: str) -> None:
        """Airflow's own `initdb` or `db migrate`, of that release; raises AirflowFailed if it fails."""
        dags = Path(str(files("tests.testbed"))) / "dags"
        home = self._folder / version
        Airflow(version, airflows.build(version), home, self.url, dags=dags).migrate()

    def dagstop(self, *arguments: str, code: int = 0) -> str:
        """Run a dagstop command on this database; its output."""
        command = [sys.executable, "-m", "dagstop", *arguments, "--database-url", self.url]
        done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def lost(self) -> set[str]:
        """What `check` calls not in order, but for the listener that runs nowhere here."""
        found = json.loads(self.dagstop("check", "--json", code=1))["findings"]
        bad = {finding["name"]: finding for finding in found if not finding["ok"]}
        assert bad.pop("listeners")["said"] == "none is alive"
        assert bad.pop("host worker")["said"].startswith("Airflow runs ")
        missing = {name for name, finding in bad.items() if name.startswith("trigger ")}
        assert all(bad[name]["said"] == "missing" for name in missing), bad
        assert all(bad[name]["do"] == "run `dagstop install`" for name in missing), bad
        return set(bad)

    def states(self, run: str) -> dict[str, str | None]:
        """State by task id, whatever the release."""
        key = "run_id" if self.has("task_instance", "run_id") else "execution_date"
        found = rows(
            self.url,
            f"SELECT t.task_id, t.state FROM task_instance t JOIN dag_run r ON r.dag_id = t.dag_id"
            f" AND r.{key} = t.{key} WHERE r.run_id = %s",
            (run,),
        )
        return {str(task): state for task, state in found}

    def orders(self, run: str) -> list[tuple[Any, ...]]:
        """(kind, cascaded, task ids of its targets, whether each has a uuid) of each order."""
        return rows(
            self.url,
            "SELECT o.kind, o.cascaded, array_agg(t.task_id ORDER BY t.task_id), bool_and(t.ti_id IS NOT NULL)"
            " FROM dagstop.stop_order o LEFT JOIN dagstop.stop_target t ON t.order_id = o.id"
            " WHERE o.run_id = %s GROUP BY o.id ORDER BY o.id",
            (run,),
        )

    def has(self, table: str, column: str) -> bool:
        """Whether the table has that column in the release of now."""
        found = rows(
            self.url,
            "SELECT 1 FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s AND NOT attisdropped",
            (table, column),
        )
        return bool(found)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the Airflows of this test live; short-lived and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dagstop-upgrade-") as name:
        yield Path(name)


def test_airflow_upgraded_underneath(airflow_server: Server, folder: Path) -> None:
    site = Site(airflow_server.create_database(), folder / "site")
    site.migrate(OLD)
    fill(site)
    untouched = Site(
        airflow_server.create_database(template=site.url.rsplit("/", 1)[1]), folder / "untouched"
    )
    site.dagstop("install")
    assert site.lost() == set()

    # as a DBA's or a pooler's session: it lives through it all, with every plan it has cached
    with connect(site.url) as session:
        fail_run(session, site, "in_old")

        site.migrate(MIDDLE)
        assert site.has("task_instance", "run_id")
        assert site.lost() == LOST
        fail_run(session, site, "lost_in_middle")
        fail_task(session, "task_in_middle")
        assert site.orders("task_in_middle") == []  # what is lost cannot write; no error either
        site.dagstop("install")
        assert site.lost() == set()
        fail_run(session, site, "healed_in_middle")
        fail_task(session, "task_in_middle", "queued")
        assert site.orders("task_in_middle") == [("task", True, ["queued"], False)]

        site.migrate(NEW)
        assert site.has("task_instance", "id")
        assert site.lost() == set()
        fail_run(session, site, "in_new")
        assert "nothing changed" in site.dagstop("install")
        fail_task(session, "task_in_new")
        assert site.orders("task_in_new") == [("task", True, ["running"], True)]
        assert refused(session, "task_in_new")

    before = dict.fromkeys(state or "none" for state in EVERYTHING)
    assert site.states("left_alone") == before | {state: state for state in EVERYTHING if state}
    # a host that was away through it all carries the orders of every shape out
    home, memory = str(folder / "site" / NEW), str(folder / "memory")
    site.dagstop("listen", "--once", "--airflow-home", home, "--state-dir", memory, "--host", "away")
    reports = rows(site.url, "SELECT run_id, outcome, closed_at IS NOT NULL FROM dagstop.history")
    assert sorted(reports) == sorted((run, "nothing_found", True) for run in RUNS if run != "left_alone")
    assert rows(site.url, "SELECT * FROM dagstop.fault") == []

    site.dagstop("uninstall")
    for version in (MIDDLE, NEW):
        untouched.migrate(version)
    assert airflow_server.dump(site.url) == airflow_server.dump(untouched.url)


def test_runs_marked_failed_while_airflow_migrates(airflow_server: Server, folder: Path) -> None:
    site = Site(airflow_server.create_database(), folder)
    site.migrate(OLD)
    fill(site)
    site.dagstop("install")
    rows(site.url, IMPATIENT)  # so that a deadlock is found whenever there is one
    for version in (MIDDLE, NEW):
        with clicking(site, "in_old"):
            site.migrate(version)  # raises if a deadlock with us is its end
        site.dagstop("install")
    rows(site.url, "CALL dagstop.do_chores()")
    heartbeat = "SELECT triggers_ok FROM dagstop.heartbeat('host', gen_random_uuid(), '1', '{}')"
    assert rows(site.url, heartbeat) == [(True,)]
    open_orders = "SELECT count(*) FROM dagstop.stop_order WHERE NOT cascaded"
    assert rows(site.url, open_orders) == [(0,)]
    assert set(site.states("in_old").values()) <= set(FINISHED)
    # the cascade waits for the heartbeat rather than for the migration
    assert set(rows(site.url, "SELECT place, sqlstate FROM dagstop.fault")) <= GIVEN_WAY


@contextlib.contextmanager
def clicking(site: Site, run: str) -> Iterator[None]:
    """Somebody who marks the run failed, and running, and failed, all the while; no error meets him."""
    enough = threading.Event()

    def click() -> int:
        count = 0
        with connect(site.url) as session, session.cursor() as cursor:
            while not enough.wait(0.01):
                for state in ("running", "failed"):
                    cursor.execute("UPDATE dag_run SET state = %s WHERE run_id = %s", (state, run))
                    count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        clicks = pool.submit(click)
        try:
            yield
        finally:
            enough.set()
        assert clicks.result(30) > 0


def fill(site: Site) -> None:
    """RUNS, each with a task instance in every state, named after it."""
    values = {"dag": DAG, "runs": list(RUNS), "finished": list(FINISHED), "states": EVERYTHING}
    rows(site.url, _FILL, values)


def fail_run(session: Any, site: Site, run: str) -> None:
    """The one UPDATE; its order is written and its cascade is whole, whatever the shape of the tables."""
    with session.cursor() as cursor:
        cursor.execute("UPDATE dag_run SET state = 'failed' WHERE dag_id = %s AND run_id = %s", (DAG, run))
        assert cursor.rowcount == 1
    open_before = sorted(state or "none" for state in UNFINISHED)
    uuids = site.has("task_instance", "id")
    assert site.orders(run) == [("run", True, open_before, uuids)]
    assert site.states(run) == dict.fromkeys(open_before, "failed") | {state: state for state in FINISHED}


def fail_task(session: Any, run: str, task: str = "running") -> None:
    """What a person types to fail one task instance."""
    with session.cursor() as cursor:
        cursor.execute(
            "UPDATE task_instance SET state = 'failed' WHERE dag_id = %s AND run_id = %s AND task_id = %s",
            (DAG, run, task),
        )
        assert cursor.rowcount == 1


def refused(session: Any, run: str) -> bool:
    """Whether the fence holds: the dying task wants another try."""
    with session.cursor() as cursor:
        cursor.execute(
            "UPDATE task_instance SET state = 'up_for_retry' WHERE run_id = %s AND task_id = 'running'",
            (run,),
        )
        cursor.execute("SELECT state FROM task_instance WHERE run_id = %s AND task_id = 'running'", (run,))
        return bool(cursor.fetchall() == [("failed",)])
