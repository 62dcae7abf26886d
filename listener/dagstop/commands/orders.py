"""`dagstop status` and `dagstop history`: what is open, what was stopped."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from dagstop.commands.common import database_option, json_option, print_json, print_table, url_of, when
from dagstop.database.asking import ask, open_database
from dagstop.logs import shown
from dagstop.report.words import ended, gap, left, not_told, took
from dagstop.words import ago, counted


@click.command()
@database_option
@json_option
@click.option("--limit", default=50, show_default=True, help="Show at most this many open orders.")
def status(database_url: str | None, as_json: bool, limit: int) -> None:
    """Show the listeners and the orders that are still open."""
    url = url_of(database_url)
    connection = open_database(url, "status")
    listeners = ask(connection, url, "listeners")
    orders = ask(connection, url, "status", limit=limit)
    connection.close()
    if as_json:
        print_json({"listeners": listeners, "open_orders": orders})
        return
    print_table(
        ["HOST", "LISTENER", "VERSION", "SEEN", "NOTICES", "WATCHES", "CONTAINERS"],
        [
            [
                row["host"],
                "ok" if row["live"] else "gone" if row["gone"] else "failed",
                row["version"],
                ago(row["seen_at"], row["db_now"]),
                row["detail"].get("notices"),
                counted(row["detail"].get("watched", 0), "process"),
                _containers(row),
            ]
            for row in listeners
        ],
        "there is no listener: run `dagstop listen` on each host that runs tasks",
    )
    for row in listeners:
        if row["live"] and (gaps := row["detail"].get("not_told")):
            click.echo(f"{shown(row['host'])} was not told what tasks forked {shown(gap(gaps[-1]))}")
    if spared := [line for row in listeners if row["live"] for line in _spared(row)]:
        click.echo()
        print_table(["HOST", "CONTAINER", "NAMED BY", "SPARED BECAUSE"], spared, "")
    click.echo()
    print_table(
        ["ORDER", "DAG", "RUN", "TASK", "ORDERED", "BY", "WAITS FOR"],
        [
            [
                row["order_id"],
                row["dag_id"],
                row["run_id"] or row["logical_date"],
                row["task_id"] or "(all)",
                ago(row["created_at"], row["db_now"]),
                _who(row),
                ", ".join(row["waiting_for"]) or "a listener",
            ]
            for row in orders
        ],
        "no open orders",
    )


@click.command()
@database_option
@json_option
@click.option("--dag-id", help="Only this DAG.")
@click.option("--run-id", help="Only this run.")
@click.option("--limit", default=20, show_default=True, help="Show at most this many lines.")
def history(
    database_url: str | None, as_json: bool, dag_id: str | None, run_id: str | None, limit: int
) -> None:
    """Show what was stopped: by whom, on which host, how fast."""
    url = url_of(database_url)
    connection = open_database(url, "history")
    rows = ask(connection, url, "history", dag_id=dag_id, run_id=run_id, limit=limit)
    connection.close()
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ORDER", "WHEN", "DAG", "RUN", "TASK", "BY", "HOST", "OUTCOME", "ENDED", "TOOK"],
        [_history_line(row) for row in rows],
        "nothing has been stopped yet"
        if dag_id is None and run_id is None
        else "nothing that matches was stopped",
    )


def _airflows(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of a listener's machine in which an Airflow runs."""
    return [place for place in row["detail"].get("places") or () if place.get("airflow", True)]


def _containers(row: dict[str, Any]) -> str:
    """How many of them are ours, are refused, cannot be read."""
    places = _airflows(row)
    unread = sum(place["unread"] for place in places)
    refused = sum(place["refused"] is not None for place in places) - unread
    parts = [(len(places) - refused - unread, "ours"), (refused, "refused"), (unread, "unreadable")]
    return ", ".join(f"{number} {word}" for number, word in parts if number)


def _spared(row: dict[str, Any]) -> list[list[Any]]:
    """Those that the operator named, and that are spared all the same; of which machine, and why."""
    return [
        [row["host"], place["container"] or place["hostname"], place["named_by"], place["refused"]]
        for place in _airflows(row)
        if place["named_by"] and place["refused"]
    ]


def _history_line(row: dict[str, Any]) -> list[Any]:
    detail = row["detail"] or {}
    said = [ended(detail), left(detail) if row["outcome"] else "", not_told(detail)]
    created: datetime = row["created_at"]
    return [
        row["order_id"],
        when(created, row["db_now"]),
        row["dag_id"],
        row["run_id"] or row["logical_date"],
        row["task_id"] or "(all)",
        _who(row),
        row["host"],
        row["outcome"] or "open",
        "; ".join(part for part in said if part),
        took(detail, created, row["last_death_at"]),
    ]


def _who(row: dict[str, Any]) -> str:
    program = row["application_name"]
    who = f"{row['session_user_name']} ({program})" if program else str(row["session_user_name"])
    return who if row["state_after"] == "failed" else f"{who}, {row['state_after']}"
