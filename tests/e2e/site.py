"""One real Airflow with dagstop at work on it, and the accidents that befall it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagstop import policy
from tests.e2e.kinds import number_of
from tests.support.fence import Fence
from tests.support.watch import wait_until
from tests.testbed import airflows, proc
from tests.testbed.airflow import Airflow
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server

_ORDERS = """
SELECT o.*, coalesce(json_agg(r.outcome) FILTER (WHERE r.order_id IS NOT NULL), '[]') AS outcomes,
       coalesce(json_agg(r.detail) FILTER (WHERE r.order_id IS NOT NULL), '[]') AS details
FROM dagstop.stop_order o LEFT JOIN dagstop.report r ON r.order_id = o.id
WHERE o.dag_id = %s AND o.run_id = %s GROUP BY o.id ORDER BY o.id
"""
DAGS = Path(__file__).parent / "dags"
_templates: dict[tuple[int, str], str] = {}  # an initialised database by server's port and version


class Site:
    """Airflow `version` (`1.10.0-bare`: without the cluster policy) on a database of its own.

    `2.1.4-cwl` and the like are built as airflows.VARIANTS says.
    `dag_id` is the one DAG that its tests run, in the folder `dags`; `user` is as whom Airflow runs.
    `fence`: behind which Airflow and the listener run. `docker_url`: what they take for the engine's.
    End it with `stop()`.
    """

    def __init__(
        self,
        version: str,
        server: Server,
        engine: Engine,
        dag_id: str,
        dags: Path = DAGS,
        *,
        user: str | int | None = None,
        fence: Fence | None = None,
        docker_url: str | None = None,
        **more: str,
    ) -> None:
        self.version = version
        self.release, _, kind = version.partition("-")
        self.bare = kind == "bare"
        self._build = self.release if self.bare else version
        self.dag_id = dag_id
        self.engine = engine
        self.client = engine.client()
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-e2e-"))
        self.user = fence.uid if fence is not None else user
        if self.user is not None:  # others than its maker go there
            self.folder.chmod(0o755)
        if fence is not None:
            os.chown(self.folder, fence.uid, fence.uid)
        self._fence = fence
        self.docker_url = docker_url or engine.url
        self._server = server
        self._listener: subprocess.Popen[bytes] | None = None
        self._uuids: dict[str, set[str]] = {}
        self._dags = dags
        self._more = more
        self.airflow = self._airflow(self._database())

    def _airflow(self, url: str) -> Airflow:
        airflow = Airflow(
            self.release,
            airflows.build(self._build),
            self.folder / "home",
            url,
            dags=self._dags,
            docker_url=self.docker_url,
            policy_text=None if self.bare else policy.text(),
            parallelism=128,
            user=self.user,
        )
        airflow.environment.update(self._more)
        return airflow

    def _database(self) -> str:
        """A database as `initialise` makes it, with dagstop installed; made once for each release."""
        key = (self._server.port, self._build)
        if key not in _templates:
            url = self._server.create_database()
            self._airflow(url).initialise()
            dagstop("install", "--database-url", url)
            _templates[key] = url.rsplit("/", 1)[1]
        return self._server.create_database(template=_templates[key])

    def start(self, *, listener: bool = True) -> None:
        """Bring Airflow up, and the listener; return when the DAG can be run."""
        self.airflow.make_folders()
        if not self.bare:
            (self.airflow.home / "config" / "airflow_local_settings.py").write_text(policy.text())
        if listener:
            self.listen()
        self.airflow.start()
        self.airflow.wait_ready([self.dag_id])

    def listen(self) -> None:
        """Start the listener."""
        within = self._fence.within(told=True, reads=True) if self._fence is not None else []
        command = [
            *within,
            sys.executable,
            "-m",
            "dagstop",
            "listen",
            "--database-url",
            self.airflow.database_url,
        ]
        command += ["--airflow-home", str(self.airflow.home), "--docker-url", self.docker_url]
        command += ["--state-dir", str(self.folder / "state")]
        with (self.folder / "listener.log").open("ab") as log:
            self._listener = subprocess.Popen(
                command, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: self.airflow.query("SELECT 1 FROM dagstop.listener"), 20, self.listener_log)

    @contextlib.contextmanager
    def listener_held(self) -> Iterator[None]:
        """The listener does nothing meanwhile: what is ordered stays open."""
        assert self._listener is not None
        self._listener.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._listener.send_signal(signal.SIGCONT)

    @property
    def listening(self) -> bool:
        """Whether a listener was started."""
        return self._listener is not None

    def stop(self) -> None:
        """End everything, and remove the files."""
        try:
            if self._fence is not None:
                self._fence.end()
            self.airflow.stop()
            self._end_the_rest()
            if self._listener is not None:
                self._listener.terminate()
                try:
                    self._listener.wait(15)
                except subprocess.TimeoutExpired:
                    self._listener.kill()
                    self._listener.wait()
        finally:
            self.client.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end_the_rest(self) -> None:
        """Containers, and processes that nothing ties to this Airflow any more (`env -i`)."""
        self.engine.remove_containers()
        if self._fence is not None:  # others of the machine may be called the same
            return
        proc.send(marked(), signal.SIGKILL)
        wait_until(lambda: not marked(), 10, lambda: f"still there: {marked()}")

    def dagstop(self, *arguments: str, code: int = 0) -> str:
        """Run a dagstop command on this site to its end; its standard output."""
        return dagstop(*arguments, "--database-url", self.airflow.database_url, code=code)

    def ps(self) -> str:
        """What `dagstop ps --json` says of this host, with what the listener remembers."""
        where = ("--airflow-home", str(self.airflow.home), "--docker-url", self.engine.url)
        memory = {"STATE_DIRECTORY": str(self.folder / "state")}
        return dagstop("ps", "--json", "--database-url", self.airflow.database_url, *where, **memory)

    def listener_log(self) -> str:
        """The end of what the listener printed."""
        path = self.folder / "listener.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else "no listener yet"

    def befall(self, mode: str) -> None:
        """The accident of a mode: who of Airflow is alive afterwards."""
        if mode == "scheduler_killed":
            self.airflow.signal_scheduler(signal.SIGKILL)
        elif mode == "scheduler_stopped":
            self.airflow.signal_scheduler(signal.SIGTERM)
        elif mode == "web_only":
            self.airflow.sigkill_everything(keep=["web"])

    def orders(self, run_id: str) -> list[dict[str, Any]]:
        """Every stop order of the run, with `outcomes` (None: unfinished) and `details` of its reports."""
        return self.airflow.query(_ORDERS, (self.dag_id, run_id))

    def reported(self, run_id: str) -> bool:
        """Whether the run has an order, and each of them a final report."""
        orders = self.orders(run_id)
        return bool(orders) and all(o["outcomes"] and None not in o["outcomes"] for o in orders)

    def keys(self, run_id: str) -> set[str]:
        """What names the run in a command line or title: 3.x's say the task instance's uuid only."""
        known = self._uuids.setdefault(run_id, set())
        if self.airflow.generation == 3:  # a new try gets a new one: none is forgotten
            known |= {str(row["id"]) for row in self.airflow.task_rows(run_id)}
        else:
            known |= {run_id, self.airflow.date(self.dag_id, run_id).isoformat()}
        return known

    def remembered(self) -> set[tuple[int, int]]:
        """The (pid, start) of all that the listener has written down."""
        try:
            saved = json.loads((self.folder / "state" / "remembered.json").read_text())
        except FileNotFoundError:
            return set()
        return {(pid, start) for pid, start, *_ in saved["labels"]}


def marked(run_id: str | None = None) -> list[proc.Process]:
    """Living processes `sleep 60NN.<number of the run>`; of all runs where none is given."""
    end = "" if run_id is None else f".{number_of(run_id)}"
    return [
        p
        for p in proc.everyone()
        if p.state != "Z" and p.command[0] == "sleep" and p.command[1:]
        and p.command[1].startswith("60") and "." in p.command[1] and p.command[1].endswith(end)
    ]  # fmt: skip


def is_runner(process: proc.Process) -> bool:
    """Whether it is an Airflow's task process, by its title or command line."""
    title = process.command[0]
    worker = title.startswith("airflow worker -- ") and "LocalExecutor" not in title  # 3.x
    return worker or title.startswith("airflow task runner:") or "--raw" in process.command


def dagstop(*arguments: str, code: int = 0, **environment: str) -> str:
    """Run a dagstop command to its end; its standard output."""
    command = [sys.executable, "-m", "dagstop", *arguments]
    env = {**plain_environment(), **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def plain_environment() -> dict[str, str]:
    """Our own environment without anything that names an Airflow."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "DAGSTOP_"))} | {
        "PYTHONUNBUFFERED": "1"
    }
