"""`make dist`: the files of a release in dist/, looked into and tried on a database before anyone else does.

Run inside tests.testbed.namespace: `dagstop check` tries its rights on every process that it sees.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.airflow_tables import schema_sql
from tests.support.distribution import ENVIRONMENT, ROOT, build, install_wheel, look, run
from tests.testbed.postgres import Server, binaries

OUT = ROOT / "dist"
SHAPE = "2.11.2"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("source", "home"):
            (place / name).mkdir()
        build(place / "source", OUT)
        look(OUT)
        program = install_wheel(OUT, place / "venv") / "dagstop"
        server = Server(binaries()[max(binaries())])
        try:
            url = server.create_database()
            server.psql(url, schema_sql(SHAPE))
            _try(program, url, place)
        finally:
            server.stop()
    for file in sorted(OUT.iterdir()):
        print(f"dist/{file.name}: {file.stat().st_size:,} bytes")


def _try(program: Path, url: str, place: Path) -> None:
    """What an operator does first, and what says that it worked."""
    print(run(program, "--version"), end="")
    print(run(program, "install", "--database-url", url), end="")
    listen = [program, "listen", "--database-url", url, "--airflow-home", place / "home"]
    with subprocess.Popen([*listen, "--state-dir", place / "state"], env=ENVIRONMENT, cwd="/") as listener:
        try:
            _until_green(program, url, place)
        finally:
            listener.terminate()
    print(run(program, "uninstall", "--database-url", url), end="")


def _until_green(program: Path, url: str, place: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            print(run(program, "check", "--database-url", url, "--airflow-home", place / "home"), end="")
            return
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
