"""Who may install, who owns what is installed, and who must gain no rights by it."""

from __future__ import annotations

import psycopg2
import pytest

from dagstop import errors
from dagstop.install import install, install_script, uninstall, uninstall_script
from tests.support.airflow_tables import AirflowDatabase
from tests.testbed.postgres import Server, rows


def test_rights(bare_db: AirflowDatabase) -> None:
    bare_db.rows("drop role if exists half; create role half login")
    with pytest.raises(errors.MissingRightError, match=r"'half' does not own table public.dag_run"):
        install(bare_db.user_url("half"))
    bare_db.rows("alter table dag_run owner to half; alter table task_instance owner to half")
    with pytest.raises(errors.MissingRightError, match=r"GRANT CREATE ON DATABASE"):
        install(bare_db.user_url("half"))
    name = bare_db.url.rsplit("/", 1)[1]
    bare_db.rows(f'grant create on database "{name}" to half')
    assert install(bare_db.user_url("half")).changed
    bare_db.add_running()
    bare_db.set_run("failed")
    assert bare_db.states() == {"a": "failed"}
    assert uninstall(bare_db.user_url("half"))
    install(bare_db.url)
    bare_db.rows("drop role if exists other; create role other login")
    with pytest.raises(errors.MissingRightError, match="does not own schema dagstop"):
        uninstall(bare_db.user_url("other"))


@pytest.mark.parametrize("by", ["install", "script", "healed"])
def test_the_owner_of_airflows_tables_gains_nothing(
    bare_db: AirflowDatabase, server: Server, by: str
) -> None:
    """A superuser installs; the tables' owner has a trigger that would use the rights of our functions."""
    bare_db.rows("drop role if exists af; create role af login; grant create, usage on schema public to af")
    for table in ("dag_run", "task_instance"):
        bare_db.rows(f"alter table {table} owner to af")
    server.psql(bare_db.url, install_script()) if by == "script" else install(bare_db.url)
    if by == "healed":
        bare_db.rows("alter function dagstop.cascade_statement() owner to postgres")
        assert install(bare_db.url).changed
    assert not install(bare_db.url).changed
    rows(
        bare_db.user_url("af"),
        "create function public.f() returns trigger language plpgsql as"
        " $f$ begin execute 'alter role af superuser'; return new; end $f$;"
        " create trigger zz before update on task_instance for each row execute function public.f()",
    )
    bare_db.add_running()
    rows(bare_db.user_url("af"), "update dag_run set state = 'failed'")
    assert bare_db.one("select rolsuper from pg_roles where rolname = 'af'") is False
    assert bare_db.one("select count(*) from dagstop.stop_order") == 1
    assert bare_db.one("select count(*) from dagstop.fault where sqlstate = '42501'") == 1
    rows(bare_db.user_url("af"), "drop trigger zz on task_instance")
    bare_db.beat()
    assert bare_db.states() == {"a": "failed"}


MIXED = (
    "oid, regclass",
    "oid, regnamespace",
    "oid, regrole",
    "regrole, regrole",
    "varchar, varchar",
    "name, text",
)


def test_operators_of_a_stranger_are_not_preferred(bare_db: AirflowDatabase, server: Server) -> None:
    """Postgres takes an exact match of types from any schema on the path before pg_catalog's nearly exact one."""
    bare_db.rows('drop role if exists mallory, "a""b"; create role mallory login; create role "a""b"')
    bare_db.rows('grant create on schema public to mallory; grant usage on schema public to "a""b"')
    for number, types in enumerate(MIXED):
        left, right = types.split(", ")
        rows(
            bare_db.user_url("mallory"),
            f"create function public.same{number}({types}) returns boolean language plpgsql as"
            " $f$ begin raise exception 'hijacked as %', current_user; end $f$;"
            f" create operator public.= (leftarg = {left}, rightarg = {right}, function = public.same{number})",
        )
    for table in ("dag_run", "task_instance"):
        bare_db.rows(f'alter table {table} owner to "a""b"')
    assert install(bare_db.url).changed and not install(bare_db.url).changed
    assert uninstall(bare_db.url)
    server.psql(bare_db.url, install_script())
    bare_db.add_running()
    bare_db.rows("update dag_run set state = 'failed'")
    assert bare_db.states() == {"a": "failed"}
    bare_db.rows("update task_instance set state = 'running'")
    assert bare_db.states() == {"a": "failed"}
    assert bare_db.faults() == []
    server.psql(bare_db.url, uninstall_script())


# Postgres prefers these to its own, whose arguments are of other types
STRANGERS = (
    "format(text, regclass)", "format(text, regprocedure)", "format(text, text)", "format(text, text, text)",
    "format(text, text, name)", "format(text, text, text, text)", "pg_sleep(numeric)", "quote_ident(name)",
    "array_agg(text)", "count(bigint)", "to_regclass(name)", "to_regclass(character varying)",
    "current_setting(name)", "set_config(text, text, boolean, text default '')",
)  # fmt: skip


@pytest.mark.parametrize("by", ["install", "script"])
def test_an_install_calls_no_function_of_a_strangers(
    bare_db: AirflowDatabase, server: Server, by: str
) -> None:
    """Made in schema public, where before Postgres 15 everybody may make one."""
    for function in STRANGERS:
        bare_db.rows(
            f"create function public.{function} returns text language plpgsql as"
            " $$ begin raise 'hijacked as %', current_user; end $$"
        )
    with pytest.raises(psycopg2.Error, match="hijacked as"):  # it is a trap indeed
        bare_db.rows("select format('%s', 'dag_run'::regclass)")
    for _ in range(2):
        server.psql(bare_db.url, install_script()) if by == "script" else install(bare_db.url)
    bare_db.add_running()
    bare_db.set_run("failed")
    assert (bare_db.states(), bare_db.faults()) == ({"a": "failed"}, [])
    bare_db.rows("alter table task_instance disable trigger dagstop_fence")
    install(bare_db.url)
    server.psql(bare_db.url, uninstall_script()) if by == "script" else uninstall(bare_db.url)
    assert bare_db.one("select to_regnamespace('dagstop')") is None
