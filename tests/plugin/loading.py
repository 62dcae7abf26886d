"""The printed plugin as a module, as Airflow loads it."""

from __future__ import annotations

import types

from dagstop import plugin

DEFAULT = "http://localhost:8321"


def load() -> types.ModuleType:
    """A new module of the plugin file."""
    loaded = types.ModuleType("dagstop_plugin")
    exec(compile(plugin.text(), plugin.FILE_NAME, "exec"), vars(loaded))
    return loaded
