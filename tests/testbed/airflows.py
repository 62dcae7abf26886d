"""Builds a real Airflow of a given version into a cache folder, from PyPI with uv; once built, it is reused.

uv resolves as of a day (`--exclude-newer`), instead of by Airflow's constraint files.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from importlib.resources import as_file, files
from pathlib import Path

from tests.testbed import environment

CACHE_VARIABLE = "DAGSTOP_AIRFLOW_CACHE"
_MARKER = "dagstop-built"
_RECENT = "2026-11-15"
_RELEASES = Path(__file__).parent / "releases.csv"  # those from 2.5.0 on, and the day each came to PyPI
_AFTER = timedelta(days=7)
"""How long after its release an Airflow is built of what was there then."""


class BuildError(RuntimeError):
    """An Airflow could not be built."""


@dataclass(frozen=True)
class Recipe:
    """How one release is built: its Python (`3.6`), what to install, as of which day."""

    python: str
    packages: Sequence[str]
    exclude_newer: str
    newer: Sequence[str] = ()
    build_constraints: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    alone: Sequence[str] = field(default=(), repr=False)  # installed last, without what they ask for


def _with_providers(version: str, python: str, exclude_newer: str) -> Recipe:
    """Of a 2.x or 3.x: Docker and Postgres are packages of their own, in some so is the login."""
    fab = ("apache-airflow-providers-fab",) if (2, 9) <= environment.release(version) < (3,) else ()
    packages = (
        f"apache-airflow=={version}",
        "apache-airflow-providers-docker",
        "apache-airflow-providers-postgres",
        *fab,
        "psycopg2-binary",
    )
    return Recipe(python=python, packages=packages, exclude_newer=exclude_newer)


RECIPES = {
    "1.10.0": Recipe(
        python="3.6",
        packages=(
            "apache-airflow[postgres]==1.10.0",
            "docker==2.7.0",
            "psycopg2-binary",
            "pandas==0.25.3",
        ),
        exclude_newer="2018-11-20",
        newer=("setuptools=2021-08-01", "wheel=2021-08-01", "pandas=2019-11-20"),
        build_constraints="constraints-1.10.0.txt",
        environment={"SLUGIFY_USES_TEXT_UNIDECODE": "yes"},
    ),
    "1.10.15": Recipe(
        python="3.7",
        packages=("apache-airflow[postgres,docker]==1.10.15", "sqlalchemy==1.3.23"),
        exclude_newer="2021-03-25",
    ),
    "2.11.2": _with_providers("2.11.2", "3.11", _RECENT),
    "3.3.2": _with_providers("3.3.2", "3.12", _RECENT),
}

VARIANTS = {
    "2.11.2-celery": replace(
        RECIPES["2.11.2"],
        # newer ones lack what that Airflow imports of theirs
        packages=(*RECIPES["2.11.2"].packages, "apache-airflow-providers-celery", "celery<5.6"),
    ),
    "1.10.1-cwl": replace(
        RECIPES["1.10.0"],
        packages=(
            "apache-airflow[postgres]==1.10.1",
            "docker==2.7.0",
            "psycopg2-binary==2.7.6.1",
            "pandas==0.25.3",
            "cryptography",
            "cwltool==1.0.20181201184214",
            "jsonmerge",
            "ruamel.yaml<=0.15.77",
            "sqlparse",
            "pyjwt",
        ),
        exclude_newer="2019-01-05",
        alone=("cwl-airflow-parser==1.0.20181213213631",),  # its client of MySQL does not build
    ),
    "2.1.4-cwl": Recipe(
        python="3.8",
        packages=("cwl-airflow==1.2.11", "apache-airflow[postgres]==2.1.4", "psycopg2-binary"),
        exclude_newer="2021-10-05",
        newer=("setuptools=2021-08-01",),
        build_constraints="constraints-1.10.0.txt",
    ),
}
"""Built in another way than most of the testbed's; named by hand only."""


def recipe(version: str) -> Recipe:
    """How that release is built. Raises BuildError for one that is not known."""
    known = {**RECIPES, **VARIANTS}.get(version)
    if known is not None:
        return known
    with _RELEASES.open() as lines:
        came = {row["version"]: date.fromisoformat(row["day"]) for row in csv.DictReader(lines)}
    if version not in came:
        raise BuildError(
            f"no recipe for Airflow {version}; there are {', '.join([*RECIPES, *VARIANTS, *came])}"
        )
    release = environment.release(version)
    python = "3.9" if release < (2, 6) else "3.11" if release < (3,) else "3.12"
    return _with_providers(version, python, str(came[version] + _AFTER))


def folder(version: str) -> Path:
    """Where the virtual environment of `version` lies, built or not."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named) / f"airflow-{version}"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "dagstop" / f"airflow-{version}"


def build(version: str) -> Path:
    """The virtual environment of Airflow `version`, built now unless it is there.

    Says on stderr what it does. A half-built one (no marker file) is built again; of several
    processes that want the same one, one builds and the others wait.
    """
    how, venv = recipe(version), folder(version)
    venv.parent.mkdir(parents=True, exist_ok=True)
    with (venv.parent / f"{venv.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _built(venv, how):
            _build(version, how, venv)
    return venv


def _build(version: str, recipe: Recipe, venv: Path) -> None:
    _say(f"building Airflow {version} in {venv}")
    shutil.rmtree(venv, ignore_errors=True)
    python = find_python(recipe.python)
    _say(f"Python {recipe.python}: {python}")
    _uv(["venv", "--quiet", "--python", python, str(venv)], {})
    command = ["pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    command += ["--exclude-newer", recipe.exclude_newer]
    for exception in recipe.newer:
        command += ["--exclude-newer-package", exception]
    if recipe.build_constraints:
        with as_file(files("tests.testbed") / recipe.build_constraints) as path:
            constrained = [*command, "--build-constraints", str(path), *recipe.packages]
            _uv(constrained, recipe.environment)
    else:
        _uv([*command, *recipe.packages], recipe.environment)
    if recipe.alone:
        _uv([*command, "--no-deps", *recipe.alone], recipe.environment)
    (venv / _MARKER).write_text(_content(recipe))
    _say(f"Airflow {version} is built")


def _built(venv: Path, recipe: Recipe) -> bool:
    try:
        # a link to a Python that has gone since makes exists() false
        return (venv / _MARKER).read_text() == _content(recipe) and (venv / "bin/python").exists()
    except FileNotFoundError:
        return False


def _content(recipe: Recipe) -> str:
    return f"{recipe}{' '.join(recipe.alone)}\n"


def find_python(version: str) -> str:
    """A path of Python `version`, or the version itself for uv to download."""
    found = subprocess.run(
        [*_uv_command(), "python", "find", "--no-python-downloads", "--system", version],
        capture_output=True,
        text=True,
    )
    path = found.stdout.strip()
    if found.returncode == 0 and _runs(path, version):
        return path
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    pattern = re.compile(re.escape(version) + r"\.(\d+)")
    candidates = [(m, p) for p in root.glob("*") if (m := pattern.fullmatch(p.name))]
    for _, prefix in sorted(candidates, key=lambda pair: int(pair[0].group(1)), reverse=True):
        if _runs(str(prefix / "bin" / "python"), version):
            return str(prefix / "bin" / "python")
    return version


def _runs(path: str, version: str) -> bool:
    """Whether `path` is that Python indeed: a pyenv shim may exist and refuse."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == version


def _uv_command() -> list[str]:
    return [sys.executable, "-m", "uv"]


def _uv(arguments: Sequence[str], environment: dict[str, str]) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_EXCLUDE_NEWER")}
    done = subprocess.run([*_uv_command(), *arguments], env=env | environment, capture_output=True, text=True)
    if done.returncode != 0:
        if "No module named uv" in done.stderr:
            raise BuildError("uv is not installed here: pip install --editable '.[dev]'")
        raise BuildError(f"uv {' '.join(arguments)}\n{done.stderr[-3000:]}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
