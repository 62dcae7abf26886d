"""A real listener as a subprocess, and what the database says of its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg2
import psycopg2.extras

from tests.support.watch import wait_until

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "DAGSTOP_", "DOCKER_"))}
"""This environment without anything that would configure dagstop; the tests say it all."""


def dagstop(
    *arguments: str, check: bool = True, before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; `before`: what runs it, with fewer rights, say."""
    return subprocess.run(
        [*before, sys.executable, "-m", "dagstop", *arguments],
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
        env={**CLEAN, **environment},
    )


class Listener:
    """`dagstop listen`, ready once it has swept the orders. Never outside a pid namespace, unless behind a fence."""

    def __init__(
        self,
        url: str,
        home: Path,
        *options: str,
        docker_url: str = "unix:///nowhere",
        fence: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """fence: the words of `Fence.within`."""
        alone = fence or os.environ.get("DAGSTOP_TEST_NAMESPACE")
        assert alone, "run the tests through tests.testbed.namespace"
        self.url = url
        self.home = home
        self.state_dir = home / "dagstop-state"
        self.log_path = home / "listener.log"
        self.command = [
            *fence,
            *(sys.executable, "-m", "dagstop", "listen", "--database-url", url),
            *("--airflow-home", str(home), "--state-dir", str(self.state_dir)),
            *("--docker-url", docker_url, "--host", "host-1", "-v", *options),
        ]
        self._environment = {**CLEAN, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, until: str = "connected") -> Listener:
        """Return once its log says `until`."""
        with self.log_path.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self._environment)
        self.wait_for(until, after=before)
        return self

    def wait_for(self, text: str, *, after: int = 0, timeout: float = 60.0) -> None:
        """Return once a line of the log holds `text`, `after` that byte."""
        until = time.monotonic() + timeout
        while text not in self.log(after):
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > until:
                raise AssertionError(f"no {text!r} in the listener's log:\n{self.log()}")
            time.sleep(0.01)

    def log(self, after: int = 0) -> str:
        return self.log_path.read_bytes()[after:].decode() if self.log_path.exists() else ""

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(10)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> Listener:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if value is not None:
            print(self.log())

    def wait_until_remembered(self, watched: int, timeout: float = 60.0) -> None:
        """Until the listener knows that many task processes and has written them down."""
        self._wait_for_memory(
            timeout, "labels", lambda labels: len(labels) >= watched, f"{watched} task processes"
        )

    def wait_until_doubted(self, watched: int, timeout: float = 60.0) -> None:
        """Until it has written down that many task processes of which it may have to spare some."""

        def enough(doubted: dict[str, Any]) -> bool:
            return len(doubted.get("labels", ())) >= watched

        self._wait_for_memory(timeout, "doubted", enough, f"{watched} doubted task processes", nothing={})

    def wait_until_gap(self, why: str, timeout: float = 60.0) -> None:
        """Until it has looked at everything after a time in which nobody was told, and has written that down."""
        self._wait_for_memory(
            timeout, "gaps", lambda gaps: any(gap[2] == why for gap in gaps), f"a gap: {why!r}"
        )

    def wait_until_gone(self, timeout: float = 60.0) -> None:
        """Until it knows of no task process any more, and has written that down."""
        self._wait_for_memory(timeout, "labels", lambda labels: not labels, "no task process")

    def wait_until_noted(self, clients: int, timeout: float = 60.0) -> None:
        """Until it has written down that many docker clients."""
        self._wait_for_memory(
            timeout, "clients", lambda noted: len(noted) >= clients, f"{clients} docker clients"
        )

    def wait_until_reached(self, clients: int, timeout: float = 60.0) -> None:
        """Until it has written down which engine that many docker clients reached."""
        self._wait_for_memory(
            timeout, "clients", _that_have("reached", clients), f"{clients} connected clients"
        )

    def wait_until_tied(self, containers: int, timeout: float = 60.0) -> None:
        """Until it has written down whose that many containers are."""
        self._wait_for_memory(
            timeout, "clients", _that_have("container", containers), f"{containers} tied containers"
        )

    def _wait_for_memory(
        self, timeout: float, what: str, enough: Callable[[Any], bool], wanted: str, nothing: Any = ()
    ) -> None:
        wait_until(
            lambda: enough(remembered(self.state_dir, what, nothing)),
            timeout,
            lambda: f"{wanted} in {remembered(self.state_dir, what, nothing)}; log:\n{self.log()}",
        )

    def reports(self) -> list[dict[str, Any]]:
        """Every final report, oldest order first."""
        return query(
            self.url,
            "select o.id, o.kind, o.dag_id, o.run_id, o.closed_at, o.created_at, r.*"
            " from dagstop.stop_order o join dagstop.report r on r.order_id = o.id"
            " where r.outcome is not null order by o.id",
        )

    def wait_for_reports(self, count: int, timeout: float = 60.0) -> list[dict[str, Any]]:
        """Every final report, once there are that many."""
        until = time.monotonic() + timeout
        while len(found := self.reports()) < count:
            if time.monotonic() > until:
                raise AssertionError(f"{len(found)} of {count} reports; log:\n{self.log()}")
            time.sleep(0.01)
        return found

    def wait_for_audit_log(self, timeout: float = 20.0) -> None:
        """Until the final reports are in Airflow's audit log, which follows after them."""
        due = "select 1 from dagstop.report where audit_due"
        wait_until(lambda: not query(self.url, due), timeout, self.log)


def _that_have(fact: str, count: int) -> Callable[[Any], bool]:
    return lambda clients: sum(bool(client[fact]) for client in clients) >= count


def remembered(state_dir: Path, what: str, nothing: Any = ()) -> Any:
    try:
        return json.loads((state_dir / "remembered.json").read_text()).get(what, nothing)
    except FileNotFoundError:
        return nothing


def query(url: str, text: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(text, values or None)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        connection.close()


def signals_of(report: dict[str, Any], pid: int) -> list[str]:
    """The names of the signals that a report says a process got."""
    (item,) = [process for process in report["detail"]["processes"] if process["pid"] == pid]
    return [name for name, _ in item["signals"]]


def show(facts: Any) -> str:
    return json.dumps(facts, indent=2, default=str)
