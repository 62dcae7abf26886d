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
from datetime import datetime, timezone
from typing import NamedTuple

from dagstop.model import Label, Role

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RUNNER_3 = re.compile(rf"airflow worker -- ({_UUID})\s*")
_SUPERVISOR_3 = re.compile(rf"airflow (?:supervisor|worker -- LocalExecutor[^:]*): ({_UUID})\s*")
_TASK_RUNNER = "airflow task runner: "
_TASK_SUPERVISOR = "airflow task supervisor: "
_FLAGS_WITHOUT_VALUE = frozenset(
    "--local --raw --force --mark-success --mark_success --interactive --no-shut-down-logging"
    " --ignore-all-dependencies --ignore_all_dependencies --ignore-dependencies"
    " --ignore_dependencies --ignore-depends-on-past --ignore_depends_on_past --ship-dag"
    " --ship_dag --read-from-db -A -i -I -l -f -m -int -N".split()
)
_SHELLS = frozenset({"sh", "bash", "dash"})
_SERVICE_NAMES = frozenset(
    {
        *("sshd", "cron", "dockerd", "containerd", "postgres", "postmaster"),
        *("pgbouncer", "redis-server", "rabbitmq-server", "podman"),
        *("containerd-shim", "containerd-shim-runc-v2", "docker-proxy", "tini", "dumb-init"),
        *("systemd-journald", "systemd-udevd", "dbus-daemon", "kubelet", "crio", "mysqld"),
    }
)
_INIT_NAMES = frozenset({"systemd", "init", "runsv", "supervisord"})  # adopt orphans
_SERVICE_COMMANDS = frozenset(
    {
        *("scheduler", "webserver", "api-server", "triggerer", "dag-processor", "standalone"),
        *(
            "worker",
            "celery",
            "flower",
            "kerberos",
            "backfill",
            "fastapi-api",
            "serve_logs",
            "edge",
        ),
    }
)


class Named(NamedTuple):
    """A role, and the label that the words themselves give."""

    role: Role
    label: Label | None = None


OTHER = Named(Role.OTHER)


def parse_date(text: str | None) -> datetime | None:
    """An ISO 8601 date as Airflow writes it; one without a zone is UTC, as in Airflow."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,18}", text) else None


def read_command(argv: Sequence[str]) -> Named:
    """The role of a process and, for a runner or supervisor, the task instance it is for."""
    if not argv:
        return OTHER
    title = " ".join(argv)
    # setproctitle leaves one word, the scheduler's among them: `.../python .../airflow scheduler`
    argv = title.split() if len(argv) == 1 else argv
    if title.startswith("airflow "):
        if named := _read_title(title):
            return named
    program = os.path.basename(argv[0].rstrip(":"))
    if program in _SERVICE_NAMES or program in _INIT_NAMES:
        return Named(Role.SERVICE)
    if title.startswith(("[celeryd", "gunicorn:", "celeryd:")):
        return Named(Role.SERVICE)
    if program in _SHELLS and len(argv) >= 3 and argv[1] == "-c":
        try:
            words = shlex.split(argv[2])
        except ValueError:
            return OTHER
        words = words[1:] if words[:1] == ["exec"] else words
        # only a shell that is nothing but the wrapper of one airflow command
        return _read_airflow(words) if _is_airflow(words[:2]) else OTHER
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
    if title.startswith(_TASK_RUNNER):
        words = title[len(_TASK_RUNNER) :].split()
        if len(words) >= 4:
            run, job = " ".join(words[2:-1]), _number(words[-1])
            return Named(Role.RUNNER, _task(words[0], words[1], run, job))
    if title.startswith(_TASK_SUPERVISOR):
        try:
            words = [str(word) for word in ast.literal_eval(title[len(_TASK_SUPERVISOR) :].strip())]
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return Named(Role.SUPERVISOR)
        return Named(Role.SUPERVISOR, _read_airflow(words).label)
    if title.startswith(("airflow scheduler", "airflow worker -- LocalExecutor", "airflow serve")):
        return Named(Role.SERVICE)
    if title.startswith(("airflow triggerer", "airflow api_server", "airflow api-server")):
        return Named(Role.SERVICE)
    return None


def _is_airflow(words: Sequence[str]) -> bool:
    return any(os.path.basename(word) == "airflow" for word in words)


def _task(dag_id: str, task_id: str, run: str, job_id: int | None) -> Label:
    """`run` is an execution date up to Airflow 2.1 and a run_id from 2.2 on."""
    date = parse_date(run) if "T" in run else None
    return Label(
        dag_id=dag_id,
        task_id=task_id,
        run_id=None if date else run,
        logical_date=date,
        job_id=job_id,
    )


def _read_airflow(argv: Sequence[str]) -> Named:
    """`[sudo ...] [python] .../airflow [tasks] run DAG TASK RUN options`, or a service of Airflow."""
    for index, word in enumerate(argv[:12]):
        if os.path.basename(word) == "airflow":  # also `python -m airflow`
            words = list(argv[index + 1 :])
            break
    else:
        return OTHER
    if not words:
        return OTHER
    grouped = words[0] == "tasks"
    words = words[1:] if grouped else words
    if words[:1] == ["test"]:
        return Named(Role.TEST)
    if words[:1] != ["run"]:
        return Named(Role.SERVICE) if {words[0] if words else ""} & _SERVICE_COMMANDS else OTHER
    return _read_run(words[1:])


def _read_run(words: Sequence[str]) -> Named:
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
    label = _task(plain[0], plain[1], plain[2], _number(options.get("job-id")))
    index = _number(options.get("map-index"))
    if index is not None:
        label = label.filled_from(Label(map_index=index))
    return Named(Role.RUNNER if "--raw" in flags else Role.SUPERVISOR, label)


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
        airflow_home=tags.get("DAGSTOP_AIRFLOW_HOME") or tags.get("AIRFLOW_HOME") or None,
        database=tags.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
        or tags.get("AIRFLOW__CORE__SQL_ALCHEMY_CONN")
        or None,
    )
