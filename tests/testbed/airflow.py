"""One real Airflow with LocalExecutor: started, driven and killed as people and machines do it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.testbed import environment, proc
from tests.testbed.family import Family
from tests.testbed.postgres import free_port
from tests.testbed.records import AirflowFailed, Records
from tests.testbed.web import PASSWORD, USER, Web

_TRIGGER_MANY_1_10 = """
import json, sys
from airflow.api.common.experimental.trigger_dag import trigger_dag
from sqlalchemy.exc import IntegrityError
for run_id in json.loads(sys.argv[2]):
    try:
        trigger_dag(sys.argv[1], run_id=run_id, replace_microseconds=False)
    except IntegrityError:  # the run is there, and the scheduler was first to make its task instances
        pass
"""
_TRIGGER_WITH = """
import json, sys
from airflow.api.common.experimental.trigger_dag import trigger_dag
for run_id, conf in json.loads(sys.argv[2]).items():
    trigger_dag(sys.argv[1], run_id=run_id, conf=json.dumps(conf), replace_microseconds=False)
"""


class Airflow(Records):
    """One Airflow of `version`, installed in `venv`, living in the folder `home`.

    Keep `home` short: sockets lie in it. `dags` is its DAG folder, `database_url` an empty Postgres
    database of its own, `port` that of its web server on 127.0.0.1. `docker_url` reaches DAGs as
    DAGSTOP_TESTBED_DOCKER_URL; `policy_text`, if given, is written as the site's cluster policy. `user` is the
    one as whom it runs, of this process if none is given. Use as a context manager, or call `stop()`.
    """

    def __init__(
        self,
        version: str,
        venv: Path,
        home: Path,
        database_url: str,
        port: int | None = None,
        *,
        dags: Path,
        docker_url: str | None = None,
        policy_text: str | None = None,
        parallelism: int = 32,
        user: str | int | None = None,
    ) -> None:
        by_date = environment.release(version) < (2, 2)
        super().__init__(environment.generation(version), database_url, by_date=by_date)
        self.user = user
        self.version = version
        self.home = home
        self.port = port or free_port()
        self._venv = venv
        self._policy_text = policy_text
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._former: list[subprocess.Popen[bytes]] = []  # ended, or told to end
        self._family = Family()
        self.web = Web(self.generation, self.port)
        self.environment = environment.variables(
            version,
            venv=venv,
            home=home,
            dags=dags,
            database_url=database_url,
            port=self.port,
            log_port=free_port(),
            parallelism=parallelism,
            docker_url=docker_url,
            policy=policy_text is not None,
        )

    def __enter__(self) -> Airflow:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- life ------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """Make the folders, the policy file, the database and (2.x) the user of the REST API."""
        self.migrate()
        if self.generation == 2:
            names = ["--firstname", "lab", "--lastname", "lab", "--email", "lab@example.org"]
            login = ["--username", USER, "--password", PASSWORD, "--role", "Admin"]
            self._run(["airflow", "users", "create", *names, *login])

    def migrate(self) -> None:
        """Make the folders, the policy file and the database, or bring an older database here."""
        self.make_folders()
        if self._policy_text is not None:
            (self.home / "config" / "airflow_local_settings.py").write_text(self._policy_text)
        self._run(environment.migration(self.version))

    def make_folders(self) -> None:
        """Make those that it needs, of its user; others' tasks may write into the temporary one."""
        for folder in (self.home, *(self.home / name for name in ("config", "output", "tmp"))):
            folder.mkdir(parents=True, exist_ok=True)
            if self.user is not None:
                shutil.chown(folder, self.user)
        (self.home / "tmp").chmod(0o1777)

    def start(self) -> None:
        """Start what a site runs: scheduler, web server, and (3.x) the DAG processor."""
        self.start_web()
        if self.generation == 3:
            self._spawn("dag-processor", ["airflow", "dag-processor"])
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """Start (again) the scheduler alone."""
        self._spawn("scheduler", ["airflow", "scheduler"])

    def start_web(self) -> None:
        """Start (again) the web server alone."""
        if self.generation == 3:
            self._spawn("web", ["airflow", "api-server", "-p", str(self.port)])
        else:
            self._spawn("web", ["airflow", "webserver", "-p", str(self.port), "-w", "1"])

    def wait_ready(self, dag_ids: Sequence[str], timeout: float = 180) -> None:
        """Return once `dag_ids` are known, the web server answers and the scheduler has a heartbeat."""
        known = "SELECT count(*) AS n FROM dag WHERE dag_id = ANY(%s)"
        beats = (
            "SELECT count(*) AS n FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
            " AND latest_heartbeat > now() - interval '30 seconds'"
        )

        def ready() -> bool:
            if self.query(known, (list(dag_ids),))[0]["n"] < len(set(dag_ids)):
                return False
            return bool(self.query(beats)[0]["n"]) and self.web.healthy()

        self.wait_for(ready, "ready", timeout)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
        """Return once `condition()` holds; raise AirflowFailed with the logs' ends after `timeout` s."""
        end = time.monotonic() + timeout
        while not condition():
            for name, process in self._started.items():
                if process.poll() not in (None, -signal.SIGKILL, -signal.SIGTERM):
                    raise AirflowFailed(f"Airflow {self.version}: {name} ended\n{self.logs(40)}")
            if time.monotonic() > end:
                what = f"not {what} in {timeout:.0f} s"
                raise AirflowFailed(f"Airflow {self.version}: {what}\n{self.logs(40)}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End every process that descends from this Airflow, its tasks' children included."""
        while self._family.kill():
            self._reap()
        for process in (*self._started.values(), *self._former):
            process.wait(10)  # it is dead: what is left is to read its exit status

    def logs(self, lines: int = 0) -> str:
        """What the processes printed; with `lines` only that many from the end of each."""
        parts = []
        for path in sorted((self.home / "output").glob("*.log")):
            text = path.read_text(errors="replace").splitlines()
            parts.append(f"== {path.name}\n" + "\n".join(text[-lines:] if lines else text))
        return "\n".join(parts)

    # -- runs --------------------------------------------------------------------------------------

    def trigger(self, dag_id: str, run_id: str) -> None:
        """Start one run."""
        self.trigger_many(dag_id, [run_id])

    def trigger_many(self, dag_id: str, run_ids: Sequence[str]) -> None:
        """Start a run for each of `run_ids`."""
        if self.generation == 1:
            python = str(self._venv / "bin" / "python")
            self._run([python, "-c", _TRIGGER_MANY_1_10, dag_id, json.dumps(list(run_ids))])
            return
        now = dt.datetime.now(dt.timezone.utc)
        for number, run_id in enumerate(run_ids):
            date = now - dt.timedelta(milliseconds=len(run_ids) - number)
            self.web.trigger(dag_id, run_id, date.isoformat())

    def trigger_with(self, dag_id: str, runs: dict[str, Any]) -> None:
        """Start a run with a configuration for each of `runs`, by its id (1.10 to 2.1)."""
        python = str(self._venv / "bin" / "python")
        self._run([python, "-c", _TRIGGER_WITH, dag_id, json.dumps(runs)])

    def fail_run_by_ui(self, dag_id: str, run_id: str) -> None:
        """Mark the run failed as the web UI does."""
        self.web.fail_run(dag_id, run_id, int(self.run(dag_id, run_id)["id"]))

    def fail_task_by_ui(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Mark the task instance failed as the web UI does."""
        self.web.fail_task(dag_id, run_id, task_id, self._date_text(dag_id, run_id), map_index)

    def succeed_task_by_ui(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Mark the task instance success as the web UI does."""
        self.web.set_task(dag_id, run_id, task_id, self._date_text(dag_id, run_id), "success")

    def clear_task_by_ui(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear the task instance as the web UI does, so that it and its run run again."""
        self.web.clear_task(dag_id, run_id, task_id, self._date_text(dag_id, run_id))

    def retry_task_by_ui(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Set the task instance to up_for_retry as the web UI does (not 3.x, which has no such thing)."""
        self.web.retry_task(dag_id, run_id, task_id, self._date_text(dag_id, run_id))

    def _date_text(self, dag_id: str, run_id: str) -> str:
        return self.date(dag_id, run_id).isoformat(sep=" ", timespec="microseconds")

    # -- accidents ---------------------------------------------------------------------------------

    def signal_scheduler(self, number: signal.Signals) -> None:
        """Signal the scheduler alone; return once it is gone, or (SIGTERM) waits for its tasks."""
        self._family.members()  # its children are known now, should it die
        scheduler = self._started.pop("scheduler")
        self._former.append(scheduler)
        scheduler.send_signal(number)
        silent = (
            "SELECT count(*) AS n FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
            " AND latest_heartbeat > now() - interval '8 seconds'"
        )
        self.wait_for(
            lambda: scheduler.poll() is not None or not self.query(silent)[0]["n"], "without its scheduler"
        )

    def sigkill_everything(self, keep: Sequence[str] = ()) -> list[proc.Process]:
        """SIGKILL every Airflow process and give them; what tasks started lives on.

        An Airflow process is one that runs this venv's Python, or the shell that starts one.
        `keep` spares parts by name (`web`) with all that descends from them.
        """
        spared = [self._started[name].pid for name in keep if name in self._started]
        kept = {p.identity for p in proc.descendants(spared, spared)}
        return self._sigkill(lambda p: p.identity not in kept and self._is_airflow(p))

    def _sigkill(self, wanted: Callable[[proc.Process], bool]) -> list[proc.Process]:
        killed = self._family.kill(wanted)
        self._reap()
        return killed

    def _is_airflow(self, process: proc.Process) -> bool:
        if process.executable == os.path.realpath(self._venv / "bin" / "python"):
            return True
        shell = os.path.basename(process.executable) in ("bash", "dash", "sh")
        return shell and any("airflow run " in part for part in process.command)

    # -- the command line --------------------------------------------------------------------------

    def begin(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `airflow ARGUMENTS`, with two workers if it executes tasks; its output goes to `log`."""
        with self._log(log).open("ab") as output:
            process = subprocess.Popen(
                [str(self._venv / "bin" / "airflow"), *arguments],
                env=self.environment | {"AIRFLOW__CORE__PARALLELISM": "2"},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
            )
        self._former.append(process)
        self._family.adopt(process.pid)
        return process

    def printed(self, log: str) -> str:
        """What the processes with the log so named have printed."""
        return self._log(log).read_text(errors="replace")

    def forget(self, log: str) -> None:
        """Remove what was printed to the log so named, by processes that have ended."""
        self._log(log).unlink()

    def _log(self, name: str) -> Path:
        return self.home / "output" / f"{name}.log"

    # -- tools -------------------------------------------------------------------------------------

    def _run(self, command: Sequence[str]) -> None:
        path = self.home / "output" / f"{Path(command[0]).name}-{command[1].strip('-')}.log"
        with path.open("ab") as output:
            done = subprocess.run(
                [str(self._venv / "bin" / Path(command[0]).name), *command[1:]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self.user,
            )
        if done.returncode != 0:
            end = path.read_text(errors="replace")[-3000:]
            raise AirflowFailed(f"{' '.join(command)} failed\n{end}")

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        if name in self._started:
            self._former.append(self._started[name])
        with self._log(name).open("ab") as output:
            self._started[name] = subprocess.Popen(
                [str(self._venv / "bin" / command[0]), *command[1:]],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
            )
        self._family.adopt(self._started[name].pid)

    def _reap(self) -> None:
        for process in (*self._started.values(), *self._former):
            process.poll()
