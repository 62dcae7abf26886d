"""What an install leaves behind: objects, owners, grants, the role; and what it checks before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dagstop import errors
from dagstop.install import install, install_script, uninstall, uninstall_script
from tests.support.airflow_tables import AirflowDatabase, schema_sql
from tests.support.listener import dagstop
from tests.support.marks import one_server, shape_2
from tests.testbed.postgres import Server, binaries, rows

pytestmark = shape_2


def finding(url: str, name: str) -> dict[str, Any] | None:
    """What `dagstop check` says under that name."""
    told = json.loads(dagstop("check", "--json", "--database-url", url, check=False).stdout)
    return next((f for f in told["findings"] if f["name"] == name), None)


def schema_is_whole(url: str) -> bool:
    """Whether `dagstop check` says so; where not it says what to do."""
    found = finding(url, "schema dagstop")
    assert found is not None and (found["ok"] or "dagstop install" in found["do"])
    return bool(found["ok"])


@pytest.mark.parametrize(
    "damage, healed",
    [
        ("drop owned by dagstop_listener", "the grant of schema dagstop to dagstop_listener"),
        (
            "revoke select on dagstop.stop_order from dagstop_listener",
            "the grant of table dagstop.stop_order to dagstop_listener",
        ),
        (
            "revoke execute on function dagstop.retire(text, uuid) from dagstop_listener",
            "the grant of function dagstop.retire(text,uuid) to dagstop_listener",
        ),
        ("alter table dagstop.fault owner to someone", "the owner of table dagstop.fault"),
        ("alter schema dagstop owner to someone", "the owner of schema dagstop"),
        ("grant select on dagstop.history to public", "the right of all roles on view dagstop.history"),
        ("grant usage on sequence dagstop.fault_id_seq to public",
         "the right of all roles on sequence dagstop.fault_id_seq"),
        ("grant execute on function dagstop.ring() to public",
         "the right of all roles on function dagstop.ring()"),
        ("drop index dagstop.stop_order_unclosed", "dagstop.stop_order_unclosed"),
        ("drop trigger dagstop_setting on dagstop.setting", "trigger dagstop_setting of dagstop.setting"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_seen_and_put_right(
    airflow_db: AirflowDatabase, server: Server, damage: str, healed: str
) -> None:
    whole = server.dump(airflow_db.url)
    airflow_db.rows("drop role if exists someone; create role someone superuser")
    airflow_db.rows(damage)
    assert not schema_is_whole(airflow_db.url)
    done = install(airflow_db.url)
    assert done.changed and healed in done.healed
    assert schema_is_whole(airflow_db.url)
    assert server.dump(airflow_db.url) == whole
    assert not install(airflow_db.url).changed


@contextmanager
def another_cluster() -> Iterator[Server]:
    """A server that knows no role of ours."""
    other = Server(binaries()[max(binaries())])
    try:
        yield other
    finally:
        other.stop()


@one_server
def test_a_restore_into_another_cluster(airflow_db: AirflowDatabase, server: Server) -> None:
    """A dump has the grants, but not the role; without it they fail one by one."""
    whole = server.dump(airflow_db.url)
    with another_cluster() as other:
        url = other.create_database()
        other.psql(url, server.dump(airflow_db.url, "--no-acl", "--no-owner", data=True))
        assert not schema_is_whole(url)
        done = install(url)
        assert {"role dagstop_listener", "the right of all roles on function dagstop.ring()"} <= {
            *done.healed
        }
        assert schema_is_whole(url)
        assert other.dump(url) == whole
        rows(url, "create role a_host login in role dagstop_listener")
        assert (
            rows(url.replace("//postgres@", "//a_host@"), "select * from dagstop.open_orders('host')") == []
        )


@one_server
def test_who_may_create_no_role_installs_without_it(bare_db: AirflowDatabase) -> None:
    with another_cluster() as other:
        url = other.create_database()
        rows(url, "create role af login; grant all on schema public to af")
        rows(url, "do $$ begin execute format('alter database %I owner to af', current_database()); end $$")
        af = url.replace("//postgres@", "//af@")
        other.psql(af, schema_sql("2.11.2"))
        assert install(af).changed and not install(af).changed
        assert schema_is_whole(af)
        assert install(url).healed == ("role dagstop_listener",)
        rows(url, "drop owned by dagstop_listener; drop role dagstop_listener")
        assert not schema_is_whole(af)
        assert not install(af).changed


@pytest.mark.parametrize("by", ["install", "script"])
def test_default_privileges_give_all_roles_nothing_of_ours(
    bare_db: AirflowDatabase, server: Server, by: str
) -> None:
    for kind in ("tables", "sequences", "functions", "schemas"):
        bare_db.rows(f"alter default privileges grant all on {kind} to public")
    server.psql(bare_db.url, install_script()) if by == "script" else install(bare_db.url)
    assert schema_is_whole(bare_db.url) and not install(bare_db.url).changed
    bare_db.rows("drop role if exists stranger; create role stranger login")
    assert not bare_db.one("select has_schema_privilege('stranger', 'dagstop', 'usage, create')")
    assert (
        bare_db.rows(
            "select oid::regclass from pg_class where relnamespace = 'dagstop'::regnamespace and case relkind"
            " when 'S' then has_sequence_privilege('stranger', oid, 'usage, select, update')"
            " when 'r' then has_table_privilege('stranger', oid, 'select, insert, update, delete, trigger') end"
        )
        == []
    )


def test_an_advisory_lock_of_anybody_blocks_nothing(bare_db: AirflowDatabase) -> None:
    bare_db.rows("drop role if exists stranger; create role stranger login")
    with AirflowDatabase(bare_db.user_url("stranger"), bare_db.shape).connect() as holder:
        holder.cursor().execute("select pg_advisory_lock(hashtext('dagstop install'), 0)")
        assert install(bare_db.url, waits=(0.01, 0.01)).changed
        assert uninstall(bare_db.url, waits=(0.01, 0.01))


ENDS = {
    "no DDL by day": "raise 'no DDL by day'",
    "only the DBA changes tables": "raise 'only the DBA changes tables' using errcode = 'insufficient_privilege'",
    'relation "ddl_log" does not exist': "insert into ddl_log values (tg_tag)",
}


@one_server
@pytest.mark.parametrize("said", ENDS)
def test_an_event_trigger_that_ends_an_install_is_named(bare_db: AirflowDatabase, said: str) -> None:
    bare_db.rows(
        "create function no_ddl() returns event_trigger language plpgsql as"
        f" $$ begin {ENDS[said]}; end $$;"
        " create event trigger guard on ddl_command_end execute function no_ddl()"
    )
    with pytest.raises(errors.InstallError, match=rf"event trigger guard ended .*\({said}\).*guard disable"):
        install(bare_db.url)
    bare_db.rows("alter event trigger guard disable")
    assert install(bare_db.url).changed


@pytest.mark.parametrize("by", ["install", "script"])
def test_a_publication_for_all_tables(bare_db: AirflowDatabase, server: Server, by: str) -> None:
    """Its subscribers lack dagstop's tables: install says so before it changes anything."""
    bare_db.rows("create publication everything for all tables")
    said = "publication everything is FOR ALL TABLES"
    if by == "script":
        with pytest.raises(RuntimeError, match=said):
            server.psql(bare_db.url, install_script())
        assert bare_db.one("select to_regnamespace('dagstop')") is None
        server.psql(bare_db.url, install_script(published=True))
        server.psql(bare_db.url, install_script())
    else:
        with pytest.raises(errors.InstallError, match=f"{said}.*FOR TABLES IN SCHEMA.*the option published"):
            install(bare_db.url)
        assert bare_db.one("select to_regnamespace('dagstop')") is None
        assert install(bare_db.url, published=True).changed
    assert not install(bare_db.url).changed
    bare_db.rows("alter table task_instance disable trigger dagstop_fence")
    assert install(bare_db.url).changed


DEPENDENTS = {
    "view stopped": "create view stopped as select * from dagstop.history",
    "materialized view stopped": "create materialized view stopped as select * from dagstop.stop_order",
    "function stops": "create function stops(o dagstop.stop_order) returns int language sql as 'select 1'",
    "constraint note_order_id_fkey on table note": (
        "create table note (order_id bigint references dagstop.stop_order)"
    ),
    "trigger mine on table dag_run": (
        "create trigger mine after update on dag_run for each row execute function dagstop.order_run()"
    ),
    "table dagstop.mine": (
        "create role dba; grant create, usage on schema dagstop to dba;"
        " set role dba; create table dagstop.mine (id int); reset role"
    ),
}


@pytest.mark.parametrize("by", ["command", "script"])
@pytest.mark.parametrize("what", DEPENDENTS)
def test_uninstall_asks_before_it_drops_what_is_anothers(
    airflow_db: AirflowDatabase, server: Server, what: str, by: str
) -> None:
    airflow_db.rows(
        "do $$ begin drop owned by dba; drop role dba; exception when undefined_object then null; end $$"
    )
    airflow_db.rows(DEPENDENTS[what])
    before = server.dump(airflow_db.url)
    named = what.replace("stopped", "(public.)?stopped")
    if by == "script":
        with pytest.raises(RuntimeError, match="other objects depend on"):
            server.psql(airflow_db.url, uninstall_script())
    else:
        with pytest.raises(errors.InstallError, match=rf"{named}.* depends on.*--cascade"):
            uninstall(airflow_db.url)
    assert server.dump(airflow_db.url) == before
    if by == "script":
        server.psql(airflow_db.url, uninstall_script(cascade=True))
    else:
        assert uninstall(airflow_db.url, cascade=True)
    assert airflow_db.one("select to_regnamespace('dagstop')") is None
    assert airflow_db.one("select count(*) from pg_trigger where tgname like 'dagstop%%'") == 0
