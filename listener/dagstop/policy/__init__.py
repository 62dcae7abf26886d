"""The cluster policy that `dagstop policy` prints. The file itself runs in Airflow's Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

FILE_NAME = "dagstop_policy.py"


def text() -> str:
    """Return the policy file: Python 2.7 and 3.5+ source for `airflow_local_settings.py`."""
    return resources.files(__name__).joinpath(FILE_NAME).read_text(encoding="utf-8")


def version(source: str) -> int | None:
    """The version of a policy file, however it is named; None for what is not one of ours."""
    if "def tag_task(" not in source or "DAGSTOP_AIRFLOW_HOME" not in source:
        return None
    found = re.search(r"^VERSION = ([0-9]{1,6})$", source, re.MULTILINE)
    return int(found.group(1)) if found else 1


def installed(homes: Sequence[str]) -> Iterator[tuple[Path, int | OSError | None]]:
    """The files of these AIRFLOW_HOMEs that may be the policy, with their version, or why that is not known.

    Airflow also finds one elsewhere on PYTHONPATH.
    """
    for home in homes:
        for name in ("airflow_local_settings.py", FILE_NAME):
            for path in (Path(home, "config", name), Path(home, "plugins", name)):
                try:
                    yield path, version(path.read_text(encoding="utf-8", errors="replace"))
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    yield path, exc
