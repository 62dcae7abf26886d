"""A real Airflow with dagstop at work, runs for the cells to fail, and what must be spared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from dagstop import policy
from dagstop.lab import airflows, proc
from dagstop.lab.airflow import Airflow
from dagstop.lab.docker_engine import IMAGE, Engine
from tests.support.watch import wait_until

DAG = "stubborn"
LEFT_ALONE = "e2e_6100"  # a run that nobody fails
SLEEPS = ("6001", "6002", "6003", "6004", "6005", "6006")  # see dagstop/lab/dags/stubborn.py
CONTAINER = "6007"
_ORDERS = """
SELECT o.*, coalesce(array_agg(r.outcome) FILTER (WHERE r.order_id IS NOT NULL), '{}') AS outcomes,
       json_agg(r.detail) AS details
FROM dagstop.stop_order o LEFT JOIN dagstop.report r ON r.order_id = o.id
WHERE o.dag_id = %s AND o.run_id = %s GROUP BY o.id ORDER BY o.id
"""
START_SECONDS = 240.0  # two cores start some fifty Python interpreters


@dataclass
class Bystanders:
    """What must live on, by identity."""

    processes: set[tuple[int, int]] = field(default_factory=set)
    containers: list[Container] = field(default_factory=list)
    _popen: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def harmed(self) -> list[object]:
        """Those that died or were replaced."""
        now = {p.identity for p in proc.everyone() if p.state != "Z"}
        gone: list[object] = [*sorted(self.processes - now)]
        for container in self.containers:
            before = container.attrs["State"]["Pid"]
            container.reload()
            if container.status != "running" or container.attrs["State"]["Pid"] != before:
                gone.append(container.name)
        return gone

    def end(self) -> None:
        """Remove what the test itself started."""
        for process in self._popen:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: see `bystanders`
            process.wait()
        for container in self.containers:
            container.remove(force=True)


class Stage:
    """Airflow `version` on the database `url`, dagstop installed and its listener running."""

    def __init__(self, version: str, with_policy: bool, url: str, engine: Engine) -> None:
        self.version = version
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-e2e-"))
        self.engine = engine if with_policy else None  # no policy, no tags in containers
        self._client = engine.client()
        self._listener: subprocess.Popen[bytes] | None = None
        self._uuids: dict[str, set[str]] = {}
        self.airflow = Airflow(
            version,
            airflows.build(version),
            self.folder / "home",
            url,
            dags=Path(str(files("dagstop.lab"))) / "dags",
            docker_url=self.engine.url if self.engine else None,
            policy_text=policy.text() if with_policy else None,
            parallelism=40,
        )

    def start(self, run_ids: list[str]) -> None:
        """Bring everything up and return when every process of every run is seen."""
        self.airflow.initialise()
        self.dagstop("install")
        self._listen()
        self.airflow.start()
        self.airflow.wait_ready([DAG])
        self.airflow.trigger_many(DAG, [*run_ids, LEFT_ALONE])
        for run_id in [*run_ids, LEFT_ALONE]:
            self.airflow.wait_for(
                lambda run_id=run_id: not self._missing(run_id),  # type: ignore[misc]
                f"running {run_id}",
                START_SECONDS,
            )
        if self.engine is None:
            # untagged children are known only by having been seen below their runner
            for run_id in [*run_ids, LEFT_ALONE]:
                wait_until(lambda run_id=run_id: not self._unknown(run_id), 30, self.listener_log)  # type: ignore[misc]

    def stop(self) -> None:
        """End everything, and remove the files."""
        self.airflow.stop()
        ours = f"DAGSTOP_AIRFLOW_HOME={self.airflow.home}"
        for container in self._client.containers.list():
            if ours in (container.attrs["Config"]["Env"] or ()):
                container.remove(force=True)  # the next stage has runs of the same names
        if self._listener is not None:
            self._listener.send_signal(signal.SIGTERM)
            try:
                self._listener.wait(15)
            except subprocess.TimeoutExpired:
                self._listener.kill()
                self._listener.wait()
        self._client.close()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def prepare(self, mode: str, action: str) -> None:
        """The accident of the cell: `dead` kills all of Airflow, but for the UI to click in."""
        if mode == "dead":
            self.airflow.sigkill_everything(keep=["web"] if action == "ui" else [])

    def running_containers(self, run_id: str) -> list[str]:
        """Names of the run's containers that the engine still calls running."""
        marker = f"{CONTAINER}.{run_id.rsplit('_', 1)[1]}"
        running = self._client.containers.list()
        return [str(c.name) for c in running if marker in (c.attrs["Config"]["Cmd"] or ())]

    def dagstop(self, *arguments: str) -> str:
        """Run a dagstop command to its end; its standard output."""
        command = [sys.executable, "-m", "dagstop", *arguments]
        command += ["--database-url", self.airflow.database_url]
        done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def listener_log(self) -> str:
        """What the listener printed."""
        return (self.folder / "listener.log").read_text(errors="replace")

    def victims(self, run_id: str) -> tuple[list[proc.Process], list[proc.Process]]:
        """What works for the run now (bash sessions, container inits), and its runners."""
        everyone = [p for p in proc.everyone() if p.state != "Z"]
        marked = [p for p in everyone if self._marker(p) in self._markers(run_id)]
        # a bash that runs a script does not have the marker itself: it leads the session
        sessions = {p.session for p in marked}
        work = [p for p in everyone if p.session in sessions]
        keys = self._keys(run_id)
        runners = [p for p in everyone if _is_runner(p) and keys & set(" ".join(p.command).split())]
        return work, runners

    def supervisors(self, run_id: str) -> list[proc.Process]:
        """The run's supervisors that live."""
        keys = self._keys(run_id)
        return [
            p
            for p in proc.everyone()
            if p.state != "Z" and _is_supervisor(p) and any(key in part for key in keys for part in p.command)
        ]

    def bystanders(self, run_id: str) -> Bystanders:
        """Everything beside `run_id` that looks like it and must live on."""
        spared = Bystanders()
        number = run_id.rsplit("_", 1)[1]
        tags = {
            "AIRFLOW_CTX_DAG_ID": DAG,
            "AIRFLOW_CTX_TASK_ID": "tree",
            "AIRFLOW_CTX_DAG_RUN_ID": run_id,
            f"AIRFLOW_CTX_{'LOGICAL' if self.airflow.generation == 3 else 'EXECUTION'}_DATE": self._date(
                run_id
            ),
            "AIRFLOW_CTX_TRY_NUMBER": "1",
        }
        foreign = {
            "AIRFLOW_HOME": "/srv/other-airflow",
            "DAGSTOP_AIRFLOW_HOME": "/srv/other-airflow",
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://u:p@db.example.org/other",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://u:p@db.example.org/other",
        }
        mention = " ".join(f"{name}={value}" for name, value in tags.items())
        home = {"AIRFLOW_HOME": str(self.airflow.home)}
        path = {"PATH": os.environ["PATH"]}
        for command, env in (
            (["sleep", f"6008.{number}"], {**path, **foreign, **tags}),
            (["sleep", f"6009.{number}"], {**path, **home, "NOTE": mention}),
            (["sh", "-c", f"sleep 6010.{number}; : airflow run {DAG} tree {run_id}"], path),
        ):
            spared._popen.append(subprocess.Popen(command, env=env, start_new_session=True))
        leaders = {process.pid for process in spared._popen}
        inner = ("sleep", f"6010.{number}")
        wait_until(lambda: any(p.command == inner for p in proc.everyone()), 5, lambda: "no bystander")
        spared.processes = {p.identity for p in proc.everyone() if p.session in leaders}
        if self.engine:
            for env in ({**tags, **foreign}, {**tags, "AIRFLOW_CTX_DAG_ID": "another"}, {}):
                container = self._client.containers.run(
                    IMAGE, ["sleep", "6011"], network_mode="none", detach=True, environment=env
                )
                container.reload()
                spared.containers.append(container)
        work, runners = self.victims(LEFT_ALONE)
        spared.processes |= {p.identity for p in [*work, *runners]}
        return spared

    def orders(self, run_id: str) -> list[dict[str, Any]]:
        """Every stop order of the run with the outcomes that hosts reported (None: unfinished)."""
        return self.airflow.query(
            _ORDERS,
            (DAG, run_id),
        )

    def confirmed_at(self, run_id: str) -> float:
        """When the last report of the run was written, on the scale of time.monotonic()."""
        row = self.airflow.query(
            "SELECT extract(epoch FROM clock_timestamp() - max(r.reported_at))::float8 AS ago"
            " FROM dagstop.stop_order o JOIN dagstop.report r ON r.order_id = o.id"
            " WHERE o.dag_id = %s AND o.run_id = %s",
            (DAG, run_id),
        )[0]
        return time.monotonic() - float(row["ago"])

    def _listen(self) -> None:
        command = [sys.executable, "-m", "dagstop", "listen"]
        command += ["--database-url", self.airflow.database_url]
        command += ["--airflow-home", str(self.airflow.home)]
        command += ["--state-dir", str(self.folder / "state")]
        if self.engine:
            command += ["--docker-url", self.engine.url]
        with (self.folder / "listener.log").open("wb") as log:
            self._listener = subprocess.Popen(
                command, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: self.airflow.query("SELECT 1 FROM dagstop.listener"), 20, self.listener_log)

    def _date(self, run_id: str) -> str:
        return self.airflow.date(DAG, run_id).isoformat()

    def _keys(self, run_id: str) -> set[str]:
        """What names the run in a command line or title: 3.x's say the task instance's uuid only."""
        rows = self.airflow.task_rows(run_id) if self.airflow.generation == 3 else []
        keys = self._uuids.setdefault(run_id, set())
        keys |= {str(row["id"]) for row in rows}  # a new try gets a new one: none is forgotten
        return {run_id, self._date(run_id)} | keys

    def _missing(self, run_id: str) -> set[str]:
        seen = {self._marker(p) for p in proc.everyone()}
        states = self.airflow.task_states(run_id)
        unfinished = {"already_done"} if states.get("already_done") != "success" else set()
        return (self._markers(run_id) - seen) | unfinished

    def _unknown(self, run_id: str) -> set[tuple[int, int]]:
        """What works for the run and is not yet in the listener's memory, which it saves at each tick."""
        try:
            saved = json.loads((self.folder / "state" / "remembered.json").read_text())
        except FileNotFoundError:
            saved = {"labels": []}
        known = {(pid, start) for pid, start, _ in saved["labels"]}
        return {p.identity for p in self.victims(run_id)[0]} - known

    def _markers(self, run_id: str) -> set[str]:
        number = run_id.rsplit("_", 1)[1]
        names = (*SLEEPS, CONTAINER) if self.engine else SLEEPS
        return {f"{name}.{number}" for name in names}

    @staticmethod
    def _marker(process: proc.Process) -> str:
        return process.command[1] if process.command[0] == "sleep" and process.command[1:] else ""


def _is_runner(process: proc.Process) -> bool:
    title = process.command[0]
    worker = title.startswith("airflow worker -- ") and "LocalExecutor" not in title  # 3.x
    return worker or title.startswith("airflow task runner:") or "--raw" in process.command


def _is_supervisor(process: proc.Process) -> bool:
    title = process.command[0]
    # 3.x: the executor's worker, for as long as it is busy with the task
    titled = title.startswith(("airflow task supervisor:", "airflow worker -- LocalExecutor:"))
    return titled or "--local" in process.command


def plain_environment() -> dict[str, str]:
    """Our own environment without anything that names an Airflow."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "DAGSTOP_"))} | {
        "PYTHONUNBUFFERED": "1"
    }
