"""Every setting that an operator may change, in one place: of the database, and of a listener.

`dagstop config` shows them; the database refuses what `check` refuses (sql/06_settings.sql).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dagstop.errors import SettingError

Check = Callable[[str], str]
"""Gives the value as it is kept; raises ValueError that says what it has to be."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of dagstop.setting, or one option of `dagstop listen`."""

    name: str
    default: str
    unit: str  # "seconds"; empty where it has none
    meaning: str
    check: Check
    option: str | None = None  # the option of `dagstop listen` that says it for one host
    in_database: bool = True  # False: a host's own matter, by option or environment only
    per_dag: bool = False  # NAME:DAG_ID is one too, and goes before NAME

    @property
    def variable(self) -> str | None:
        """The environment variable of its option."""
        return self.option and "DAGSTOP_" + self.option.removeprefix("--").replace("-", "_").upper()


def _whole_seconds(value: str) -> str:
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise ValueError("a whole number of seconds")
    return value.strip()


def _one_of(*words: str) -> Check:
    def check(value: str) -> str:
        if value.strip() not in words:
            raise ValueError(" or ".join(words))
        return value.strip()

    return check


def _patterns(value: str) -> str:
    patterns = [item.strip() for item in re.split("[,\n]", value) if item.strip()]
    if any(re.search(r"[\s\[\]]", pattern) for pattern in patterns):
        raise ValueError("patterns of DAG ids such as billing_*, with a comma or a new line between two")
    return ", ".join(patterns)


def _words(*known: str) -> Check:
    def check(value: str) -> str:
        words = [word.strip() for word in value.split(",") if word.strip()]
        if not set(words) <= set(known):
            raise ValueError(f"of {', '.join(known)}, with commas between")
        return ", ".join(words)

    return check


def _anything(value: str) -> str:
    return value


SETTINGS = (
    Setting(
        "observe_only",
        "off",
        "",
        "on: nothing is signalled and nothing of Airflow's is changed or refused; orders are written, and"
        " each host reports what would have died. For the first week.",
        _one_of("on", "off"),
        option="--dry-run",
    ),
    Setting(
        "protected",
        "",
        "",
        "DAGs that are never stopped, only reported on: patterns (* and ?) with commas or new lines between.",
        _patterns,
    ),
    Setting(
        "cascade",
        "unfinished",
        "",
        "Which task instances of a failed run fail with it: unfinished, or all (finished ones too).",
        _one_of("unfinished", "all"),
    ),
    Setting(
        "finished_tasks",
        "stop",
        "",
        "What a task that succeeded left running (a daemon, a container), when its run is failed later: stop,"
        " or spare.",
        _one_of("stop", "spare"),
    ),
    Setting(
        "also_stop_on",
        "",
        "",
        "What orders a stop besides failed, with commas between: deleted (the row of a run or of a"
        " running task instance is deleted), skipped, removed (a running task instance is set so).",
        _words("deleted", "skipped", "removed"),
    ),
    Setting(
        "grace_seconds",
        "10",
        "seconds",
        "From SIGTERM to SIGKILL; grace_seconds:DAG_ID for one DAG. The DAG's goes before that of all in the"
        " database, which goes before the listener's --grace.",
        _whole_seconds,
        option="--grace",
        per_dag=True,
    ),
    Setting(
        "settle_seconds",
        "10",
        "seconds",
        "Time that a task which failed by itself gets for its callbacks.",
        _whole_seconds,
    ),
    Setting(
        "fence_seconds",
        "600",
        "seconds",
        "How long a stopped task instance is kept from being revived, at most.",
        _whole_seconds,
    ),
    Setting(
        "order_seconds",
        "86400",
        "seconds",
        "How long a host that was away still carries out an order.",
        _whole_seconds,
    ),
    Setting(
        "live_seconds",
        "60",
        "seconds",
        "A listener not seen for so long counts as dead.",
        _whole_seconds,
    ),
    Setting(
        "keep_seconds",
        "2592000",
        "seconds",
        "How long orders and their reports are kept for the history.",
        _whole_seconds,
    ),
    Setting(
        "airflow_log",
        "on",
        "",
        "Whether each report is a row in Airflow's own audit log too, also of what was spared: on or off.",
        _one_of("on", "off"),
    ),
    Setting(
        "tick",
        "0.25",
        "seconds",
        "Between two looks of a listener for new tasks.",
        _anything,
        option="--tick",
        in_database=False,
    ),
    Setting(
        "sweep",
        "30",
        "seconds",
        "Between two looks of a listener for orders of which no notice came.",
        _anything,
        option="--sweep",
        in_database=False,
    ),
)

INTERNAL = frozenset({"airflow_schema", "triggers_checksum", "listener_role"})
"""Rows that `dagstop install` writes for itself."""


def setting(name: str) -> Setting:
    """The setting of that name, or of NAME in NAME:DAG_ID. Raises SettingError."""
    if name in INTERNAL:
        raise SettingError(f"{name} is written by `dagstop install`, not by hand")
    for known in SETTINGS:
        if known.name == name:
            if not known.in_database:
                raise SettingError(
                    f"{name} is a host's own: give its listener {known.option} or {known.variable}"
                )
            return known
        if known.per_dag and name.startswith(f"{known.name}:") and name != f"{known.name}:":
            return known
    names = ", ".join(known.name for known in SETTINGS if known.in_database)
    raise SettingError(f"There is no setting {name!r}; there are {names}, and grace_seconds:DAG_ID")


def checked(name: str, value: str) -> str:
    """The value as it is kept. Raises SettingError in one line."""
    try:
        return setting(name).check(value)
    except ValueError as exc:
        raise SettingError(f"{name}: {value!r} is not {exc}") from None
