"""03_schema.sql: what belongs to dagstop, and who may touch it."""

from __future__ import annotations

import re

import psycopg2
import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.testbed.postgres import rows

UNCOMMENTED = """
    select 'relation ' || c.relname from pg_class c
    where c.relnamespace = 'dagstop'::regnamespace and c.relkind in ('r', 'v', 'i')
        and c.relname <> 'alembic_version' and obj_description(c.oid, 'pg_class') is null
        and not exists (select from pg_constraint k where k.conindid = c.oid)
        and c.relname <> 'alembic_version_pkc'
    union all
    select 'column ' || c.relname || '.' || a.attname
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'dagstop'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
        and c.relname <> 'alembic_version' and col_description(c.oid, a.attnum) is null
    union all
    select 'function ' || p.proname from pg_proc p
    where p.pronamespace = 'dagstop'::regnamespace and obj_description(p.oid, 'pg_proc') is null
    union all
    select 'trigger ' || t.tgname from pg_trigger t
    where t.tgname like 'dagstop%' and obj_description(t.oid, 'pg_trigger') is null
    union all
    select 'schema' where obj_description('dagstop'::regnamespace, 'pg_namespace') is null
"""


def test_every_object_has_a_comment(airflow_db: AirflowDatabase) -> None:
    assert airflow_db.rows(UNCOMMENTED) == []


def test_every_function_pins_its_search_path(airflow_db: AirflowDatabase) -> None:
    functions = airflow_db.rows(
        "select proname, proconfig from pg_proc where pronamespace = 'dagstop'::regnamespace and prokind <> 'p'"
    )
    assert functions
    for name, config in functions:
        assert "search_path=pg_catalog, pg_temp" in (config or []), name


def test_a_procedure_uses_nothing_that_a_path_could_change(airflow_db: AirflowDatabase) -> None:
    """It may not pin its search_path, or it could not commit: so it names its schema, and uses no operator."""
    procedures = airflow_db.rows(
        "select proname, prosrc, prosecdef from pg_proc"
        " where pronamespace = 'dagstop'::regnamespace and prokind = 'p'"
    )
    assert procedures
    step = r"commit;|perform dagstop\.\w+\('[a-z ]+'(, \w+)?\);|if \w+ is null then|end if;|begin|end"
    for name, source, definer in procedures:
        assert not definer, name  # as above
        for line in source.split("\n"):
            assert re.fullmatch(step, line.partition("--")[0].strip() or "begin"), line


def test_another_role_may_do_nothing(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("drop role if exists stranger; create role stranger login")
    for statement in (
        "select * from dagstop.stop_order",
        "select * from dagstop.open_orders('host')",
        "select dagstop.order_run()",
        "insert into dagstop.setting values ('a', 'b', 'c')",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            rows(airflow_db.user_url("stranger"), statement)
    public = airflow_db.rows(
        "select proname from pg_proc where pronamespace = 'dagstop'::regnamespace "
        "and has_function_privilege('stranger', oid, 'execute')"
    )
    assert public == []


def test_the_listener_role_may_do_its_work_and_no_more(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows(
        "drop role if exists daemon_login; create role daemon_login login in role dagstop_listener"
    )
    url = airflow_db.user_url("daemon_login")
    airflow_db.add_running()
    airflow_db.set_run("failed")
    (order,) = rows(url, "select id from dagstop.open_orders('host')")
    rows(url, "select dagstop.write_report(%s, 'host', 'stopped', null, null, '{}')", order)
    beat = "select * from dagstop.heartbeat('host', gen_random_uuid(), '1', '{}')"
    assert rows(url, beat) == [(True, 0, 0)]
    rows(url, "select * from dagstop.history")
    rows(url, "select * from dagstop.open_order")
    rows(url, "select * from dagstop.task_states(null, null)")
    rows(url, "select * from dagstop.would_be_order('dag', 'run')")
    rows(url, "select dagstop.retire('host', gen_random_uuid())")
    for statement in (
        "select * from dag_run",
        "update task_instance set state = null",
        "update dagstop.stop_order set closed_at = null",
        "select dagstop.cascade(array[]::dagstop.stop_order[], 'public')",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            rows(url, statement)


def test_a_schema_in_front_of_the_path_changes_nothing(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("create schema evil")
        cursor.execute("create table evil.task_instance (like public.task_instance)")
        cursor.execute("create table evil.stop_order (id int)")
        cursor.execute(
            "create function evil.to_jsonb(anyelement) returns jsonb language sql as $$ select '1'::jsonb $$"
        )
        cursor.execute("set search_path = evil, pg_catalog")
        cursor.execute("create temp table stop_target (id int)")
        cursor.execute("update public.dag_run set state = 'failed'")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.faults() == []
