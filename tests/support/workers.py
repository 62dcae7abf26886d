"""Containers that look from outside as Airflow's workers do: a home and user inside, a runner, its bash.

The image has busybox only; the machine's own programs and Python are mounted into it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tests.support.tasks import RUNNER
from tests.support.watch import wait_until
from tests.testbed.docker_engine import IMAGE, Engine

HOME = "/opt/airflow"
UID = 50000
URL = "postgresql+psycopg2://airflow:airflow@postgres/airflow"
"""What every project of the official compose file has."""
INIT = "trap 'exit 0' TERM; while :; do sleep 1; done"
_SHARED = ("/usr", "/lib", "/lib64", "/bin", "/sbin", sys.base_prefix, sys.prefix, os.getcwd())


def mounts() -> list[str]:
    """The same folders as options of `docker run`."""
    return [word for path in _SHARED if os.path.isdir(path) for word in ("--volume", f"{path}:{path}:ro")]


@dataclass
class Worker:
    """One container; `hostname` is what Airflow in it would record."""

    container: Container
    hostname: str
    init: int  # as this host counts

    @property
    def id(self) -> str:
        return str(self.container.id)

    def run(self, title: str, command: str, **environment: str) -> None:
        """Start a runner with a bash group, forked by what the init runs instead of an executor."""
        words = [sys.executable, "-c", RUNNER, title, "group", command]
        command_line = ["/bin/sh", "-c", 'exec "$@" &', "sh", *words]
        self.container.exec_run(command_line, environment=environment, detach=True)

    def pids(self) -> dict[int, str]:
        """Of all that lives in it but its init: pid on this host -> command line.

        Nor what the init has just forked: until that execs, it has the init's command line, then none.
        """
        found: dict[int, str] = {}
        own = _words(Path(f"/proc/{self.init}"))
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != self.init:
                try:
                    inside = self.id in (folder / "cgroup").read_text()
                    words = _words(folder)
                    dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                except OSError:
                    continue
                if inside and not dead and words not in ("", "sleep 1", own):
                    found[int(folder.name)] = words
        return found

    def pid_of(self, start: str) -> int:
        """The pid on this host of the only process in it whose command line begins so."""

        def one() -> bool:
            return sum(words.startswith(start) for words in self.pids().values()) == 1

        wait_until(one, 20, lambda: f"one process {start!r} in {self.hostname}: {self.pids()}")
        return next(pid for pid, words in self.pids().items() if words.startswith(start))


def _words(folder: Path) -> str:
    """The command line of a /proc/PID; empty if it is gone."""
    try:
        return (folder / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except OSError:
        return ""


def inner_pid(pid: int) -> int:
    """A process's pid in its own pid namespace."""
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")
    ]
    return int(line.split()[-1])


@contextmanager
def workers(engine: Engine) -> Iterator[Any]:
    """A function that starts a `Worker` of a compose project."""
    client = engine.client()
    started: list[Container] = []

    def start(
        project: str | None,
        *,
        init: str = INIT,
        shared: Sequence[tuple[str, str]] = (),
        user: str = str(UID),
        airflow: bool = True,
        **more: Any,
    ) -> Worker:
        """project: of compose. shared: folders of this host, and where they are in it; read only. airflow: it shows an AIRFLOW_HOME."""
        labels = {}
        if project is not None:
            labels = {"com.docker.compose.project": project, "com.docker.compose.service": "worker"}
        own = {"AIRFLOW_HOME": HOME, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": URL} if airflow else {}
        environment = {**own, "PATH": os.environ["PATH"], **more.pop("environment", {})}
        folders = {path: path for path in _SHARED if os.path.isdir(path)} | dict(shared)
        container = client.containers.run(
            IMAGE,
            ["/usr/bin/env", "bash", "-c", init],
            detach=True,
            network_mode="none",
            user=user,
            labels=labels,
            tmpfs={HOME: f"uid={UID}", "/tmp": "mode=1777"},
            volumes=[f"{there}:{inside}:ro" for there, inside in folders.items()],
            environment=environment,
            **more,
        )
        started.append(container)
        container.reload()
        hostname = container.attrs["Config"]["Hostname"]
        return Worker(container, hostname, container.attrs["State"]["Pid"])

    try:
        yield start
    finally:
        for container in started:
            try:
                container.remove(force=True)
            except docker.errors.NotFound:
                continue
        client.close()
