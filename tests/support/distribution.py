"""sdist and wheel of a release: built from a copy, inspected, and installed without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# the folders at the top, and what they are in the package: sql and migrations are linked into it
PACKAGES = {"listener/dagstop": "dagstop", "sql": "dagstop/sql", "migrations": "dagstop/migrations"}
BESIDE = ("pyproject.toml", "README.md", "LICENSE")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AIRFLOW", "DAGSTOP_"))}
ENVIRONMENT["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"


def run(*command: object) -> str:
    """What a command prints. Raises AssertionError with all that it said if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, cwd="/", env=ENVIRONMENT
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def build(source: Path, out: Path) -> None:
    """Write the sdist, and the wheel that is made of the sdist, to `out`; `source` is an empty folder."""
    # a copy: a build writes beside its source, and takes in what an earlier one left
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("listener", "sql", "migrations"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignore)
    for name in BESIDE:
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--quiet", "--outdir", out, source)
    run(sys.executable, "-m", "twine", "check", "--strict", *out.iterdir())


def look(out: Path) -> None:
    """Raises AssertionError unless the wheel has the files of the package, each of them, and nothing else."""
    sources = {
        Path(package) / path.relative_to(ROOT / folder)
        for folder, package in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    in_wheel = {Path(name) for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel == sources, in_wheel ^ sources
    with tarfile.open(sdist) as archive:
        in_sdist = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    in_package = {Path("listener") / path for path in sources}
    assert in_package | {Path(name) for name in BESIDE} <= in_sdist
    assert not any("tests" in path.parts for path in in_wheel | in_sdist)


def install_wheel(out: Path, venv: Path) -> Path:
    """The bin folder of a new virtual environment with nothing but the wheel and what it needs."""
    run(sys.executable, "-m", "venv", venv)
    (wheel,) = out.glob("*.whl")
    run(venv / "bin" / "pip", "install", "--quiet", wheel)
    run(venv / "bin" / "pip", "check")
    return venv / "bin"
