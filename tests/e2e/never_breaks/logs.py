"""What Airflow's processes print when somebody else's trigger hurts them."""

from __future__ import annotations

import re
from pathlib import Path

# StaleDataError: a row that an UPDATE should have met was not there; ours: a message of Postgres that names
# a function, table or trigger of dagstop's (paths of the tests have its name, too)
_TROUBLE = re.compile(r"StaleDataError|PL/pgSQL function dagstop|schema \"?dagstop|dagstop\.\w+\(")

_DEADLOCK = re.compile(r"ERROR:  deadlock detected\n(?:\t.*\n|.* (?:DETAIL|HINT|CONTEXT|STATEMENT):  .*\n)*")
# Airflow 2's own (its issue 27473, seen with dagstop's triggers disabled too): a task's process takes its task
# instance, then writes what it remembers of the run; a click on a run with pending tasks does it the other way round
_OWN = re.compile(r"Process \d+: UPDATE dag_run SET last_scheduling_decision=(?!.*\bstate=)")


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


def deadlocks(server_log: str) -> list[str]:
    """The deadlocks that a Postgres tells of, without those that Airflow 2 has with itself when nobody else is there.

    Postgres is asked, not Airflow: it alone names both sides.
    """
    return [
        text for text in _DEADLOCK.findall(server_log) if not _OWN.search(text) or "PL/pgSQL function" in text
    ]
