"""`dagstop explain`: what an order would do on this host, judged as the listener judges."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import click

from dagstop.commands.common import (
    Chosen,
    airflow_options,
    database_option,
    homes_of,
    json_option,
    print_json,
    print_table,
    uids,
    url_of,
)
from dagstop.commands.looking import (
    host_names,
    kernel_tells,
    listener_pid,
    look_around,
    state_dir_of,
    state_dir_option,
)
from dagstop.database.asking import ask, open_database
from dagstop.errors import DagstopError
from dagstop.evidence.clock import Clock
from dagstop.evidence.consent import selectors
from dagstop.evidence.site import trusted_uids
from dagstop.evidence.verdicts import Containers, inside, of_containers, of_processes
from dagstop.feed.orders import read_order
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.model import Decision, Process, Verdict
from dagstop.report.findings import Findings, begun_here, command


@click.command()
@click.argument("dag_id", metavar="DAG")
@click.argument("run_id", metavar="RUN")
@database_option
@airflow_options
@state_dir_option
@click.option("--task-id", help="Only this task.")
@json_option
def explain(
    dag_id: str,
    run_id: str,
    database_url: str | None,
    chosen: Chosen,
    state_dir: str | None,
    task_id: str | None,
    as_json: bool,
) -> None:
    """Show what would die on this host, and why, if RUN failed now.

    It signals nothing and changes nothing.
    """
    selectors(chosen.containers)
    chosen = replace(chosen, airflow_homes=homes_of(chosen.airflow_homes, chosen.containers))
    url = url_of(database_url, chosen.airflow_homes)
    connection = open_database(url, "explain")
    rows = ask(connection, url, "would_be_order", dag_id=dag_id, run_id=run_id, task_id=task_id)
    listeners = ask(connection, url, "listeners")
    folder, unread = state_dir_of(state_dir, listeners)
    connection.close()
    if not rows:
        raise DagstopError(f"There is no run {run_id!r} of DAG {dag_id!r} in this database")
    order = read_order(rows[0])
    if task_id and not order.present:
        raise DagstopError(
            f"There is no task {task_id!r} in run {run_id!r} of DAG {dag_id!r} in this database"
        )
    proc = ProcFS()
    clock = Clock(proc)
    clock.offset = (order.db_now - datetime.now(timezone.utc)).total_seconds()
    own = listener_pid(listeners, proc) or os.getpid()
    here = look_around(chosen, url, proc, folder, own)
    watch, ties, problems = here.watch, here.ties, here.problems + unread
    running = Containers(here.containers, ties.clients(), untied=ties.untied(), execs=ties.execs.untied())
    by_container = list(of_containers(order, running, clock.to_db, here.site))
    by_process = list(of_processes(order, watch.index(), clock.started_at, here.site))
    facts = explained(by_process, by_container, proc)
    dying = [process.identity for process, verdict in by_process if verdict.decision is not Decision.SPARE]
    facts += [_process_fact(*one) for one in watch.gaps.doubtful(dying, watch.processes)]
    watch.gaps.always = not kernel_tells(listeners)
    users = trusted_uids(chosen.airflow_homes, uids(chosen.task_users)) | watch.users()
    begun = [clock.started_at(p) for p, verdict in by_process if verdict.decision is not Decision.SPARE]
    begun += [one for one in [begun_here(order, Findings(), host_names(listeners))] if one is not None]
    if begun:
        since, named = clock.from_db(min(begun)), {container.id for container, _ in by_container}
        untold = watch.gaps.containers(since, here.containers, named | ties.clients().keys())
        facts += [_fact(f"container {one.id[:12]}", one.name, verdict) for one, verdict in untold]
        named |= {one.id for one, _ in untold}
        said = {(fact["what"], fact["command"]) for fact in facts}
        facts += [
            _fact(f"docker exec in {one.name}", command(process), verdict)
            for one, process, verdict in watch.gaps.execs(since, here.containers, named, watch.processes)
            if (f"docker exec in {one.name}", command(process)) not in said
        ]
    podmans = watch.gaps.podmans(clock.from_db(min(begun)), users, watch.processes) if begun else ()
    facts += [_fact(f"podman container {name}", command(one), verdict) for name, one, verdict in podmans]
    if as_json:
        print_json({"dag_id": dag_id, "run_id": run_id, "found": facts, "problems": problems})
        return
    print_table(
        ["VERDICT", "WHAT", "COMMAND", "WHY", "EVIDENCE"],
        [[f["verdict"], f["what"], f["command"], f["why"], ", ".join(f["evidence"])] for f in facts],
        "this host has no process or container of this run",
    )
    for problem in problems:
        click.echo(f"dagstop: {problem}", err=True)


def explained(
    by_process: Sequence[tuple[Process, Verdict]],
    by_container: Sequence[tuple[Container, Verdict]],
    proc: ProcFS,
) -> list[dict[str, Any]]:
    """The verdicts on everything that has to do with the order, for people."""
    spared = (process.pid for process, verdict in by_process if verdict.decision is Decision.SPARE)
    within = inside(proc, (container for container, _ in by_container), spared)
    facts = [
        _process_fact(process, verdict)
        for process, verdict in by_process
        if process.state != "Z" and process.pid not in within  # dead, or its container says it all
    ]
    facts += [
        _fact(f"container {container.id[:12]}", container.name, verdict)
        if container.runs is None
        else _fact(f"docker exec in {container.name}", container.runs, verdict)
        for container, verdict in by_container
    ]
    return sorted(facts, key=lambda fact: str(fact["verdict"]))


def _process_fact(process: Process, verdict: Verdict) -> dict[str, Any]:
    return _fact(f"pid {process.pid}", command(process), verdict)


def _fact(what: str, name: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "what": what,
        "command": name,
        "verdict": verdict.decision.value,
        "why": verdict.reason,
        "evidence": list(verdict.evidence),
    }
