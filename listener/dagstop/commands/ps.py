"""`dagstop ps`: every task of Airflow on this host, orphans too."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import click
from psycopg2.extras import Json

from dagstop.airflow_names import same_place
from dagstop.commands.common import (
    Chosen,
    airflow_options,
    database_option,
    json_option,
    print_json,
    print_table,
    url_of,
)
from dagstop.commands.looking import look_around, state_dir_of, state_dir_option
from dagstop.database.asking import ask, open_database
from dagstop.evidence.gaps import strangers_of_podman
from dagstop.evidence.noted import Untied
from dagstop.evidence.place import why_not_ours
from dagstop.evidence.site import Site
from dagstop.evidence.ties import Ties
from dagstop.evidence.verdicts import Containers, inside
from dagstop.evidence.watch import Watch
from dagstop.host.containers import Container
from dagstop.host.places import container_in
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Label, Process, Role
from dagstop.report.findings import command
from dagstop.words import span

_POLICY = (
    "not attributable: its task ran without the cluster policy (`dagstop policy`); with it new ones will be"
)
_NO_WORDS = (
    "not attributable: it works in a bash task's folder, but dropped its environment and lost its parents"
    " before a listener saw them"
)
_PODMAN = "not attributable: not a task's, or podman started it while no listener was told for whom"
_NO_TAGS = "not attributable: not a task's, or its task ran without the cluster policy (`dagstop policy`)"


@click.command()
@database_option
@airflow_options
@state_dir_option
@json_option
def ps(
    database_url: str | None,
    chosen: Chosen,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Show every Airflow task and container on this host.

    Orphans too: what outlived the processes of Airflow that started it.
    """
    url = url_of(database_url, chosen.airflow_homes)
    connection = open_database(url, "ps")
    proc = ProcFS()
    folder, unread = state_dir_of(state_dir, ask(connection, url, "listeners"))
    here = look_around(chosen, url, proc, folder, os.getpid())
    watch, ties, found, site = here.watch, here.ties, here.containers, here.site
    problems = here.problems + unread
    tasks = Tasks(site, {container.id: container.name for container in found})
    families = _families(watch.labelled())
    known = _labels(Containers(found, ties.clients(), untied=ties.untied()), site, families)
    shown = [c for c in found if c.id in known]
    # what runs in a container that has its line is shown by that
    within = inside(proc, shown, (process.pid for process in watch.labelled()))
    for process in watch.labelled():
        if process.role is not Role.SERVICE and process.state != "Z" and process.pid not in within:
            tasks.add_process(process, *families[process.pid], proc)
    for container in shown:
        tasks.add_container(container, known[container.id])
    rows = tasks.rows
    own = [row for row in rows if not row["foreign"]]
    _add_states(own, ask(connection, url, "task_states", **_keys(own)))
    connection.close()
    untied = [c for c in found if c.id not in known]
    strangers = _strangers(watch, found, untied, proc, ties)
    if as_json:
        print_json({"tasks": rows, "not_attributable": strangers, "problems": problems})
        return
    print_table(
        ["DAG", "RUN", "TASK", "TRY", "PIDS", "CONTAINERS", "AGE", "STATE", "RUN STATE", ""],
        [_ps_line(row) for row in rows],
        "no Airflow task runs on this host",
    )
    for stranger in strangers:
        click.echo(f"{stranger['what']}: {stranger['why']}")
    for problem in problems:
        click.echo(f"dagstop: {problem}", err=True)


Family = tuple[Label, int | None]
"""What ties processes together in one line: their label, and the pid of the runner that they descend from."""


def _families(labelled: Sequence[Process]) -> dict[int, Family]:
    """By pid; a runner, its supervisor and all that it started have one and the same.

    With run_as_user there is a sudo between those two: what 3.x's uuid names is of one try, too.
    """
    found: dict[int, Family] = {p.pid: (p.label, None) for p in labelled if p.label is not None}
    for runner in labelled:
        if runner.role is not Role.RUNNER or runner.state == "Z":
            continue
        site = [
            p.pid
            for p in labelled
            if runner.pid in p.line or (p.role is Role.SUPERVISOR and p.pid in runner.line)
        ]
        label = found[runner.pid][0]
        for pid in site:  # some of them say what others do not
            label = label.filled_from(found[pid][0])
        found |= dict.fromkeys(site, (label, runner.pid))
    tries: dict[str | None, Label] = {}
    for label, _ in found.values():
        if label.ti_id is not None:
            tries[label.ti_id] = tries.get(label.ti_id, label).filled_from(label)
    return {pid: (tries.get(label.ti_id, label), runner_pid) for pid, (label, runner_pid) in found.items()}


class Tasks:
    """The lines of the table: one for each try of a task instance of each Airflow."""

    def __init__(self, site: Site, names: Mapping[str, str]) -> None:
        """names: of containers, by id."""
        self._site = site
        self._names = names
        self._labels: dict[Any, Label] = {}
        self._rows: dict[Any, dict[str, Any]] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows.values())

    def add_process(self, process: Process, label: Label, runner: int | None, proc: ProcFS) -> None:
        row = self._row(label, runner, self._foreign(process, label), process.place)
        row["processes"].append(
            {
                "pid": process.pid,
                "role": process.role.value,
                "command": command(process),
                "evidence": list(process.evidence),
                # not the task's own: it was started by `docker exec`, or a worker lives there
                "container": self._names.get(container_in(proc.cgroups(process.pid)) or ""),
            }
        )
        row["age_seconds"] = max(row["age_seconds"], proc.age(process.identity.start))
        # an Airflow process is still there to look after it
        row["orphan"] = row["orphan"] and process.role not in {Role.RUNNER, Role.SUPERVISOR}

    def add_container(self, container: Container, label: Label) -> None:
        """Into the line of its try, though its tags may say less or more than the processes do."""
        alike = [key for key, known in self._labels.items() if _one_try(label, known)]
        alike.sort(key=lambda key: not self._rows[key]["processes"])
        row = self._rows[alike[0]] if alike else self._row(label, None, self._other(label))
        row["containers"].append({"id": container.id[:12], "name": container.name})
        row["age_seconds"] = max(row["age_seconds"], time.time() - container.created_at.timestamp())

    def _foreign(self, process: Process, label: Label) -> bool:
        """True for what is another Airflow's: in a container, by that; each home is its own there."""
        if process.place is None:
            return self._other(label)
        place = self._site.places.get(process.place)
        return why_not_ours(place, self._site.databases) is not None

    def _other(self, label: Label) -> bool:
        return bool(self._site.homes) and not self._site.may_be_ours(label)

    def _row(
        self, label: Label, runner: int | None, foreign: bool, place: Identity | None = None
    ) -> dict[str, Any]:
        key = (self._key(label, runner), place)  # two containers show the same home
        self._labels[key] = self._labels.get(key, label).filled_from(label)
        if key not in self._rows:
            self._rows[key] = {
                **{name: getattr(label, name) for name in _SHOWN},
                "processes": [],
                "containers": [],
                "orphan": True,
                "age_seconds": 0.0,
                "state": None,
                "run_state": None,
                "foreign": foreign,
            }
        return self._rows[key]

    def _key(self, label: Label, runner: int | None) -> Any:
        """Titles of two Airflows may be the same, job id and all: without a home, their runners differ."""
        if label.dag_id is None:
            return label.ti_id
        run = label.run_id or label.logical_date
        database = label.database if label.database and not self._site.is_database(label.database) else None
        home = label.airflow_home or (runner if label.ti_id is None else None)
        return (label.dag_id, run, label.task_id, label.map_index, _attempt(label), home, database)


_SHOWN = (
    *("dag_id", "run_id", "logical_date", "task_id", "map_index", "try_number", "job_id", "ti_id"),
    "airflow_home",
)


def _attempt(label: Label) -> Any:
    return label.job_id or label.try_number


def _one_try(label: Label, known: Label) -> bool:
    """True if two labels name the same try of the same task instance, as far as both know."""
    if label.ti_id is not None and label.ti_id == known.ti_id:
        return True
    homes = (label.airflow_home, known.airflow_home)
    if None not in homes and not same_place(str(homes[0]), str(homes[1])):
        return False
    named = label.dag_id is not None and (label.dag_id, label.task_id) == (known.dag_id, known.task_id)
    runs = (label.run_id, known.run_id), (label.logical_date, known.logical_date)
    one_run = any(mine is not None and mine == theirs for mine, theirs in runs)
    return named and one_run and label.contradicts(known) is None


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
    """Of two lines that claim one try, the one with the process that Airflow recorded has the state."""
    for state in states:
        claims = [row for row in rows if _is_of(row, state)]
        attempts = [(row["job_id"], row["try_number"]) for row in claims]
        for row, attempt in zip(claims, attempts, strict=True):
            twins = attempts.count(attempt) > 1
            if twins and state["pid"] not in {process["pid"] for process in row["processes"]}:
                row["doubt"] = True
                continue
            for name in ("dag_id", "run_id", "task_id"):
                row[name] = row[name] or state[name]
            row["state"], row["run_state"] = state["state"], state["run_state"]


def _is_of(row: dict[str, Any], state: dict[str, Any]) -> bool:
    if row["ti_id"] is not None and row["ti_id"] == state["ti_id"]:
        return True
    if (row["dag_id"], row["task_id"]) != (state["dag_id"], state["task_id"]):
        return False
    if row["map_index"] is not None and row["map_index"] != state["map_index"]:
        return False
    if row["run_id"] is None:
        return bool(row["logical_date"] == state["logical_date"])
    return bool(row["run_id"] == state["run_id"])


def _ps_line(row: dict[str, Any]) -> list[Any]:
    pids = " ".join(str(process["pid"]) for process in row["processes"])
    inside = dict.fromkeys(process["container"] for process in row["processes"] if process["container"])
    names = [container["name"] for container in row["containers"]] + [f"in {name}" for name in inside]
    task = row["task_id"] or row["ti_id"] or "?"
    if row["map_index"] is not None and row["map_index"] >= 0:
        task = f"{task}[{row['map_index']}]"
    return [
        row["dag_id"] or "?",
        row["run_id"] or row["logical_date"] or "?",
        task,
        row["try_number"],
        pids,
        ", ".join(names),
        span(timedelta(seconds=row["age_seconds"])),
        row["state"] or "-",
        row["run_state"] or "-",
        _remark(row),
    ]


def _remark(row: dict[str, Any]) -> str:
    if row["foreign"]:
        return f"of another Airflow, {row['airflow_home'] or 'with another database'}"
    if row.get("doubt"):
        return "possibly another Airflow's: this one recorded a different process"
    return "orphan" if row["orphan"] else ""


def _labels(containers: Containers, site: Site, families: dict[int, Family]) -> dict[str, Label]:
    """By container id, whose each is; what its client does not say, the runner above that does."""
    found: dict[str, Label] = {}
    for ident, container in containers.all.items():
        label, client = containers.label(container, site), containers.clients.get(ident)
        if label is not None and client is not None and client.process.pid in families:
            label = families[client.process.pid][0].filled_from(label)
        if label is not None:
            found[ident] = label
    return found


def _why(container: Container, may: Sequence[Untied], untold: Mapping[str, str]) -> str:
    if may:
        return "not attributable: " + "; ".join(dict.fromkeys(one.why for one in may))
    if container.id in untold:
        return f"not attributable: {untold[container.id]}"
    # DockerOperator's own variable tells that it is a task's
    return _POLICY if "AIRFLOW_TMP_DIR" in container.tags else _NO_TAGS


def _strangers(
    watch: Watch, containers: Sequence[Container], untied: Sequence[Container], proc: ProcFS, ties: Ties
) -> list[dict[str, str]]:
    """What Airflow started, or may have started, but nobody can say for which task."""
    may = ties.untied()
    tasks = [process.identity for process in watch.labelled()]
    age = max((proc.age(task.start) for task in tasks), default=0.0)
    begun = datetime.now(timezone.utc) - timedelta(seconds=age)
    untold = {one.id: verdict.reason for one, verdict in watch.gaps.containers(begun, untied, may)}
    found = [
        {"what": f"container {c.name} ({c.image})", "why": _why(c, may.get(c.id, ()), untold)} for c in untied
    ]
    found += [
        {"what": f"docker exec in {runs.name} ({runs.runs})", "why": _why(runs, who, {})}
        for runs, who in ties.execs.untied().values()
    ]
    said = {one["what"] for one in found}
    for container, process, verdict in watch.gaps.execs(begun, containers, (), watch.processes):
        if (what := f"docker exec in {container.name} ({command(process)})") not in said:
            found.append({"what": what, "why": f"not attributable: {verdict.reason}"})
    for process in watch.processes.values():
        if process.label is None and process.role is Role.OTHER and proc.task_folder(process.pid) is not None:
            found.append({"what": f"process {process.pid} ({command(process)})", "why": _NO_WORDS})
    found += [
        {"what": f"podman container {name}", "why": _PODMAN}
        for name, _ in strangers_of_podman(watch.processes)
    ]
    for process, verdict in watch.gaps.doubtful(tasks, watch.processes):
        why = f"not attributable: {verdict.reason}"
        found.append({"what": f"process {process.pid} ({command(process)})", "why": why})
    return found
