"""Built as for a release, installed into an empty environment, and asked what it can do there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dagstop import __version__, policy
from dagstop.install import install_script
from tests.conftest import missing
from tests.listener.test_stop import one_server, shape_2
from tests.support.airflow_tables import AirflowDatabase
from tests.testbed.postgres import Server

ROOT = Path(__file__).parents[2]
# the folders at the top, and what they are in the package: sql and migrations are linked into it
PACKAGES = {"listener/dagstop": "dagstop", "sql": "dagstop/sql", "migrations": "dagstop/migrations"}
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AIRFLOW", "DAGSTOP_"))}
ENVIRONMENT["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, cwd="/", env=ENVIRONMENT
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def without_index(error: BaseException) -> bool:
    said = (
        "NameResolutionError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
    )
    return any(words in str(error) for words in said)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made of the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    # a copy: a build writes beside its source, and takes in what an earlier one left
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("listener", "sql", "migrations"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    try:
        run(sys.executable, "-m", "build", "--quiet", "--outdir", out, source)
    except AssertionError as error:
        if without_index(error):
            missing(error)
        raise
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new virtual environment with nothing but the wheel and what it needs."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", venv)
    (wheel,) = built.glob("*.whl")
    run(venv / "bin" / "pip", "install", "--quiet", wheel)
    run(venv / "bin" / "pip", "check")
    return venv / "bin"


def test_every_file_of_the_source_is_in_both(built: Path) -> None:
    sources = {
        Path(package) / path.relative_to(ROOT / folder)
        for folder, package in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    in_wheel = {Path(name) for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel == sources
    with tarfile.open(sdist) as archive:
        in_sdist = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    in_package = {Path("listener") / path for path in sources}
    assert in_package | {Path("LICENSE"), Path("README.md"), Path("pyproject.toml")} <= in_sdist


@one_server
@shape_2
def test_what_is_installed_works(installed: Path, server: Server, bare_db: AirflowDatabase) -> None:
    program = installed / "dagstop"
    assert run(program, "--version") == f"dagstop {__version__}\n"
    assert run(program, "install", "--sql").strip() == install_script().strip()
    assert run(program, "policy").strip() == policy.text().strip()
    unit = run(program, "systemd")
    assert f"ExecStart={program} listen\n" in unit and "EnvironmentFile=/etc/dagstop/" in unit
    for shell in ("bash", "zsh", "fish"):
        assert "_DAGSTOP_COMPLETE" in run(program, "completion", shell)
    assert "is installed in" in run(program, "install", "--database-url", bare_db.url)
    assert "no open orders" in run(program, "status", "--database-url", bare_db.url)
    assert "is gone from" in run(program, "uninstall", "--database-url", bare_db.url)
    for module in ("dagstop.page.server", "dagstop.daemon", "dagstop.host.engine"):
        run(installed / "python", "-c", f"import {module}")
