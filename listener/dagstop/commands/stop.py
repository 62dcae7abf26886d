"""`dagstop stop`: the UPDATE, for those without psql."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import Any

import click
from psycopg2.extensions import connection as Connection

from dagstop.commands.common import database_option, json_option, print_json, url_of
from dagstop.database.asking import ask, open_database
from dagstop.errors import DagstopError
from dagstop.logs import shown
from dagstop.model import is_all_clear
from dagstop.report.words import left, not_told
from dagstop.words import counted

NOBODY = 1.0
"""Seconds of --wait after which it says that no listener is there to wait for."""


@click.command()
@click.argument("dag_id", metavar="DAG")
@click.argument("run_id", metavar="RUN")
@database_option
@click.option("--task-id", help="Only this task (every map index of it).")
@click.option("--wait", is_flag=True, help="Show progress per host until everything is seen dead.")
@click.option("--timeout", default=120.0, show_default=True, help="Wait at most this many seconds.")
@json_option
def stop(
    dag_id: str,
    run_id: str,
    database_url: str | None,
    task_id: str | None,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Mark run RUN of DAG failed, so that it stops.

    A run that is failed already is stopped again. Exits 1 if there is no such run or task, if the
    task has ended already, or, with --wait, if something is or may be left (spared, not found, not to
    be seen) or a host has not answered.
    """
    url = url_of(database_url)
    connection = open_database(url, "stop")
    begun = time.monotonic()
    changed = _update(connection, url, dag_id, run_id, task_id)
    rows = ask(connection, url, "orders_of", dag_id=dag_id, run_id=run_id, task_id=task_id)
    again = not changed and not task_id and all(row["closed_at"] for row in rows)
    if again:
        ask(connection, url, "stop_again", dag_id=dag_id, run_id=run_id)
        rows = ask(connection, url, "orders_of", dag_id=dag_id, run_id=run_id, task_id=task_id)
    if not changed and not rows:
        raise DagstopError(
            f"Task {task_id!r} in run {run_id!r} of DAG {dag_id!r} has ended already; "
            "without --task-id, `dagstop stop` stops whatever is left of the run"
        )
    if not as_json:
        what = f"{dag_id} {run_id}" + (f" {task_id}" if task_id else "")
        said = "already failed; stopping it again" if again else "already failed; its stop is under way"
        click.echo(f"{shown(what)}: " + ("marked failed" if changed else said))
    if wait:
        rows = _wait(connection, url, [row["id"] for row in rows], timeout, quiet=as_json)
    connection.close()
    if as_json:
        print_json({"changed": changed, "orders": rows})
    elif wait:
        click.echo(f"after {time.monotonic() - begun:.2f} s")
    bad = any(row["closed_at"] is None or _left(row) for row in rows)
    sys.exit(1 if wait and (bad or not rows) else 0)


def _update(connection: Connection, url: str, dag_id: str, run_id: str, task_id: str | None) -> int:
    """How many rows turned failed. Raises DagstopError if there is no such run or task."""
    airflow = next(
        row["value"] for row in ask(connection, url, "settings") if row["name"] == "airflow_schema"
    )
    name = "fail_run"
    if task_id:
        by_run = ask(connection, url, "keyed_by_run", schema=airflow)[0]["keyed_by_run"]
        name = "fail_task" if by_run else "fail_task_by_date"
    values = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    rows = ask(connection, url, name, airflow=airflow, **values)
    if not rows[0]["found"]:
        what = f"task {task_id!r} in run {run_id!r}" if task_id else f"run {run_id!r}"
        raise DagstopError(f"There is no {what} of DAG {dag_id!r} in this database")
    return int(rows[0]["changed"])


def _wait(
    connection: Connection, url: str, ids: list[int], timeout: float, *, quiet: bool
) -> list[dict[str, Any]]:
    """Follow the orders until every live host has reported; what the database says at the end."""
    begun = time.monotonic()
    until, nobody_said = begun + timeout, False
    told: set[tuple[int, str]] = set()
    with nullcontext() if quiet or not sys.stdout.isatty() else _Progress() as progress:
        say = click.echo if progress is None else progress.say
        while True:
            rows = ask(connection, url, "progress", ids=ids)
            for row in rows:
                for report in row["reports"]:
                    key = (row["id"], report["host"])
                    if report["outcome"] and key not in told and not quiet:
                        told.add(key)
                        say(_line(row, report))
            nobody = any(row["closed_at"] is None and not row["waiting_for"] for row in rows)
            if nobody and not nobody_said and not quiet and time.monotonic() > begun + NOBODY:
                nobody_said = True
                say("  no listener is running; waiting for one")
            if all(row["closed_at"] for row in rows) or time.monotonic() > until:
                break
            if progress is not None:
                progress.show(rows)
            time.sleep(0.05)
    if not quiet:
        for row in rows:
            if row["closed_at"] is None:
                missing = shown(", ".join(row["waiting_for"])) or "no listener is running"
                click.echo(f"order {row['id']} is still open, waiting for: {missing}")
            if row["unheard"]:
                where = shown(", ".join(row["unheard"]))
                click.echo(
                    f"order {row['id']} had tasks on hosts without a listener, so nobody looked: {where}"
                )
    return rows


class _Progress:
    """One line at the end of a terminal that says who is waited for, and for how long now."""

    def __enter__(self) -> _Progress:
        from rich.console import Console

        self._begun = time.monotonic()
        self._status = Console(highlight=False).status("")
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, line: str) -> None:
        """A line that stays, above the one that does not."""
        self._status.console.print(line, markup=False)

    def show(self, rows: list[dict[str, Any]]) -> None:
        from rich.text import Text

        hosts = sorted({host for row in rows for host in row["waiting_for"]})
        under_way = {r["host"]: r for row in rows for r in row["reports"] if not r["outcome"]}
        said = [_under_way(host, under_way.get(host)) for host in hosts] or ["a listener"]
        self._status.update(
            Text(f"waiting for {', '.join(said)} for {time.monotonic() - self._begun:.0f} s now")
        )


def _under_way(host: str, report: dict[str, Any] | None) -> str:
    return shown(host) + (f" ({counted(report['processes'], 'process')} signalled)" if report else "")


def _line(row: dict[str, Any], report: dict[str, Any]) -> str:
    died = counted(report["processes"], "process"), counted(report["containers"], "container")
    took, contained = report["milliseconds"], report["container_milliseconds"]
    speed = f", the last dead {took:.0f} ms after the commit" if took is not None else ""
    if took is not None and contained is not None and contained < took:
        speed += f", the last container {contained:.0f} ms"
    counts = f" ({', '.join(died)}{speed})"
    said = left(report["rest"], report["alive"] or ())
    if said and not report["processes"] + report["containers"]:  # what lives on is all there is to say
        counts = ""
    said = "; ".join(part for part in (said, not_told(report["rest"])) if part)
    return f"  {shown(report['host'])}: {report['outcome']}{counts}" + (f", {shown(said)}" if said else "")


def _left(row: dict[str, Any]) -> bool:
    """Whether something lives, or may; `unheard` is known only where it was waited for."""
    return bool(row.get("unheard")) or not all(is_all_clear(report["outcome"]) for report in row["reports"])
