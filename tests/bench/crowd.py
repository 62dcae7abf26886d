"""What else runs on the host, and the bash groups that are to die."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.testbed import proc

# about as large as the environment of a service
_ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/", **{f"VARIABLE_{n}": "x" * 50 for n in range(25)}}


class Crowd:
    """Cheap processes, each in a session of its own, adopted by init."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def grow(self, count: int) -> None:
        """Start as many as are missing to `count`."""
        script = f"for n in $(seq {count - len(self.pids)}); do setsid sleep 86400 >&- 2>&- & echo $!; done"
        if count > len(self.pids):
            done = subprocess.run(
                ["sh", "-c", script], env=_ENVIRONMENT, capture_output=True, text=True, check=True
            )
            self.pids += map(int, done.stdout.split())
            time.sleep(1)

    def end(self) -> None:
        while self.pids:
            with suppress(ProcessLookupError):
                os.kill(self.pids.pop(), signal.SIGKILL)


class Group:
    """A bash group of its own session, as BashOperator starts it: bash and two children."""

    def __init__(self, home: Path, run_id: str, dag_id: str = "dag", within: Sequence[str] = ()) -> None:
        """within: the words of `Fence.within`, if it is to run behind a fence."""
        self.run_id = run_id
        self.process = subprocess.Popen(
            [*within, "bash", "-c", "sleep 6001 & sleep 6002 & wait"],
            env=_tags(home, run_id, dag_id),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def members(self) -> list[proc.Process]:
        """Bash and its children, once all three are there."""
        until = time.monotonic() + 20
        bash = self.process.pid
        while time.monotonic() < until:
            children = Path(f"/proc/{bash}/task/{bash}/children").read_text().split()
            found = [proc.read(pid) for pid in (bash, *map(int, children))]
            known = [one for one in found if one is not None]
            if len(known) == 3 and all(one.command[0] == "sleep" for one in known[1:]):
                return known
            time.sleep(0.001)
        raise RuntimeError("a bash group does not start")

    def end(self) -> None:
        """Reap; end it if it is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _tags(home: Path, run_id: str, dag_id: str) -> Mapping[str, str]:
    return {
        **_ENVIRONMENT,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CTX_DAG_ID": dag_id,
        "AIRFLOW_CTX_DAG_RUN_ID": run_id,
        "AIRFLOW_CTX_TASK_ID": "a",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
    }
