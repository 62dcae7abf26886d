"""What a command line, a process title or an environment says, in the forms of each Airflow.

Where the forms come from (package, file): Airflow 1.10 `airflow run DAG TASK DATE --local|--raw
--job_id N` (models.py, command_as_list; task_runner/bash_task_runner.py); 1.10.15 and 2.x
`airflow task runner: DAG TASK DATE-or-RUN JOB` (task/task_runner/standard_task_runner.py) and
`airflow tasks run DAG TASK RUN --job-id N --raw`; 2.x `airflow task supervisor: [argv]`
(executors/local_executor.py); 3.x `airflow worker -- UUID` (task-sdk, task_runner.py) and
`airflow supervisor: UUID`, `airflow worker -- LocalExecutor: UUID` (executors).
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import NamedTuple

from dagstop.database.key import database_key
from dagstop.model import Label, Role

_FRACTION = re.compile(r"\.\d+")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RUNNER_3 = re.compile(rf"airflow worker -- ({_UUID})\s*")
_SUPERVISOR_3 = re.compile(rf"airflow (?:supervisor|worker -- LocalExecutor[^:]*): ({_UUID})\s*")
# no spaces in a dag id or task id; a run_id may hold anything, newlines and double spaces included
_TASK_RUNNER = re.compile(r"airflow task runner: (\S+) (\S+) (.+) (\d+)", re.DOTALL)
_TASK_SUPERVISOR = "airflow task supervisor: "
_FLAGS_WITHOUT_VALUE = frozenset(
    "--local --raw --force --mark-success --mark_success --interactive --no-shut-down-logging"
    " --ignore-all-dependencies --ignore_all_dependencies --ignore-dependencies"
    " --ignore_dependencies --ignore-depends-on-past --ignore_depends_on_past --ship-dag"
    " --ship_dag --read-from-db --verbose -A -i -I -l -f -m -int -N -v".split()
)
_SHELLS = frozenset({"sh", "bash", "dash"})
_WRAPPERS = frozenset({"sudo", "env", "nice", "ionice", "timeout", "setsid", "nohup", "stdbuf"})
_SHELL_SYNTAX = frozenset(";&|<>`$(){}\n")
_SERVICE_NAMES = frozenset(
    {
        *("sshd", "cron", "dockerd", "containerd", "postgres", "postmaster"),
        *("pgbouncer", "redis-server", "rabbitmq-server"),
        *("containerd-shim", "containerd-shim-runc-v2", "docker-proxy"),
        *("systemd-journald", "systemd-udevd", "dbus-daemon", "kubelet", "crio", "mysqld"),
    }
)
_INIT_NAMES = frozenset(  # adopt orphans
    {
        *("systemd", "init", "runsv", "supervisord"),
        *("tini", "dumb-init", "docker-init", "catatonit", "s6-svscan"),
    }
)
_SERVICE_COMMANDS = frozenset(
    {
        *("scheduler", "webserver", "api-server", "triggerer", "dag-processor", "standalone"),
        *("worker", "celery", "flower", "kerberos", "backfill", "fastapi-api", "serve_logs", "edge"),
    }
)
_SERVICE_TITLES = (
    *("airflow scheduler", "airflow executor", "airflow worker -- LocalExecutor", "airflow serve"),
    *("airflow triggerer", "airflow api_server", "airflow api-server", "airflow dag-processor"),
)


class Named(NamedTuple):
    """A role, and the label that the words themselves give."""

    role: Role
    label: Label | None = None


OTHER = Named(Role.OTHER)


def parse_date(text: str | None) -> datetime | None:
    """An ISO 8601 date as Airflow or Postgres writes it; one without a zone is UTC, as in Airflow."""
    if not text:
        return None
    # Postgres drops trailing zeros of the fraction, which Python 3.10 does not read
    text = _FRACTION.sub(lambda match: match[0][:7].ljust(7, "0"), text.strip())
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _number(text: str | None) -> int | None:
    """A number as Airflow writes it; one that no column of its tables holds is none."""
    number = int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,10}", text) else None
    return number if number is not None and -(2**31) <= number < 2**31 else None


def read_command(argv: Sequence[str]) -> Named:
    """The role of a process and, for a runner or supervisor, the task instance it is for."""
    if not argv:
        return OTHER
    title = " ".join(argv)
    # setproctitle leaves one word, the scheduler's among them: `.../python .../airflow scheduler`
    one_word = len(argv) == 1
    argv = title.split() if one_word else argv
    if not argv:
        return OTHER
    if one_word and title.startswith("airflow ") and (named := _read_title(title)) is not None:
        return named
    program = os.path.basename(argv[0].rstrip(":"))
    if program in _SERVICE_NAMES or program in _INIT_NAMES:
        return Named(Role.SERVICE)
    if title.startswith(("[celeryd", "celeryd:", "gunicorn:", "[ready] gunicorn:")):
        return Named(Role.SERVICE)
    if program in _SHELLS and len(argv) >= 3 and argv[1] == "-c":
        # only a shell that is nothing but the wrapper of one airflow command
        if not _SHELL_SYNTAX.isdisjoint(argv[2]):
            return OTHER
        try:
            words = shlex.split(argv[2])
        except ValueError:
            return OTHER
        return _read_airflow(words[1:] if words[:1] == ["exec"] else words)
    return _read_airflow(argv)


def is_init(argv: Sequence[str]) -> bool:
    """True for what adopts orphans, such as `systemd --user`: being its child says nothing."""
    return bool(argv) and os.path.basename(argv[0]) in _INIT_NAMES


def _read_title(title: str) -> Named | None:
    """The titles that Airflow gives its processes with setproctitle."""
    if match := _RUNNER_3.fullmatch(title):
        return Named(Role.RUNNER, Label(ti_id=match.group(1)))
    if match := _SUPERVISOR_3.fullmatch(title):
        return Named(Role.SUPERVISOR, Label(ti_id=match.group(1)))
    if match := _TASK_RUNNER.fullmatch(title):
        dag_id, task_id, run, job = match.groups()
        return Named(Role.RUNNER, _task(dag_id, task_id, run, _number(job)))
    if title.startswith(_TASK_SUPERVISOR):
        try:
            words = [str(word) for word in ast.literal_eval(title[len(_TASK_SUPERVISOR) :].strip())]
            "".join(words).encode()  # what Postgres cannot hold is nobody's id
            if any("\0" in word for word in words):
                return Named(Role.SUPERVISOR)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return Named(Role.SUPERVISOR)
        return Named(Role.SUPERVISOR, _read_airflow(words).label)
    return Named(Role.SERVICE) if title.startswith(_SERVICE_TITLES) else None


def _task(dag_id: str, task_id: str, run: str, job_id: int | None, *, dates: bool = False) -> Label:
    """`run` is an execution date up to Airflow 2.1 and a run_id from 2.2 on.

    A run_id that is written as a date reads as one here; `conflict` and `match` allow for it.
    """
    date = parse_date(run) if dates or "T" in run else None
    if dates:  # `airflow run`, 1.10
        return Label(dag_id=dag_id, task_id=task_id, logical_date=date, job_id=job_id)
    return Label(
        dag_id=dag_id,
        task_id=task_id,
        run_id=None if date else run,
        logical_date=date,
        job_id=job_id,
    )


def _read_airflow(argv: Sequence[str]) -> Named:
    """`[sudo ...] [python] .../airflow [tasks] run DAG TASK RUN options`, or a service of Airflow."""
    words = _after_airflow(argv)
    if not words:
        return OTHER
    grouped = words[0] == "tasks"
    words = words[1:] if grouped else words
    if words[:1] == ["test"]:
        return Named(Role.TEST)
    if words[:1] != ["run"]:
        return Named(Role.SERVICE) if {words[0] if words else ""} & _SERVICE_COMMANDS else OTHER
    return _read_run(words[1:], dates=not grouped)


def _after_airflow(argv: Sequence[str]) -> list[str]:
    """What follows the program `airflow`; an argument of that name (`ls /opt/airflow`) is none."""
    start = 0
    if argv and os.path.basename(argv[0]) in _WRAPPERS:
        for start in range(1, min(len(argv), 12)):
            name = os.path.basename(argv[start])
            if argv[start - 1] not in _NAMES_A_USER and (name == "airflow" or _interprets(name)):
                break
    if start < len(argv) and _interprets(os.path.basename(argv[start])):
        start += 1
        while start < len(argv) and argv[start].startswith("-"):
            start += 1
    if start < len(argv) and os.path.basename(argv[start]) == "airflow":
        return list(argv[start + 1 :])
    return []


_NAMES_A_USER = frozenset({"-u", "--user", "-g", "--group"})


def _interprets(name: str) -> bool:
    return name.startswith(("python", "pypy")) or name in _SHELLS


def _read_run(words: Sequence[str], *, dates: bool) -> Named:
    """The arguments after `airflow run` or `airflow tasks run`."""
    plain: list[str] = []
    options: dict[str, str] = {}
    flags: set[str] = set()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            plain.append(word)
        elif word in _FLAGS_WITHOUT_VALUE:
            flags.add(word)
        else:
            options[name.lstrip("-").replace("_", "-")] = value if equals else next(rest, "")
    if len(plain) < 3:
        return Named(Role.SUPERVISOR)
    label = _task(plain[0], plain[1], plain[2], _number(options.get("job-id")), dates=dates)
    index = _number(options.get("map-index"))
    if index is not None:
        label = label.filled_from(Label(map_index=index))
    return Named(Role.RUNNER if "--raw" in flags else Role.SUPERVISOR, label)


def conflict(one: Label, other: Label) -> str | None:
    """As `Label.contradicts`, where a date on one side may be the other's run_id, written as one."""
    for a, b in ((one, other), (other, one)):
        if a.run_id is None and a.logical_date is not None and parse_date(b.run_id) == a.logical_date:
            return replace(a, logical_date=None).contradicts(b)
    return one.contradicts(other)


def differs(label: Label, source: Label) -> str | None:
    """The field that says that a process is not of the task of what it descends from, or None."""
    mine, theirs = label.airflow_home, source.airflow_home
    if mine is not None and theirs is not None and not same_place(mine, theirs):
        return "AIRFLOW_HOME"
    return conflict(label, source)


def read_tags(tags: Mapping[str, str]) -> Label:
    """What AIRFLOW_CTX_* and the like say, in an environment or in a container's labels."""
    date = tags.get("AIRFLOW_CTX_LOGICAL_DATE") or tags.get("AIRFLOW_CTX_EXECUTION_DATE")
    return Label(
        dag_id=tags.get("AIRFLOW_CTX_DAG_ID") or None,
        run_id=tags.get("AIRFLOW_CTX_DAG_RUN_ID") or None,
        logical_date=parse_date(date),
        task_id=tags.get("AIRFLOW_CTX_TASK_ID") or None,
        map_index=_number(tags.get("AIRFLOW_CTX_MAP_INDEX")),
        try_number=_number(tags.get("AIRFLOW_CTX_TRY_NUMBER")),
    ).filled_from(airflow_of(tags, "DAGSTOP_AIRFLOW_HOME", "AIRFLOW_HOME"))


class TryTags(NamedTuple):
    """What the cluster policy knows of one very try, as Airflow's database has it too."""

    ti_id: str | None
    job_id: int | None
    hostname: str | None
    pid: int | None

    @property
    def known(self) -> bool:
        """False for a container of an earlier policy, whose tags are ids and a home."""
        return self.ti_id is not None or self.job_id is not None


def read_try_tags(tags: Mapping[str, str]) -> TryTags:
    return TryTags(
        ti_id=tags.get("DAGSTOP_TI_ID") or None,
        job_id=_number(tags.get("DAGSTOP_JOB_ID")),
        hostname=tags.get("DAGSTOP_HOSTNAME") or None,
        pid=_number(tags.get("DAGSTOP_PID")),
    )


def airflow_of(environ: Mapping[str, str], *names: str) -> Label:
    """AIRFLOW_HOME and metadata database only, as an environment shows them.

    The first of `names` that is there counts. A home that is not an absolute path (`~/airflow`) says
    nothing: whose home it would be is not known.
    """
    home = next((environ[name] for name in names or ("AIRFLOW_HOME",) if environ.get(name)), "")
    url = environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN") or environ.get("AIRFLOW__CORE__SQL_ALCHEMY_CONN")
    return Label(
        airflow_home=home if home.startswith("/") else None,
        database=database_key(url) if url else None,
    )


def same_place(one: str, other: str) -> bool:
    """True if two paths are one, by whatever links."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)
