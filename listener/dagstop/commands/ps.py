"""`dagstop ps`: every task of Airflow on this host, orphans too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from psycopg2.extras import Json

from dagstop.commands.common import (
    airflow_options,
    ask,
    database_option,
    json_option,
    open_database,
    print_json,
    print_table,
    span,
    url_of,
)
from dagstop.commands.looking import containers_of, look, state_dir_of, state_dir_option
from dagstop.evidence.containers import Container
from dagstop.evidence.surroundings import all_homes
from dagstop.evidence.ties import Ties
from dagstop.evidence.watch import Watch
from dagstop.model import Label, Process, Role
from dagstop.outside.procfs import ProcFS
from dagstop.report import command

_POLICY = (
    "not attributable: its task ran without the cluster policy (`dagstop policy`); with it new ones will be"
)
_NO_WORDS = (
    "not attributable: it works in a bash task's folder, but gave up its environment and lost its parents"
    " before a listener saw whose it is"
)
_NO_TAGS = "not attributable: nobody's task, or one's that ran without the cluster policy (`dagstop policy`)"


@click.command()
@database_option
@airflow_options
@state_dir_option
@json_option
def ps(
    database_url: str | None,
    airflow_homes: tuple[str, ...],
    task_users: tuple[str, ...],
    same_databases: tuple[str, ...],
    docker_urls: tuple[str, ...],
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Show every Airflow task process and container on this host, orphans too."""
    url = url_of(database_url, airflow_homes)
    connection = open_database(url, "ps")
    proc = ProcFS()
    folder, unread = state_dir_of(state_dir, ask(connection, url, "listeners"))
    watch, ties = look(airflow_homes, task_users, proc, folder)
    containers, problems = containers_of(docker_urls, ties)
    problems += unread
    tasks: dict[Any, dict[str, Any]] = {}
    labels = _labels(watch.labelled())
    for process in watch.labelled():
        if process.role is not Role.SERVICE and process.state != "Z":
            _add_process(tasks, process, labels[process.pid], proc)
    through = _through_clients(ties, containers, labels)
    for container in containers:
        label = container.label or through.get(container.id)
        if label is not None:
            entry = tasks.setdefault(_key(label), _entry(label))
            entry["containers"].append({"id": container.id[:12], "name": container.name})
    rows = list(tasks.values())
    ours = all_homes(airflow_homes)
    for row in rows:
        home = row["airflow_home"]
        row["foreign"] = bool(ours) and home is not None and os.path.realpath(home) not in ours
    own = [row for row in rows if not row["foreign"]]
    _add_states(own, ask(connection, url, "task_states", **_keys(own)))
    connection.close()
    untied = [c for c in containers if c.label is None and c.id not in through]
    strangers = _strangers(watch, untied, proc)
    if as_json:
        print_json({"tasks": rows, "not_attributable": strangers, "problems": problems})
        return
    print_table(
        ["DAG", "RUN", "TASK", "TRY", "PIDS", "CONTAINERS", "AGE", "STATE", "RUN STATE", ""],
        [_ps_line(row) for row in rows],
        "no task of Airflow runs on this host",
    )
    for stranger in strangers:
        click.echo(f"{stranger['what']}: {stranger['why']}")
    for problem in problems:
        click.echo(f"dagstop: {problem}", err=True)


def _labels(labelled: Sequence[Process]) -> dict[int, Label]:
    """By pid: its label, one and the same for a runner, its supervisor and all that it started."""
    found = {p.pid: p.label for p in labelled if p.label is not None}
    for runner in labelled:
        if runner.role is not Role.RUNNER or runner.state == "Z":
            continue
        around = [
            p.pid
            for p in labelled
            if runner.pid in p.line or (p.role is Role.SUPERVISOR and p.pid in runner.line)
        ]
        label = found[runner.pid]
        for pid in around:  # some of them say what others do not
            label = label.filled_from(found[pid])
        found |= dict.fromkeys(around, label)
    return found


def _key(label: Label) -> Any:
    run = label.run_id or label.logical_date
    if label.dag_id is None:
        return label.ti_id
    attempt = label.job_id or label.try_number
    return (label.dag_id, run, label.task_id, label.map_index, attempt, label.airflow_home)


def _entry(label: Label) -> dict[str, Any]:
    return {
        "dag_id": label.dag_id,
        "run_id": label.run_id,
        "logical_date": label.logical_date,
        "task_id": label.task_id,
        "map_index": label.map_index,
        "try_number": label.try_number,
        "job_id": label.job_id,
        "ti_id": label.ti_id,
        "processes": [],
        "containers": [],
        "airflow_home": label.airflow_home,
        "orphan": True,
        "age_seconds": 0.0,
        "state": None,
        "run_state": None,
    }


def _add_process(tasks: dict[Any, dict[str, Any]], process: Process, label: Label, proc: ProcFS) -> None:
    entry = tasks.setdefault(_key(label), _entry(label))
    age = proc.age(process.identity.start)
    entry["processes"].append(
        {
            "pid": process.pid,
            "role": process.role.value,
            "command": command(process),
            "evidence": list(process.evidence),
        }
    )
    entry["age_seconds"] = max(entry["age_seconds"], age)
    # somebody of Airflow's is still there to look after it
    entry["orphan"] = entry["orphan"] and process.role not in {Role.RUNNER, Role.SUPERVISOR}


def _keys(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    keys = [
        {
            "dag_id": row["dag_id"],
            "run_id": row["run_id"],
            "logical_date": row["logical_date"].isoformat() if row["logical_date"] else None,
            "task_id": row["task_id"],
            "map_index": row["map_index"] if row["map_index"] is not None else -1,
        }
        for row in rows
        if row["dag_id"] is not None
    ]
    return {"ti_ids": [row["ti_id"] for row in rows if row["ti_id"]], "keys": Json(keys)}


def _add_states(rows: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        for state in states:
            by_uuid = row["ti_id"] is not None and row["ti_id"] == state["ti_id"]
            run = row["run_id"] == state["run_id"] or (
                row["run_id"] is None and row["logical_date"] == state["logical_date"]
            )
            named = (row["dag_id"], row["task_id"]) == (state["dag_id"], state["task_id"])
            if by_uuid or (named and run):
                for name in ("dag_id", "run_id", "task_id"):
                    row[name] = row[name] or state[name]
                row["state"], row["run_state"] = state["state"], state["run_state"]
                break


def _ps_line(row: dict[str, Any]) -> list[Any]:
    pids = " ".join(str(process["pid"]) for process in row["processes"])
    names = " ".join(container["name"] for container in row["containers"])
    task = row["task_id"] or row["ti_id"] or "?"
    if row["map_index"] is not None and row["map_index"] >= 0:
        task = f"{task}[{row['map_index']}]"
    return [
        row["dag_id"] or "?",
        row["run_id"] or row["logical_date"] or "?",
        task,
        row["try_number"],
        pids,
        names,
        span(timedelta(seconds=row["age_seconds"])),
        row["state"] or "-",
        row["run_state"] or "-",
        f"of {row['airflow_home']}" if row["foreign"] else "orphan" if row["orphan"] else "",
    ]


def _through_clients(
    ties: Ties, containers: Sequence[Container], labels: dict[int, Label]
) -> dict[str, Label]:
    """By container id: the task whose `docker run` started it."""
    found: dict[str, Label] = {}
    for container in containers:
        client = ties.client_of(container.id)
        label = client.process.label if client is not None else None
        if client is not None and label is not None:
            found[container.id] = labels.get(client.process.pid, label)
    return found


def _strangers(watch: Watch, untied: Sequence[Container], proc: ProcFS) -> list[dict[str, str]]:
    """What Airflow started, or may have started, but nobody can say for which task."""
    found = [
        # DockerOperator's own variable tells that it is a task's
        {
            "what": f"container {c.name} ({c.image})",
            "why": _POLICY if "AIRFLOW_TMP_DIR" in c.tags else _NO_TAGS,
        }
        for c in untied
    ]
    for process in watch.processes.values():
        if process.label is None and process.role is Role.OTHER and proc.task_folder(process.pid) is not None:
            found.append({"what": f"process {process.pid} ({command(process)})", "why": _NO_WORDS})
    return found
