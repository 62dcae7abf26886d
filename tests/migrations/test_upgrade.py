"""From every earlier release to this one, with orders in flight; and listeners of both on one database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from dagstop import errors, sql
from dagstop.install import head, heal, install, install_script, uninstall, uninstall_script
from tests.releases import (
    AUDITOR,
    BEGUN,
    CLOSED,
    OPEN_RUN,
    OPEN_TASK,
    READ_ORDERS,
    RELEASES,
    SETTINGS,
    queries,
    restore,
)
from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.testbed.postgres import Server, rows


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """An earlier release."""
    return str(request.param)


@pytest.fixture
def old_db(server: Server, shape: str, release: str) -> Iterator[AirflowDatabase]:
    """A database as that release left it, with orders in flight."""
    db = restore(server, release, shape)
    yield db
    server.drop_database(db.url)


def dagstop_of(server: Server, db: AirflowDatabase) -> list[str]:
    """Schema dagstop as pg_dump shows it, but for the order of columns and what a DBA has granted."""
    lines = server.dump(db.url, "--schema=dagstop").splitlines()
    return sorted(line.rstrip(",") for line in lines if AUDITOR not in line)


@pytest.mark.parametrize("by", ["install", "script"])
def test_an_upgrade_makes_what_a_first_install_makes(
    old_db: AirflowDatabase, bare_db: AirflowDatabase, server: Server, by: str
) -> None:
    server.psql(old_db.url, install_script()) if by == "script" else install(old_db.url)
    install(bare_db.url)
    assert dagstop_of(server, old_db) == dagstop_of(server, bare_db)
    assert not install(old_db.url).changed
    assert {row[0] for row in old_db.rows("select status from dagstop.trigger_health()")} == {"installed"}


@one_server
def test_an_upgrade_keeps_what_is_in_flight_and_what_a_dba_has_set(
    old_db: AirflowDatabase, release: str
) -> None:
    tables = ("stop_order", "stop_target", "report", "listener", "fault", "refused_write")
    columns = {
        t: old_db.one(
            "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (f"dagstop.{t}",),
        )
        for t in tables
    }
    before = {t: old_db.rows(f"select {columns[t]} from dagstop.{t} order by 1, 2") for t in tables}
    assert all(before.values())
    done = install(old_db.url)
    # the release before this one has our revision until the first change to sql/
    assert done.revision == head() and done.changed == (done.before != head())
    assert {t: old_db.rows(f"select {columns[t]} from dagstop.{t} order by 1, 2") for t in tables} == before
    kept = dict(old_db.rows("select name, value from dagstop.setting"))
    assert {name: kept[name] for name in SETTINGS} == SETTINGS
    auditor = old_db.user_url(AUDITOR)
    assert rows(auditor, "select count(*) from dagstop.history")[0][0] == 4
    assert len(rows(auditor, "select * from dagstop.open_orders('a host')")) == 4
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        rows(auditor, "select dagstop.retire('h', gen_random_uuid())")


@one_server
def test_a_grant_survives_that_the_function_is_dropped(airflow_db: AirflowDatabase, server: Server) -> None:
    """As a release does that gives it other columns."""
    server.psql(
        airflow_db.url,
        f"do $$ begin create role {AUDITOR} login; exception when duplicate_object then null; end $$;"
        f" grant execute on function {READ_ORDERS} to {AUDITOR} with grant option; begin;"
        f" {sql.script('03_schema')} drop function {READ_ORDERS};"
        + "".join(sql.script(name) for name in sql.INSTALL_FILES if name > "03_schema")
        + "commit;",
    )
    assert airflow_db.one(
        "select has_function_privilege(%s, %s, 'execute with grant option')", (AUDITOR, READ_ORDERS)
    )
    airflow_db.rows(f"drop owned by {AUDITOR}")


@one_server
def test_an_order_in_flight_is_fenced_before_and_after(old_db: AirflowDatabase) -> None:
    for _ in range(2):
        old_db.set_task(f"{OPEN_RUN}: b", "up_for_retry")
        assert old_db.states()[f"{OPEN_RUN}: b"] == "failed"
        install(old_db.url)
    old_db.set_run("failed", OPEN_TASK)
    assert set(old_db.states().values()) == {"failed"}
    assert old_db.faults() == [("fence", "of long ago")]


@one_server
def test_an_upgraded_schema_leaves_no_trace(old_db: AirflowDatabase, server: Server) -> None:
    empty = server.dump(old_db.url, "--exclude-schema=dagstop")
    install(old_db.url)
    assert uninstall(old_db.url)
    assert old_db.one("select to_regnamespace('dagstop')") is None
    assert "dagstop" not in server.dump(old_db.url) and "dagstop" in empty


@one_server
@shape_2
@pytest.mark.parametrize("by", ["command", "script"])
def test_an_earlier_schema_is_taken_out_as_it_is(old_db: AirflowDatabase, server: Server, by: str) -> None:
    server.psql(old_db.url, uninstall_script()) if by == "script" else uninstall(old_db.url)
    assert "dagstop" not in server.dump(old_db.url)


@one_server
@shape_2
def test_a_later_release_is_left_alone(airflow_db: AirflowDatabase, server: Server) -> None:
    airflow_db.rows("update dagstop.alembic_version set version_num = '9999'")
    before = server.dump(airflow_db.url)
    for change in (install, heal):
        with pytest.raises(errors.LaterReleaseError, match=r"revision 9999 .*later than this dagstop"):
            change(airflow_db.url)
    with pytest.raises(RuntimeError, match="a later release of dagstop than this script brings"):
        server.psql(airflow_db.url, install_script())
    assert server.dump(airflow_db.url) == before
    assert uninstall(airflow_db.url)
    assert airflow_db.one("select to_regnamespace('dagstop')") is None


@one_server
@shape_2
@pytest.mark.parametrize("release", RELEASES[:1], indirect=True)
def test_heal_never_upgrades(old_db: AirflowDatabase, airflow_db: AirflowDatabase) -> None:
    with pytest.raises(errors.InstallError, match=r"found revision \d+, not .*dagstop install"):
        heal(old_db.url)
    assert not heal(airflow_db.url).changed
    airflow_db.rows("drop trigger dagstop_order on dag_run")
    assert heal(airflow_db.url).healed == ("dag_run.dagstop_order",)
    airflow_db.rows("drop function dagstop.ring()")
    with pytest.raises(errors.InstallError, match="no whole schema"):
        heal(airflow_db.url)


# What the queries of any release are asked with, by the name of the parameter.
ASKED_WITH: dict[str, Any] = {
    "host": "host", "ids": None, "max_orders": 2000, "dag_id": "dag", "run_id": OPEN_RUN, "task_id": None,
    "ti_ids": ["no uuid"], "keys": "[]", "order_id": 2, "outcome": "stopped", "first_signal_at": None,
    "last_death_at": None, "detail": "{}", "listener_id": "6b1c6ab2-9f0a-4c40-8b60-2a4f3f3c1a11", "version": "0",
    "limit": 100, "schema": "public", "setting": "cascade", "value": "all", "comment": "for the test",
}  # fmt: skip
BY_SHAPE = {"fail_task": "fail_task_by_date", "fail_task_by_date": "fail_task"}


def answers(db: AirflowDatabase, texts: dict[str, str]) -> dict[str, dict[str, int]]:
    """The columns of each query's answer, with the oid of their types; all that it does is undone."""
    found = {}
    for name, text in texts.items():
        if name == ("fail_task" if db.by_date else "fail_task_by_date"):
            continue  # that one is for Airflow's other kind of tables
        if re.search(r"^\s*call ", text, re.MULTILINE):
            continue  # it commits as it goes, and answers nothing
        with psycopg2.connect(db.url) as connection, connection.cursor() as cursor:
            cursor.execute(text.replace("{airflow}", "public"), ASKED_WITH)
            found[name] = {column.name: column.type_code for column in cursor.description or ()}
            connection.rollback()
        connection.close()
    return found


def test_the_queries_of_this_release_can_be_asked_once_it_is_an_earlier_one() -> None:
    asked = set(re.findall(r"%\((\w+)\)s", sql.read("queries")))
    assert asked <= ASKED_WITH.keys()


def test_every_query_of_an_earlier_listener_is_answered_as_before(
    old_db: AirflowDatabase, release: str
) -> None:
    texts = queries(release)
    before = answers(old_db, texts)
    install(old_db.url)
    after = answers(old_db, texts)
    for name, columns in before.items():
        assert columns.items() <= after[name].items(), name


@one_server
@pytest.mark.parametrize("first", ["old", "new"])
def test_two_releases_carry_out_one_order(old_db: AirflowDatabase, release: str, first: str) -> None:
    """The queries of both releases' listeners, each in the name of its own host."""
    install(old_db.url)
    speakers = {"old": queries(release), "new": sql.queries()}

    def say(who: str, query: str, **more: Any) -> list[dict[str, Any]]:
        with old_db.connect() as connection, connection.cursor() as cursor:
            cursor.execute(speakers[who][query], {**ASKED_WITH, "host": who, **more})
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    for number, who in enumerate(speakers):
        say(who, "heartbeat", listener_id=f"00000000-0000-0000-0000-00000000000{number}", version=release)
        assert {o["run_id"] for o in say(who, "open_orders")} == {OPEN_RUN, OPEN_TASK, BEGUN, CLOSED}
    (order,) = old_db.rows("select id from dagstop.stop_order where run_id = %s", (OPEN_RUN,))[0]
    # of an older order, who has not said anything yet would not be waited for
    old_db.rows("update dagstop.stop_order set created_at = now() where id = %s", (order,))
    for who in sorted(speakers, key=lambda name: name != first):
        assert old_db.one("select closed_at is null from dagstop.stop_order where id = %s", (order,))
        say(who, "write_report", order_id=order)
        assert OPEN_RUN not in {o["run_id"] for o in say(who, "open_orders")}
        old_db.rows(sql.queries()["chores"])  # of this release's listener
    assert old_db.one("select closed_at is not null from dagstop.stop_order where id = %s", (order,))
