"""The cluster policy that `dagstop policy` prints. The file itself runs in Airflow's Python."""

from __future__ import annotations

from importlib import resources

FILE_NAME = "dagstop_policy.py"


def text() -> str:
    """Return the policy file: Python 2.7 and 3.5+ source for `airflow_local_settings.py`."""
    return resources.files(__name__).joinpath(FILE_NAME).read_text(encoding="utf-8")
