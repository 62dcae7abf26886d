"""What it takes to run a real Airflow in containers that have nothing but busybox and this machine's files.

Two projects write the same URL; what lies behind it is a folder of sockets, another one for each.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dagstop.install import install
from tests.support.workers import HOME, Worker
from tests.testbed import environment, proc
from tests.testbed.postgres import Server, rows

SOCKETS = "/srv/sockets"
URL = f"postgresql://postgres@/airflow?host={SOCKETS}"
"""As all projects write it."""
_INIT = "trap 'exit 0' TERM; for part in {parts}; do $part >> {home}/out.log 2>&1 & done; while :; do sleep 1; done"


def variables(version: str, venv: Path, parallelism: int = 8) -> dict[str, str]:
    """What Airflow sees in a container."""
    found = environment.variables(
        version, venv=venv, home=Path(HOME), dags=Path("/srv/dags"), database_url=URL,
        port=8080, log_port=8793, parallelism=parallelism, docker_url=None, policy=False,
    )  # fmt: skip
    found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = URL.replace("postgresql:", "postgresql+psycopg2:")
    return found | {"USER": "airflow", "LOGNAME": "airflow"}


def init(venv: Path, parts: Sequence[str]) -> str:
    """The first process of a container, which starts these commands of Airflow and outlives them."""
    words = " ".join(f'"{venv}/bin/airflow {part}"' for part in parts)
    return f"mkdir -p {HOME}/tmp; " + _INIT.format(parts=words, home=HOME)


def shared(venv: Path, server: Server, dags: Path, sockets: Path) -> list[tuple[str, str]]:
    """Folders of this machine, and where they are in a container."""
    sockets.mkdir()
    sockets.chmod(0o755)
    (sockets / ".s.PGSQL.5432").symlink_to(server.socket_dir / f".s.PGSQL.{server.port}")
    python = Path(os.path.realpath(venv / "bin" / "python")).parent.parent
    same = [(str(path), str(path)) for path in (venv, python, server.socket_dir)]
    return [*same, (str(dags), "/srv/dags"), (str(sockets), SOCKETS)]


def migrate(venv: Path, url: str, version: str, home: Path) -> None:
    """Make Airflow's tables, and install dagstop beside them."""
    home.mkdir()
    shown = environment.variables(
        version, venv=venv, home=home, dags=home, database_url=url, port=8080, log_port=8793,
        parallelism=8, docker_url=None, policy=False,
    )  # fmt: skip
    done = subprocess.run(
        [venv / "bin" / "airflow", "db", "migrate"], env=shown, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    install(url)


def roomy(server: Server) -> Server:
    """A server with room for the connections of many tasks."""
    rows(server.url("postgres"), "alter system set max_connections = 300")
    server.halt()
    server.start()
    return server


def kill(airflow: Path, *containers: Worker) -> None:
    """SIGKILL all of Airflow in them, supervisors and runners too; what they started lives on.

    All are stopped first: a supervisor that saw its runner die would end what that one started.
    """
    for number in (signal.SIGSTOP, signal.SIGKILL):
        seen: set[tuple[int, int]] = set()
        while found := [p for one in containers for p in of_airflow(airflow, one) if p.identity not in seen]:
            proc.send(found, number)
            seen.update(p.identity for p in found if number == signal.SIGSTOP)


def of_airflow(airflow: Path, container: Worker) -> list[proc.Process]:
    """Airflow's own processes in it: its Python, not what its tasks started."""
    python = os.path.realpath(airflow.parent / "python")
    found = (proc.read(pid) for pid in container.pids())
    return [p for p in found if p is not None and p.executable == python and p.state != "Z"]
