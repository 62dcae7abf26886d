"""Every setting that an operator may change: those of the database, and those of one listener.

sql/06_settings.sql lists the former and is the judge of their values; this adds how a host says its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from dagstop import sql
from dagstop.errors import SettingError


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of dagstop.setting, or one option of `dagstop listen`."""

    name: str
    default: str
    unit: str  # "seconds"; empty where it has none
    meaning: str
    option: str | None = None  # the option of `dagstop listen` that says it for one host
    in_database: bool = True  # False: a host's own matter, by option or environment only
    per_dag: bool = False  # NAME:DAG_ID is one too, and takes precedence over NAME

    @property
    def variable(self) -> str | None:
        """The environment variable of its option."""
        return self.option and "DAGSTOP_" + self.option.removeprefix("--").replace("-", "_").upper()


_OPTIONS = {"observe_only": "--dry-run", "grace_seconds": "--grace"}
_PER_DAG = frozenset({"grace_seconds"})


def _of_database(known: sql.KnownSetting) -> Setting:
    unit = "seconds" if known.name.endswith("_seconds") else ""
    option = _OPTIONS.get(known.name)
    return Setting(known.name, known.default, unit, known.meaning, option, per_dag=known.name in _PER_DAG)


def _of_host(name: str, default: str, meaning: str) -> Setting:
    return Setting(name, default, "seconds", meaning, f"--{name}", in_database=False)


SETTINGS = (
    *(_of_database(known) for known in sql.settings() if not known.internal),
    _of_host("tick", "0.25", "Time between a listener's looks for new tasks."),
    _of_host("sweep", "30", "Time between a listener's looks for orders that no notification announced."),
)

INTERNAL = frozenset(known.name for known in sql.settings() if known.internal)
"""Rows that `dagstop install` writes for itself."""


def setting(name: str) -> Setting:
    """The setting of that name, or of NAME in NAME:DAG_ID. Raises SettingError."""
    if name in INTERNAL:
        raise SettingError(f"{name} is written by `dagstop install`, not by hand")
    for known in SETTINGS:
        if known.name == name:
            if not known.in_database:
                raise SettingError(
                    f"{name} is set for each host: give its listener {known.option} or {known.variable}"
                )
            return known
        if known.per_dag and name.startswith(f"{known.name}:") and name != f"{known.name}:":
            return known
    names = ", ".join(known.name for known in SETTINGS if known.in_database)
    raise SettingError(f"There is no setting {name!r}; there are {names}, and grace_seconds:DAG_ID")


def seconds(name: str) -> float:
    """The default of a setting in seconds. Raises SettingError."""
    for known in SETTINGS:
        if known.name == name:
            return float(known.default)
    raise SettingError(f"There is no setting {name!r}")
