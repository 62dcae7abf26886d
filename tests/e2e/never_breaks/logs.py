"""What Airflow's processes print when somebody else's trigger hurts them."""

from __future__ import annotations

import re
from pathlib import Path

# StaleDataError: a row that an UPDATE should have met was not there; ours: a message of Postgres that names
# a function, table or trigger of dagstop's (paths of the tests have its name, too)
_TROUBLE = re.compile(
    r"StaleDataError|DeadlockDetected|deadlock detected|PL/pgSQL function dagstop|schema \"?dagstop|dagstop\.\w+\("
)


def troubles(text: str) -> list[str]:
    """The lines that tell of trouble, each with its number."""
    return [f"{n}: {line[:300]}" for n, line in enumerate(text.splitlines(), 1) if _TROUBLE.search(line)]


def of_folder(folder: Path) -> list[str]:
    """The same of all logs in a folder and below."""
    return [
        f"{path.relative_to(folder)}:{line}"
        for path in sorted(folder.rglob("*.log"))
        for line in troubles(path.read_text(errors="replace"))
    ]
