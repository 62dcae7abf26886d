"""Real processes that look on the host as Airflow's task processes do; no Airflow needed.

Each is started with the words, titles, sessions and environments that real Airflow was seen to give.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

RUNNER = """
import os, signal, subprocess, sys, time
import setproctitle
title, new_session, command = sys.argv[1], sys.argv[2] == "session", sys.argv[3]
(os.setsid if new_session else lambda: os.setpgid(0, 0))()
setproctitle.setproctitle(title)
def on_term(number, frame):
    if os.environ.get("MARK"):
        open(os.environ["MARK"], "w").write("on_kill")
    sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
child = subprocess.Popen(["bash", "-c", command], start_new_session=True)
child.wait()
time.sleep(float(os.environ.get("LINGER", "0")))
"""


class Tasks:
    """Starts processes and ends, at the latest on exit, whatever of them is left."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[bytes]] = []

    def environment(self, dag: str, run: str, task: str = "t", **more: str) -> dict[str, str]:
        """What Airflow 1.10.15 and later give a bash child."""
        return {
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CTX_DAG_ID": dag,
            "AIRFLOW_CTX_DAG_RUN_ID": run,
            "AIRFLOW_CTX_TASK_ID": task,
            "AIRFLOW_CTX_TRY_NUMBER": "1",
            **more,
        }

    def bash(
        self, command: str, environment: Mapping[str, str], folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A bash group of its own session, as BashOperator starts it; its runner is gone already."""
        return self.start(["bash", "-c", command], environment, session=True, folder=folder)

    def runner(
        self, title: str, command: str, *, session: bool = False, **more: str
    ) -> subprocess.Popen[bytes]:
        """A runner with a bash group below it, in the forms of 1.10.15 and later."""
        words = [sys.executable, "-c", RUNNER, title, "session" if session else "group", command]
        environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(self.home), **more}
        return self.start(words, environment, session=False)

    def start(
        self,
        words: list[str],
        environment: Mapping[str, str],
        *,
        session: bool,
        folder: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            words,
            env=dict(environment),
            start_new_session=session,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(process)
        return process

    @staticmethod
    def end(pid: int) -> None:
        """SIGKILL one process that a started one left behind."""
        os.kill(pid, signal.SIGKILL)

    @staticmethod
    def wait_for_file(path: Path, timeout: float = 10.0) -> None:
        until = time.monotonic() + timeout
        while not path.exists():
            assert time.monotonic() < until, f"no {path.name}"
            time.sleep(0.01)

    def __enter__(self) -> Tasks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._started:
            if process.poll() is None:
                for pid in (*descendants(process.pid), process.pid):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            process.wait(10)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for name in Path("/proc").iterdir():
        if name.name.isdigit():
            try:
                fields = (name / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                child = int(name.name)
                found += [*descendants(child), child]
    return found


def find(words: str) -> list[int]:
    """The living pids whose command line is exactly `words`."""
    found: list[int] = []
    for name in Path("/proc").iterdir():
        if name.name.isdigit():
            try:
                line = (name / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
                state = (name / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if line == words and state not in "ZX":
                found.append(int(name.name))
    return found


def wait_for(words: str, count: int = 1, timeout: float = 10.0) -> list[int]:
    """Return once exactly `count` processes with that command line live."""
    until = time.monotonic() + timeout
    while len(found := find(words)) != count:
        if time.monotonic() > until:
            raise AssertionError(f"{len(found)} processes `{words}`, expected {count}")
        time.sleep(0.01)
    return found
