"""The rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from dagstop import sql

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "listener" / "dagstop"


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


def test_no_sql_in_python_outside_migrations() -> None:
    """Statements live in sql/*.sql; LISTEN, NOTIFY and settings of the session stand where they are sent."""
    pattern = re.compile(r'"(select|insert|update|delete|create|drop|alter)\s', re.IGNORECASE)
    allowed = re.compile(r"set_config|pg_notify|to_regnamespace|pg_advisory", re.IGNORECASE)
    for path in PACKAGE.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not pattern.search(line) or allowed.search(line), f"{path.name}: {line.strip()}"


def test_no_number_stands_twice_in_sql() -> None:
    """The number alone decides what is run first."""
    numbers = [file.name[:2] for file in (ROOT / "sql").glob("[0-9]*.sql")]
    assert len(numbers) == len(set(numbers)) > 20


def test_no_test_module_imports_from_another() -> None:
    """What tests share lives in tests/support, or is a fixture of a conftest."""
    files = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    assert len(files) > 200
    shared = [
        f"{path.relative_to(ROOT)}: {module}"
        for path, text in files.items()
        for module in _imported(ast.parse(text))
        if any(part.startswith("test_") for part in module.split("."))
    ]
    assert shared == []


def _imported(tree: ast.AST) -> Iterator[str]:
    """The full name of each thing that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names)
