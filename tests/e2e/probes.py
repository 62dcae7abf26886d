"""Small programs that run inside a real Airflow, with its database and none of its processes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.testbed import airflows, environment

FOLDER = Path(__file__).parent


class Probes:
    """A real Airflow of that version, its database at `url` (migrated), its home in `folder`."""

    def __init__(self, version: str, url: str, folder: Path) -> None:
        self._programs, self._folder = airflows.build(version) / "bin", folder
        airflow_url = url.replace("postgresql:", "postgresql+psycopg2:")
        self._environment = os.environ | {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": airflow_url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow_url,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PATH": f"{self._programs}:{os.environ['PATH']}",
        }
        self._run(*environment.migration(version))

    def answer(self, probe: str, *arguments: str) -> dict[str, Any]:
        """What a probe of this folder says after ANSWER, as json."""
        said = self._run("python", str(FOLDER / probe), *arguments).rpartition("ANSWER ")[2]
        found: dict[str, Any] = json.loads(said)
        return found

    def _run(self, program: str, *arguments: str) -> str:
        return subprocess.run(
            [self._programs / program, *arguments], env=self._environment, cwd=self._folder, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip
