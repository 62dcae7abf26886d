"""What runs on the host: the groups and containers that must die, and the bystanders that must not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.testbed import proc
from tests.testbed.docker_engine import IMAGE, Engine

DAG = "chaos"
# how a task's bash may look: plain, deaf to SIGTERM, with a daemon of its own
KINDS = (
    "sleep 6001 & sleep 6002 & wait",
    "trap '' TERM; sleep 6001 & sleep 6002 & wait",
    "setsid sleep 6001 & sleep 6002 & wait",
)


def tags(home: str | Path, run_id: str) -> dict[str, str]:
    """What Airflow's BashOperator gives its children."""
    return {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CTX_DAG_ID": DAG,
        "AIRFLOW_CTX_DAG_RUN_ID": run_id,
        "AIRFLOW_CTX_TASK_ID": "a",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
    }


def spawn(words: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        env=dict(environment),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Group:
    """A task's bash and its two children."""

    def __init__(self, home: Path, run_id: str, kind: int) -> None:
        self.run_id = run_id
        self.bash = spawn(["bash", "-c", KINDS[kind % len(KINDS)]], tags(home, run_id))
        self.members: list[proc.Process] = []

    def settle(self) -> None:
        """Until all three are there and are what they will be."""
        until = time.monotonic() + 60
        pid = self.bash.pid
        while time.monotonic() < until:
            with suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                found = [proc.read(one) for one in (pid, *map(int, children))]
                self.members = [one for one in found if one is not None]
                if len(self.members) == 3 and all(one.command[0] == "sleep" for one in self.members[1:]):
                    return
            time.sleep(0.002)
        raise RuntimeError(f"a bash group does not start: {self.members}")

    def end(self) -> None:
        proc.send(self.members, signal.SIGKILL)
        self.bash.kill()
        self.bash.wait()


class Containers:
    """Docker containers on the testbed's engine: those of the runs, and foreign ones."""

    def __init__(self, engine: Engine) -> None:
        self._client = engine.client()
        self._made: list[Any] = []

    def run(self, tags: Mapping[str, str]) -> tuple[str, proc.Process]:
        """A container whose init has no SIGTERM handler; its id, and its init as the host sees it."""
        container = self._client.containers.run(
            IMAGE, ["sleep", "86400"], detach=True, network_mode="none", environment=dict(tags)
        )
        self._made.append(container)
        container.reload()
        init = proc.read(int(container.attrs["State"]["Pid"]))
        assert init is not None
        return str(container.id), init

    def end(self) -> None:
        for container in self._made:
            with suppress(Exception):
                container.remove(force=True)
        self._client.close()


OTHERS = "postgresql://db.example/another"
"""Without this an AIRFLOW_HOME alone would leave it in doubt whose they are."""


def bystanders(home: Path, run_ids: list[str], count: int) -> list[subprocess.Popen[bytes]]:
    """In turn: a stranger, another run's, one that only names a run, another Airflow's with the same ids."""
    started = []
    for number in range(count):
        run_id = run_ids[number % len(run_ids)]
        environment = {
            0: {"PATH": os.environ["PATH"]},
            1: tags(home, f"{run_id}_another"),
            2: {"PATH": os.environ["PATH"], "NOTE": f"AIRFLOW_CTX_DAG_ID={DAG} {run_id}"},
            3: {**tags("/srv/other/airflow", run_id), "AIRFLOW__CORE__SQL_ALCHEMY_CONN": OTHERS},
        }[number % 4]
        started.append(spawn(["sleep", "86400"], environment))
    return started
