"""`dagstop ps` and `dagstop explain`: what of Airflow runs on this host, and what an order would do.

Both look as the listener looks and judge as it judges; neither signals anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
from psycopg2.extras import Json

from dagstop.commands.common import (
    airflow_options,
    ask,
    database_option,
    homes_of,
    json_option,
    open_database,
    print_json,
    print_table,
    span,
    spellings,
    url_of,
)
from dagstop.commands.listen import uids
from dagstop.config import DEFAULT_DOCKER, default_state_dir
from dagstop.errors import DagstopError
from dagstop.evidence import memory
from dagstop.evidence.containers import Container, judge_container, read_client
from dagstop.evidence.index import Index
from dagstop.evidence.match import judge
from dagstop.evidence.surroundings import survey, trusted_uids
from dagstop.evidence.watch import Watch
from dagstop.model import Decision, Label, Process, Role
from dagstop.orders import read_order
from dagstop.outside.engine import Engine, EngineUnreachable
from dagstop.outside.procfs import TICKS_PER_SECOND, ProcFS
from dagstop.report import command

_POLICY = "not attributable: install the cluster policy (`dagstop policy`), then new ones will be"


def look(homes: Sequence[str], task_users: Sequence[str], proc: ProcFS) -> Watch:
    """The host as the listener sees it, with what its listener remembers where we may read that."""
    known = uids(task_users)
    watch = Watch(proc, trusted_uids=lambda: trusted_uids(homes, known), own_pid=os.getpid())
    with suppress(OSError):
        watch.restore(memory.load(Path(default_state_dir()), proc.boot_id()))
    watch.look()
    return watch


def containers_of(docker_urls: Sequence[str]) -> tuple[list[Container], list[str]]:
    """All running containers, and what went wrong with an engine."""
    found: list[Container] = []
    problems: list[str] = []
    for docker_url in docker_urls or (DEFAULT_DOCKER,):
        engine = Engine(docker_url)
        try:
            if engine.exists:
                found += engine.running()
        except EngineUnreachable as exc:
            problems.append(str(exc))
        finally:
            engine.close()
    return found, problems


@click.command()
@database_option
@airflow_options
@json_option
def ps(
    database_url: str | None,
    airflow_homes: tuple[str, ...],
    task_users: tuple[str, ...],
    docker_urls: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show every Airflow task process and container on this host, orphans too."""
    url = url_of(database_url, airflow_homes)
    connection = open_database(url, "ps")
    proc = ProcFS()
    watch = look(airflow_homes, task_users, proc)
    containers, problems = containers_of(docker_urls)
    tasks: dict[Any, dict[str, Any]] = {}
    for process in watch.labelled():
        if process.role is not Role.SERVICE and process.state != "Z":
            _add_process(tasks, process, proc)
    for container in containers:
        if container.label is not None:
            entry = tasks.setdefault(_key(container.label), _entry(container.label))
            entry["containers"].append({"id": container.id[:12], "name": container.name})
    rows = list(tasks.values())
    _add_states(rows, ask(connection, url, "task_states", **_keys(rows)))
    connection.close()
    strangers = _strangers(watch, containers)
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


def _key(label: Label) -> Any:
    run = label.run_id or label.logical_date
    if label.dag_id is None:
        return label.ti_id
    return (label.dag_id, run, label.task_id, label.map_index, label.job_id or label.try_number)


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


def _add_process(tasks: dict[Any, dict[str, Any]], process: Process, proc: ProcFS) -> None:
    label = process.label
    assert label is not None
    entry = tasks.setdefault(_key(label), _entry(label))
    age = (proc.now_ticks() - process.identity.start) / TICKS_PER_SECOND
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
        "orphan" if row["orphan"] else "",
    ]


def _strangers(watch: Watch, containers: Sequence[Container]) -> list[dict[str, str]]:
    """What Airflow surely started, but nobody can say for which task."""
    found = [
        {"what": f"container {c.name} ({c.image})", "why": _POLICY}
        for c in containers
        if c.label is None and "AIRFLOW_TMP_DIR" in c.tags
    ]
    for process in watch.processes.values():
        if process.label is None and process.sid == process.pid and process.role is Role.OTHER:
            folder = ""
            with suppress(OSError):
                folder = os.path.basename(os.readlink(f"/proc/{process.pid}/cwd"))
            if folder.startswith("airflowtmp"):
                found.append({"what": f"process {process.pid} ({command(process)})", "why": _POLICY})
    return found


@click.command()
@click.argument("dag_id", metavar="DAG")
@click.argument("run_id", metavar="RUN")
@database_option
@airflow_options
@click.option("--task-id", help="Only this task.")
@json_option
def explain(
    dag_id: str,
    run_id: str,
    database_url: str | None,
    airflow_homes: tuple[str, ...],
    task_users: tuple[str, ...],
    docker_urls: tuple[str, ...],
    task_id: str | None,
    as_json: bool,
) -> None:
    """Show what would die on this host if run RUN of DAG were marked failed now, and why."""
    homes = homes_of(airflow_homes)
    url = url_of(database_url, homes)
    connection = open_database(url, "explain")
    rows = ask(connection, url, "would_be_order", dag_id=dag_id, run_id=run_id, task_id=task_id)
    connection.close()
    if not rows:
        raise DagstopError(f"There is no run {run_id!r} of DAG {dag_id!r} in this database")
    order = read_order(rows[0])
    proc = ProcFS()
    watch = look(homes, task_users, proc)
    containers, problems = containers_of(docker_urls)
    urls = (url, *spellings(homes))
    around = survey(homes, urls, watch.processes.values(), proc, os.getpid())
    facts: list[dict[str, Any]] = []
    clients = []
    for process in Index(watch.labelled(), lambda p: p.label).of(order):
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - process.identity.start / TICKS_PER_SECOND
        verdict = judge(order, process, order.db_now - timedelta(seconds=age), around)
        if verdict.decision is not Decision.FOREIGN:
            facts.append(_fact(f"pid {process.pid}", command(process), verdict))
        if (client := read_client(process)) is not None:
            clients.append(client)
    offset = order.db_now - datetime.now(timezone.utc)
    for container in containers:
        client = next((c for c in clients if c.name == container.name), None)
        created = container.created_at + offset
        verdict = judge_container(order, container, client, created, around)
        if verdict.decision is not Decision.FOREIGN:
            facts.append(_fact(f"container {container.id[:12]}", container.name, verdict))
    facts.sort(key=lambda fact: fact["verdict"])
    if as_json:
        print_json({"dag_id": dag_id, "run_id": run_id, "found": facts, "problems": problems})
        return
    print_table(
        ["VERDICT", "WHAT", "COMMAND", "WHY", "EVIDENCE"],
        [[f["verdict"], f["what"], f["command"], f["why"], ", ".join(f["evidence"])] for f in facts],
        "nothing of this run is on this host",
    )
    for problem in problems:
        click.echo(f"dagstop: {problem}", err=True)


def _fact(what: str, name: str, verdict: Any) -> dict[str, Any]:
    return {
        "what": what,
        "command": name,
        "verdict": verdict.decision.value,
        "why": verdict.reason,
        "evidence": list(verdict.evidence),
    }
