"""A real CeleryExecutor: Redis, a scheduler, and two workers on hosts of their own; one worker dies first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dagstop.install import install
from tests.conftest import require_packages
from tests.support.hosts import ADDRESS, HOME, NETWORK, Host, Switch
from tests.support.listener import query
from tests.support.watch import hold, wait_until
from tests.testbed import airflows, environment, proc
from tests.testbed.postgres import Server, binaries, free_port

pytestmark = pytest.mark.e2e
VERSION = "2.11.2-celery"
WORKERS = ("w1", "w2")
START_SECONDS = 240.0
DEATH_SECONDS = 60.0


@dataclass
class Site:
    """The hosts by name, and the URL by which the tests reach the database."""

    hosts: dict[str, Host]
    url: str
    logs: Path
    airflow: Path
    environment: dict[str, str]
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, host: str, name: str, *words: str) -> None:
        """Start a command on a host with Airflow's environment; its output is kept."""
        process = self.hosts[host].start(words, self.environment, self.logs / f"{host}-{name}.log")
        self.started[f"{host}-{name}"] = process

    def alive(self) -> bool:
        """True; raises as soon as one of the daemons has ended."""
        ended = [name for name, process in self.started.items() if process.poll() is not None]
        assert not ended, f"{ended} ended:\n{self.said()}"
        return True

    def rows(self, text: str, *values: Any) -> list[dict[str, Any]]:
        return query(self.url, text, values)

    def states(self, run: str) -> dict[str, str]:
        found = self.rows("select task_id, state, hostname from task_instance where run_id = %s", run)
        return {f"{row['task_id']} {row['hostname']}": row["state"] for row in found}

    def said(self) -> str:
        """The ends of all logs."""
        ends = ((path.name, path.read_text(errors="replace")[-2500:]) for path in sorted(self.logs.iterdir()))
        return "\n".join(f"== {name}\n{end}" for name, end in ends)

    def on(self, host: str) -> list[proc.Process]:
        """All that lives on a host but its pid 1."""
        init = self.hosts[host].init
        return [p for p in proc.everyone() if p.pid != init and _namespace(p.pid) == _namespace(init)]


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # gone
        return ""


def asleep(run: str) -> set[str]:
    """The first arguments, less the run's digits, of its living sleeps."""
    digits = run.rpartition("_")[2]
    words = (
        p.command[1] for p in proc.everyone() if p.state != "Z" and p.command[0] == "sleep" and p.command[1:]
    )
    return {w.partition(".")[0] for w in words if re.fullmatch(rf"60[89][12]\.{digits}", w)}


ALL = {"6081", "6091", "6082", "6092"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_packages("redis-server", "iproute2")
    venv, logs = airflows.build(VERSION), tmp_path_factory.mktemp("celery")
    port = free_port()
    with Switch() as switch:
        hosts = {name: Host(name) for name in (*WORKERS, "control")}
        for host in hosts.values():
            switch.plug(host)
        with switch.inside():
            server = Server(list(binaries().values())[-1], network=NETWORK, max_connections=300)
            server.create_database(name="airflow")
            with (logs / "redis.log").open("ab") as log:
                words = [
                    "redis-server",
                    "--port",
                    str(port),
                    "--bind",
                    ADDRESS,
                    "--save",
                    "",
                    "--protected-mode",
                    "no",
                ]
                redis = subprocess.Popen(words, cwd=logs, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        url = f"postgresql://postgres@{ADDRESS}:{server.port}/airflow"
        variables = environment.variables(
            VERSION, venv=venv, home=Path(HOME), dags=Path(__file__).parent / "celery_dags", database_url=url,
            port=8080, log_port=8793, parallelism=16, docker_url=None, policy=False,
        )  # fmt: skip
        variables |= {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://{ADDRESS}:{port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
        }
        found = Site(hosts, server.socket_url("airflow"), logs, venv / "bin" / "airflow", variables)
        try:
            _bring_up(found, switch, server, url)
            yield found
            print(found.said())
        finally:
            redis.kill()
            redis.wait()
            server.stop()


def _bring_up(site: Site, switch: Switch, server: Server, url: str) -> None:
    airflow = str(site.airflow)
    done = subprocess.run(
        [*site.hosts["control"].enter, airflow, "db", "migrate"], env=site.environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with switch.inside():
        install(server.url("airflow"))
    site.start("control", "scheduler", airflow, "scheduler")
    for name in WORKERS:
        listen = [
            sys.executable,
            "-m",
            "dagstop",
            "listen",
            f"--database-url={url}",
            f"--airflow-home={HOME}",
        ]
        site.start(name, "listener", *listen, "--state-dir=/srv/dagstop", "--docker-url=unix:///nowhere")
        site.start(
            name, "worker", airflow, "celery", "worker", "-q", name, "--skip-serve-logs", "--without-gossip"
        )
    listeners, dag = "select 1 from dagstop.listener", "select 1 from dag where dag_id = 'spread'"
    wait_until(lambda: site.alive() and len(site.rows(listeners)) == 2, START_SECONDS, site.said)
    wait_until(lambda: site.alive() and site.rows(dag), START_SECONDS, site.said)


def test_the_orphans_of_a_dead_worker_die_with_the_run(site: Site) -> None:
    runs = ("spread_7001", "spread_7002")
    for day, run in enumerate(runs, 1):  # two triggered in the same second would have the same date
        trigger = ("dags", "trigger", "spread", "-r", run, "-e", f"2024-01-0{day}")
        site.start("control", run, str(site.airflow), *trigger)
    running = {"on_w1 w1": "running", "on_w2 w2": "running"}
    wait_until(lambda: all(asleep(run) == ALL for run in runs), START_SECONDS, site.said)
    wait_until(lambda: all(site.states(run) == running for run in runs), START_SECONDS, site.said)

    python = os.path.realpath(site.airflow.parent / "python")
    while airflow := [p for p in site.on("w1") if p.executable == python and "listen" not in p.command]:
        proc.send(airflow, signal.SIGKILL)  # the worker, its pool, supervisors and runners
    assert asleep(runs[0]) == asleep(runs[1]) == ALL  # orphans there now

    site.rows("update dag_run set state = 'failed' where run_id = %s", runs[0])
    failed = {"on_w1 w1": "failed", "on_w2 w2": "failed"}
    assert site.states(runs[0]) == failed
    wait_until(lambda: not asleep(runs[0]), DEATH_SECONDS, site.said)
    reports = (
        "select r.host, r.outcome from dagstop.report r join dagstop.stop_order o on o.id = r.order_id"
        " where o.kind = 'run' and o.run_id = %s and r.outcome is not null order by r.host"
    )
    wait_until(lambda: len(site.rows(reports, runs[0])) == 2, DEATH_SECONDS, site.said)
    assert [row["outcome"] for row in site.rows(reports, runs[0])] == ["stopped", "stopped"], site.said()

    def look() -> None:
        assert site.states(runs[0]) == failed, site.said()
        assert asleep(runs[0]) == set() and asleep(runs[1]) == ALL, site.said()

    hold(look, 5)
    assert site.rows(reports, runs[1]) == []
