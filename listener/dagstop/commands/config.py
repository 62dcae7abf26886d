"""`dagstop config`: every setting, where its value came from, and how to change it."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import psycopg2
from psycopg2.extensions import connection as Connection

from dagstop.commands.common import database_option, json_option, print_json, print_table, url_of
from dagstop.database.asking import ask, open_database
from dagstop.database.connection import query
from dagstop.database.failures import READ_ONLY_LOGIN, one_line
from dagstop.errors import DagstopError, ReadOnlyError, SettingError
from dagstop.settings import SETTINGS, Setting, setting


@click.command()
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Reset to the default.")
@database_option
@json_option
def config(name: str | None, value: str | None, unset: bool, database_url: str | None, as_json: bool) -> None:
    """Show every setting, or set NAME to VALUE in the database.

    It shows each value with where it came from. A setting applies to every host from the next order on,
    without a restart. To change one, connect as the role that installed dagstop. Exits 2 if there is no
    such setting, or if it cannot have that value.
    """
    try:
        if unset and value is not None:
            raise SettingError("--unset takes a NAME and no VALUE")
        if unset and name is None:
            raise SettingError("--unset needs the NAME of a setting")
        if name is not None and (unset or value is not None or name not in {s.name for s in SETTINGS}):
            setting(name)
        url = url_of(database_url)
        connection = open_database(url, "config")
        if name is not None and (unset or value is not None):
            _change(connection, url, name, value)
    except SettingError as exc:
        click.echo(f"dagstop: {exc}", err=True)
        sys.exit(2)
    rows = {row["name"]: row["value"] for row in ask(connection, url, "settings")}
    listeners = [row for row in ask(connection, url, "listeners") if row["live"]]
    connection.close()
    facts = [fact for known in SETTINGS for fact in _facts(known, rows, listeners)]
    if name is not None:
        facts = [fact for fact in facts if name in {fact["name"], fact["name"].partition(":")[0]}]
    if as_json:
        print_json(facts)
        return
    print_table(
        ["NAME", "VALUE", "UNIT", "FROM", "HOSTS", "MEANING"],
        [[f["name"], f["value"], f["unit"], f["from"], ", ".join(f["hosts"]), f["meaning"]] for f in facts],
        f"{name} is not set",
        whole=True,
    )


def _change(connection: Connection, url: str, name: str, value: str | None) -> None:
    """Write one row, or take it away. Raises SettingError, DagstopError."""
    try:
        if value is None:
            query(connection, "unset_setting", setting=name)
        else:
            query(connection, "set_setting", setting=name, value=value, comment=setting(name).meaning)
    except psycopg2.errors.CheckViolation as exc:
        raise SettingError((exc.diag.message_primary or "").removeprefix("dagstop setting ")) from exc
    except psycopg2.errors.InsufficientPrivilege as exc:
        do = "connect as the role that installed dagstop"
        raise DagstopError(f"{one_line(exc, url)}: {do}") from exc
    except psycopg2.errors.ReadOnlySqlTransaction as exc:
        raise ReadOnlyError(f"{one_line(exc, url)}: {READ_ONLY_LOGIN}") from exc
    except psycopg2.Error as exc:
        raise DagstopError(f"{name} was not changed: {one_line(exc, url)}") from exc


def _facts(known: Setting, rows: dict[str, str], listeners: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One setting as it is shown: from the database, or from the hosts where that says nothing."""
    found = []
    if known.name in rows:
        source = "default" if rows[known.name] == known.default and not known.per_dag else "database"
        found.append(_fact(known, known.name, rows[known.name], source))
    else:
        found += _of_hosts(known, listeners) or [_here(known)]
    prefix = f"{known.name}:"
    own = sorted(name for name in rows if known.per_dag and name.startswith(prefix))
    return [*found, *(_fact(known, name, rows[name], "database") for name in own)]


def _of_hosts(known: Setting, listeners: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the live listeners were told, one fact for all hosts that were told the same."""
    hosts: dict[tuple[str, str], list[str]] = {}
    for row in listeners:
        told = row["detail"].get("options", {}).get((known.option or "").removeprefix("--"))
        if told is not None:
            hosts.setdefault((f"{told[0]:g}", str(told[1])), []).append(row["host"])
    return [_fact(known, known.name, value, source, names) for (value, source), names in hosts.items()]


def _here(known: Setting) -> dict[str, Any]:
    """What a listener started with this environment would take."""
    given = os.environ.get(known.variable) if known.variable and known.name != "observe_only" else None
    return _fact(known, known.name, given or known.default, "environment" if given else "default")


def _fact(
    known: Setting, name: str, value: str, source: str, hosts: list[str] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "default": known.default,
        "unit": known.unit,
        "from": source,
        "hosts": hosts or [],
        "meaning": known.meaning,
    }
