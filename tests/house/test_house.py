"""The rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagstop import sql

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "listener" / "dagstop"

# What each part of the host half may import of the others: the data's one direction.
BASE = {"model", "errors", "logs", "config", "outside", "sql"}
MAY_IMPORT = {
    "outside": BASE | {"evidence"},
    "evidence": BASE,
    "kill": BASE | {"evidence"},
    "orders": BASE | {"evidence"},
    "wire": BASE,
    "reporting": BASE | {"wire"},
    "notices": BASE | {"orders", "reporting", "wire"},
    "report": BASE | {"evidence", "kill"},
    "tally": {"model"},
    "ended": BASE | {"evidence"},
    "begun": BASE,
    "task_logs": BASE | {"report"},
    "work": BASE | {"evidence", "kill", "report", "begun", "task_logs"},
    "stopping": BASE
    | {"evidence", "kill", "notices", "report", "work", "ended", "begun", "tally", "task_logs"},
    "daemon": BASE | {"evidence", "kill", "notices", "stopping", "begun"},
    "page": BASE | {"commands", "tally"},  # a process of its own
}


def imported(path: Path) -> Iterator[str]:
    """The parts of dagstop that a module imports when it is loaded or called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dagstop"):
            words = node.module.split(".")
            yield from [words[1]] if len(words) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("dagstop."))


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_the_stages_are_imported_one_way(part: str) -> None:
    place = PACKAGE / part
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for path in paths:
        wrong = set(imported(path)) - MAY_IMPORT[part] - {part, "__version__"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_only_the_lab_and_its_command_know_the_lab() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "lab" not in path.parts and path.name != "demo.py":
            assert "lab" not in set(imported(path)), path


def test_every_named_query_is_used_and_every_used_one_exists() -> None:
    used: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        used |= set(re.findall(r'"([a-z_]+)"', path.read_text(encoding="utf-8")))
    assert {*sql.queries(), *sql.queries("page")} - used == set()


def test_the_daemon_loads_neither_sqlalchemy_nor_alembic_nor_docker() -> None:
    """They cost some 40 MB and half a second; they are for install, and for hosts with an engine."""
    import subprocess
    import sys

    code = (
        "import sys, dagstop.daemon, dagstop.commands.listen;"
        "print(sorted({'sqlalchemy', 'alembic', 'docker', 'rich', 'prometheus_client', 'http.server'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_sql_in_python_outside_migrations_and_the_lab() -> None:
    """Statements live in sql/*.sql; LISTEN, NOTIFY and settings of the session stand where they are sent."""
    pattern = re.compile(r'"(select|insert|update|delete|create|drop|alter)\s', re.IGNORECASE)
    allowed = re.compile(r"set_config|pg_notify|to_regnamespace|pg_advisory", re.IGNORECASE)
    for path in PACKAGE.rglob("*.py"):
        if "lab" in path.parts:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not pattern.search(line) or allowed.search(line), f"{path.name}: {line.strip()}"
