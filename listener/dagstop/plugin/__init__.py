"""The Airflow plugin that `dagstop plugin` prints. The file itself runs in Airflow's Python."""

from __future__ import annotations

from importlib import resources

FILE_NAME = "dagstop_plugin.py"


def text() -> str:
    """Return the plugin file: Python 2.7 and 3.5+ source for Airflow's plugins folder."""
    return resources.files(__name__).joinpath(FILE_NAME).read_text(encoding="utf-8")
