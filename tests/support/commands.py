"""Commands of dagstop as tests run them: one that must fail, one on a terminal, `ps` as JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import CLEAN, dagstop
from tests.testbed.docker_engine import Engine

NO_DOCKER = ("--docker-url", "unix:///nowhere")


def failing(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that has to end with 1."""
    done = dagstop(*arguments, check=False, **environment)
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done


def on_a_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code, and what a terminal of 160 columns got."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "160", "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dagstop", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**CLEAN, **size, **environment},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:
        pass  # what Linux says when the other side is closed
    os.close(ours)
    return process.wait(60), said.decode()


def ps(db: AirflowDatabase, home: Path, engine: Engine) -> dict[str, Any]:
    """What `dagstop ps` shows of this host and that engine."""
    where = ("--database-url", db.url, "--airflow-home", str(home), "--docker-url", engine.url)
    said: dict[str, Any] = json.loads(dagstop("ps", "--json", *where).stdout)
    return said
