"""Four hosts with namespaces of their own, one Postgres, a listener on three of them; one run on all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dagstop.install import install
from tests.conftest import missing
from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase, schema_sql
from tests.support.hosts import ADDRESS, HOME, Host, HostsError, Switch
from tests.support.listener import dagstop, query
from tests.support.tasks import RUNNER, find, wait_for
from tests.support.watch import wait_until
from tests.testbed.postgres import Server, binaries

pytestmark = pytest.mark.server

SHAPE = "2.11.2"
NAMES = ("w1", "w2", "w3", "w4")
LISTENING = NAMES[:3]
PATIENCE = 60.0


@dataclass
class Site:
    """The switch with its hosts, and the database that all of them see."""

    switch: Switch
    hosts: dict[str, Host]
    db: AirflowDatabase
    logs: Path

    def run(self, number: int, on: tuple[str, ...] = NAMES) -> None:
        """A run with one task on each of these hosts: a runner, and its bash group."""
        run = f"run{number}"
        self.db.add_run(run_id=run, date=FIRST_DATE + timedelta(days=number))
        for place, name in enumerate(on):
            task = f"t{number}_{name}"
            self.db.add_task(task, run_id=run, pid=99999, hostname=name, job_id=number * 10 + place)
            title = f"airflow task runner: dag {task} {run} {number * 10 + place}"
            child = f"trap '' TERM; {self.sleep(number, name)}; true"
            self.hosts[name].start(
                [sys.executable, "-c", RUNNER, title, "session", child],
                {"AIRFLOW_HOME": HOME, "AIRFLOW_CTX_DAG_ID": "dag", "AIRFLOW_CTX_DAG_RUN_ID": run,
                 "AIRFLOW_CTX_TASK_ID": task, "AIRFLOW_CTX_TRY_NUMBER": "1"},
            )  # fmt: skip
        for name in on:
            wait_for(self.sleep(number, name), timeout=PATIENCE)

    @staticmethod
    def sleep(number: int, name: str) -> str:
        """What a run's task sleeps on a host."""
        return f"sleep 79{number}{name[1:]}"

    def alive(self, number: int) -> set[str]:
        """The hosts on which something of a run lives."""
        titles = {name: f"airflow task runner: dag t{number}_{name} run{number}" for name in NAMES}
        return {
            name for place, name in enumerate(NAMES)
            if find(self.sleep(number, name)) or find(f"{titles[name]} {number * 10 + place}")
        }  # fmt: skip

    def outcomes(self, number: int) -> dict[str, Any]:
        """What each host reported on a run."""
        text = ("select r.host, r.outcome from dagstop.report r join dagstop.stop_order o on o.id = r.order_id"
                " where o.run_id = %s")  # fmt: skip
        return {row["host"]: row["outcome"] for row in query(self.db.url, text, (f"run{number}",))}

    def said(self) -> str:
        """What the listeners logged."""
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.logs.glob("*.log")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    assert os.environ.get("DAGSTOP_TEST_NAMESPACE"), "run the tests through tests.testbed.namespace"
    logs = tmp_path_factory.mktemp("hosts")
    server = None
    try:
        with Switch() as switch:
            hosts = {name: Host(name) for name in NAMES}
            for host in hosts.values():
                switch.plug(host)
            with switch.inside():
                server = Server(list(binaries().values())[-1], network=f"{ADDRESS}/24")
                url = server.create_database(name="hosts")
                server.psql(url, schema_sql(SHAPE))
                install(url)
                server.psql(url, "create role listener login in role dagstop_listener")
            db = AirflowDatabase(server.socket_url("hosts"), SHAPE)
            for name in LISTENING:
                options = [f"--database-url=postgresql://listener@{ADDRESS}:{server.port}/hosts"]
                options += [
                    f"--airflow-home={HOME}",
                    "--state-dir=/srv/dagstop",
                    "--docker-url=unix:///nowhere",
                ]
                hosts[name].start(
                    [sys.executable, "-m", "dagstop", "listen", *options], {}, logs / f"{name}.log"
                )
            found = Site(switch, hosts, db, logs)
            live = "select count(*) = 3 from dagstop.listener"
            wait_until(lambda: bool(db.one(live)), PATIENCE, found.said)
            yield found
            print(found.said())
    except HostsError as exc:
        missing(exc)
    finally:
        if server is not None:
            server.stop()


def test_a_run_on_many_hosts_dies_on_each(site: Site) -> None:
    site.run(1)
    site.run(2)
    checked = dagstop("check", "--database-url", site.db.url, check=False).stdout
    assert "host w4" in checked and not any(f"host {name}" in checked for name in LISTENING), checked
    done = dagstop("stop", "dag", "run1", "--wait", "--database-url", site.db.url, check=False)
    assert done.returncode == 1 and "without a listener, so nobody looked: w4" in done.stdout, done
    assert site.outcomes(1) == dict.fromkeys(LISTENING, "stopped"), site.said()
    assert site.alive(1) == {"w4"}
    assert site.alive(2) == set(NAMES)  # the same pids, titles and DAG there
    assert {row["host"] for row in query(site.db.url, "select host from dagstop.listener")} == set(LISTENING)


def test_what_is_cut_off_stops_once_it_is_back(site: Site) -> None:
    site.run(3, LISTENING)
    with site.switch.cut_off(site.hosts["w3"]):
        site.db.set_run("failed", "run3")
        wait_until(lambda: site.alive(3) == {"w3"}, PATIENCE, site.said)
        done = dagstop(
            "stop", "dag", "run3", "--wait", "--timeout", "1", "--database-url", site.db.url, check=False
        )
        assert done.returncode == 1 and "waiting for: w3" in done.stdout, done
        assert site.outcomes(3) == {"w1": "stopped", "w2": "stopped"}
        assert site.alive(3) == {"w3"}
    wait_until(lambda: not site.alive(3), PATIENCE, site.said)
    closed = "select bool_and(closed_at is not null) from dagstop.stop_order where run_id = 'run3'"
    wait_until(lambda: bool(site.db.one(closed)), PATIENCE, site.said)
    assert site.outcomes(3) == dict.fromkeys(LISTENING, "stopped")


def test_a_host_that_was_away_for_longer_than_it_counts_as_live_stops_too(site: Site) -> None:
    site.run(4, LISTENING)
    try:
        site.db.rows("update dagstop.setting set value = '2' where name = 'live_seconds'")
        with site.switch.cut_off(site.hosts["w2"]):
            site.db.wait_until(
                "select seen_at < now() - interval '3 seconds' from dagstop.listener where host = 'w2'",
                PATIENCE,
            )
            done = dagstop(
                "stop", "dag", "run4", "--wait", "--timeout", "2", "--database-url", site.db.url, check=False
            )
            assert done.returncode == 1 and "nobody looked: " in done.stdout and "w2" in done.stdout, done
            assert site.alive(4) >= {"w2"}
        wait_until(lambda: not site.alive(4), PATIENCE, site.said)
        wait_until(lambda: site.outcomes(4) == dict.fromkeys(LISTENING, "stopped"), PATIENCE, site.said)
    finally:
        site.db.rows("update dagstop.setting set value = '60' where name = 'live_seconds'")
