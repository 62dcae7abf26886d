"""`dagstop config` as a user types it, and the registry that it shows against the database."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dagstop import sql
from dagstop.settings import SETTINGS
from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import on_a_terminal
from tests.support.listener import Listener, dagstop
from tests.support.marks import one_server, shape_2


def config(db: AirflowDatabase, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return dagstop("config", *arguments, "--database-url", db.url, check=False, **environment)


def shown(db: AirflowDatabase, **environment: str) -> dict[str, dict[str, Any]]:
    return {fact["name"]: fact for fact in json.loads(config(db, "--json", **environment).stdout)}


@one_server
@shape_2
def test_it_shows_sets_and_unsets(airflow_db: AirflowDatabase) -> None:
    before = shown(airflow_db)
    assert before.keys() == {known.name for known in SETTINGS}
    assert {fact["from"] for fact in before.values()} == {"default"}
    assert {name: fact["value"] for name, fact in before.items()} == {s.name: s.default for s in SETTINGS}
    done = config(airflow_db, "grace_seconds:a dag", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "grace_seconds:a dag\t3\tseconds\tdatabase" in done.stdout
    assert config(airflow_db, "protected", "a_*,b?").returncode == 0
    after = shown(airflow_db, DAGSTOP_GRACE="7")
    assert (after["protected"]["value"], after["protected"]["from"]) == ("a_*, b?", "database")
    assert (after["grace_seconds"]["value"], after["grace_seconds"]["from"]) == ("7", "environment")
    assert after["grace_seconds:a dag"]["value"] == "3"
    for name in ("protected", "grace_seconds:a dag"):
        assert config(airflow_db, name, "--unset").returncode == 0
    assert shown(airflow_db) == before


@one_server
@shape_2
def test_a_terminal_shows_the_whole_meaning(airflow_db: AirflowDatabase) -> None:
    code, screen = on_a_terminal("config", "observe_only", DAGSTOP_DATABASE_URL=airflow_db.url)
    assert code == 0 and "For the first week." in " ".join(screen.split()), screen


@one_server
@shape_2
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cascade", "most"), "cascade: 'most' is not unfinished or all"),
        (("keep_seconds", "30 days"), "keep_seconds: '30 days' is not a whole number of seconds"),
        (("protected", "a b"), "protected: 'a b' is not patterns of DAG ids such as billing_*"),
        (("cascode", "all"), "There is no setting 'cascode'; there are observe_only, protected, cascade"),
        (("cascode",), "There is no setting 'cascode'"),
        (("tick", "1"), "tick is set for each host: give its listener --tick or DAGSTOP_TICK"),
        (("airflow_schema", "x"), "airflow_schema is written by `dagstop install`, not by hand"),
        (("--unset",), "--unset needs the NAME of a setting"),
        (("cascade", "all", "--unset"), "--unset takes a NAME and no VALUE"),
    ],
)
def test_bad_input_is_one_clear_line(
    airflow_db: AirflowDatabase, arguments: tuple[str, ...], said: str
) -> None:
    done = config(airflow_db, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dagstop: {said}") and done.stderr.count("\n") == 1


@one_server
@shape_2
def test_it_says_what_each_listener_was_told(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    with Listener(airflow_db.url, tmp_path, "--grace", "4", DAGSTOP_TICK="0.5"):
        airflow_db.wait_until("select exists (select from dagstop.listener)")
        facts = shown(airflow_db)
        told = {name: (facts[name]["value"], facts[name]["from"], facts[name]["hosts"]) for name in facts}
        assert told["grace_seconds"] == ("4", "option", ["host-1"])
        assert told["tick"] == ("0.5", "environment", ["host-1"])
        assert told["sweep"] == ("30", "default", ["host-1"])
        config(airflow_db, "grace_seconds", "5")
        assert shown(airflow_db)["grace_seconds"]["from"] == "database"


@one_server
@shape_2
def test_who_may_only_read_may_not_set(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows(
        "drop role if exists config_reader; create role config_reader login in role dagstop_listener"
    )
    done = dagstop(
        *("config", "cascade", "all", "--database-url", airflow_db.user_url("config_reader")), check=False
    )
    assert done.returncode == 1
    assert "connect as the role that installed dagstop" in done.stderr and done.stderr.count("\n") == 1


@one_server
@shape_2
def test_observing_is_said_by_check(airflow_db: AirflowDatabase) -> None:
    for name, value in (("observe_only", "on"), ("protected", "billing_*")):
        assert config(airflow_db, name, value).returncode == 0
    done = dagstop("check", "--database-url", airflow_db.url, check=False)
    assert done.returncode == 1
    assert "observe only\ton: nothing is stopped in this database" in done.stdout
    assert "never stopped: billing_*" in done.stdout


VALUES = (
    "on", "off", "all", "unfinished", "stop", "spare", "12", "-1", "1.5", "a b", "a, b", "a_*\nb?", "a[b]", "", "deleted, skipped",
    "deleted skipped", " ,removed",
)  # fmt: skip
ACCEPTED = {
    "observe_only": {"on", "off"},
    "airflow_log": {"on", "off"},
    "cascade": {"all", "unfinished"},
    "finished_tasks": {"stop", "spare"},
    "also_stop_on": {"", "deleted, skipped", " ,removed"},
    "protected": set(VALUES) - {"a b", "a[b]", "deleted skipped"},
}


@one_server
@shape_2
def test_the_database_refuses_what_a_setting_cannot_be(airflow_db: AirflowDatabase) -> None:
    for known in SETTINGS:
        for value in VALUES if known.in_database else ():
            refused = False
            with airflow_db.connect() as connection, connection.cursor() as cursor:
                try:
                    cursor.execute(
                        sql.queries()["set_setting"], {"setting": known.name, "value": value, "comment": ""}
                    )
                except psycopg2.errors.CheckViolation:
                    refused = True
            assert refused == (value not in ACCEPTED.get(known.name, {"12"})), (known.name, value)


@one_server
@shape_2
def test_the_list_that_is_read_from_the_file_is_that_of_the_database(airflow_db: AirflowDatabase) -> None:
    known = airflow_db.rows("select name, value, meaning, item is null from dagstop.known_settings()")
    assert [tuple(row) for row in sql.settings()] == known and len(known) > 10
    seeded = airflow_db.rows("select name, value, comment from dagstop.setting")
    assert set(seeded) >= {
        (s.name, s.default, s.meaning) for s in SETTINGS if s.in_database and s.name != "grace_seconds"
    }


@one_server
@shape_2
def test_a_setting_without_a_row_or_with_a_bad_one_has_its_default(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("alter table dagstop.setting disable trigger dagstop_setting")
    airflow_db.rows("update dagstop.setting set value = 'long' where name like '%%seconds'")
    airflow_db.rows("delete from dagstop.setting where name not like '%%seconds'")
    for known in (setting for setting in SETTINGS if setting.in_database):
        if known.unit:
            found = airflow_db.one("select extract(epoch from dagstop.seconds_of(%s))::int", (known.name,))
            assert found == int(known.default)
        else:
            assert airflow_db.one("select dagstop.setting_of(%s)", (known.name,)) == known.default
