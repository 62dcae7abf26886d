"""A superuser installs, uninstalls and asks; a lesser role has put its own code wherever it may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg2
import pytest

from dagstop import sql
from dagstop.errors import DagstopError, InstallError
from dagstop.install import heal, install, install_script, uninstall, uninstall_script
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import dagstop
from tests.support.marks import shape_2
from tests.testbed.postgres import Server, rows

pytestmark = shape_2

# What each attack calls: whatever rights the session has beyond the role `af`, it takes them.
TRAPS = """
create schema trap;
grant usage on schema trap to public;
create function trap.grab() returns void language plpgsql as $f$
begin
    begin reset role; exception when others then null; end;
    begin execute 'alter role af superuser'; exception when others then null; end;
    begin insert into public.loot values (current_user, session_user); exception when others then null; end;
end $f$;
create function trap.fired() returns trigger language plpgsql as
$f$ begin perform trap.grab(); return coalesce(new, old); end $f$;
create function trap.value() returns text language plpgsql as $f$ begin perform trap.grab(); return ''; end $f$;
create function trap.holds(text) returns boolean language plpgsql immutable as
$f$ begin perform trap.grab(); return true; end $f$;
create function trap.same(text) returns text language plpgsql immutable as
$f$ begin perform trap.grab(); return $1; end $f$;
"""
EACH = ("setting", "value"), ("alembic_version", "version_num")
ON_A_TABLE = {
    "trigger": "create trigger aa before insert or update or delete on {0} for each row execute function trap.fired()",
    "trigger that is always on": "create trigger aa before insert or update or delete on {0} for each row"
    " execute function trap.fired(); alter table {0} enable always trigger aa",
    "trigger for each statement": "create trigger aa before insert or update or delete on {0}"
    " for each statement execute function trap.fired()",
    "trigger at commit": "create constraint trigger aa after insert or update or delete on {0}"
    " deferrable initially deferred for each row execute function trap.fired()",
    "trigger's condition": "create trigger aa before insert or update on {0} for each row when (trap.holds(new.{1}))"
    " execute function suppress_redundant_updates_trigger()",
    "rule on insert": "create rule aa as on insert to {0} do also select trap.grab()",
    "rule on update": "create rule aa as on update to {0} do also select trap.grab()",
    "rule on delete": "create rule aa as on delete to {0} do also select trap.grab()",
    "policy": "alter table {0} enable row level security; alter table {0} force row level security;"
    " create policy aa on {0} using (trap.holds({1})) with check (trap.holds({1}))",
    "check": "alter table {0} add constraint aa check (trap.holds({1}))",
    "default": "alter table {0} add column aa text default trap.value()",
    "generated column": "alter table {0} add column aa text generated always as (trap.same({1})) stored",
    "domain": "create domain trap.word as text check (trap.holds(value));"
    " alter table {0} alter column {1} type trap.word",
    "index on an expression": "create index aa on {0} (trap.same({1}))",
    "index on a part": "create index aa on {0} ({1}) where trap.holds({1})",
    "child": "create table trap.child (like {0} including all) inherits ({0});"
    " create trigger aa before update or delete on trap.child for each row execute function trap.fired()",
    "view": "drop table {0} cascade; create view {0} as select 'a' as name, 'b' as comment, trap.value() as {1}",
    "partitions": "drop table {0} cascade; create table {0} (name text, comment text, {1} text)"
    " partition by list (trap.same({1})); create table trap.part partition of {0} default",
}  # fmt: skip
ATTACKS = {
    **{f"{kind} of {table}": statements.format(f"dagstop.{table}", column)
       for kind, statements in ON_A_TABLE.items() for table, column in EACH},
    "foreign key": "create table trap.child (version varchar(32) references dagstop.alembic_version"
    " on update cascade on delete cascade); insert into trap.child select version_num from dagstop.alembic_version;"
    " create constraint trigger aa after update or delete on trap.child deferrable initially deferred"
    " for each row execute function trap.fired()",
    "our trigger's function": "create or replace function dagstop.check_setting() returns trigger language plpgsql as"
    " $f$ begin perform trap.grab(); return new; end $f$",
    "our trigger's helper": "create or replace function dagstop.patterns_in(list text) returns text[] language plpgsql"
    " as $f$ begin perform trap.grab(); return '{}'; end $f$",
    "our trigger's condition": "drop trigger dagstop_setting on dagstop.setting;"
    " create trigger dagstop_setting before insert or update on dagstop.setting for each row"
    " when (trap.holds(new.value)) execute function dagstop.check_setting()",
    "our trigger's name": "drop trigger dagstop_setting on dagstop.setting;"
    " create trigger dagstop_setting before insert or update on dagstop.setting for each row"
    " execute function trap.fired()",
    "function setting_of": "create or replace function dagstop.setting_of(setting_name text, fallback text default null) returns text"
    " language plpgsql as $f$ begin perform trap.grab(); return fallback; end $f$",
    "function seconds_of": "create or replace function dagstop.seconds_of(setting_name text, fallback integer default null)"
    " returns interval language plpgsql as $f$ begin perform trap.grab(); return '1 s'; end $f$",
    "function trigger_health": "create or replace function dagstop.trigger_health()"
    " returns table (table_name text, trigger_name text, status text, comment text) language plpgsql as"
    " $f$ begin perform trap.grab(); end $f$",
    "Airflow's triggers": "create trigger aa before update on dag_run for each row execute function trap.fired()",
    "search_path": "create function trap.current_setting(text) returns text language plpgsql as"
    " $f$ begin perform trap.grab(); return pg_catalog.current_setting($1); end $f$;"
    " create function trap.current_schema() returns text language plpgsql as"
    " $f$ begin perform trap.grab(); return pg_catalog.current_schema(); end $f$;"
    " create function trap.to_regnamespace(text) returns regnamespace language plpgsql as"
    " $f$ begin perform trap.grab(); return pg_catalog.to_regnamespace($1); end $f$;"
    " create function trap.eq(text, text) returns boolean language plpgsql as"
    " $f$ begin perform trap.grab(); return true; end $f$;"
    " create operator trap.= (leftarg = text, rightarg = text, function = trap.eq);"
    " create view trap.pg_type as select 1::oid as oid, 1::oid as typarray, 2::oid as typnamespace,"
    " trap.value()::name as typname",
}  # fmt: skip
SET_PATH = "do $d$ begin execute format('alter database %I set search_path = trap, pg_catalog, public', current_database()); end $d$"


@pytest.fixture
def trapped(bare_db: AirflowDatabase) -> Iterator[AirflowDatabase]:
    """A database of role `af`, no superuser, who owns Airflow's tables and has its traps in it."""
    bare_db.rows("do $$ begin create role af login; exception when duplicate_object then null; end $$")
    bare_db.rows(
        "do $$ declare t regclass; begin"
        " for t in select oid from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' loop"
        " execute format('alter table %s owner to af', t); end loop;"
        " execute format('alter database %I owner to af', current_database());"
        " execute format('grant all on schema public to af'); end $$"
    )
    bare_db.rows("create table public.loot (was name, logged_in name)")
    rows(bare_db.user_url("af"), TRAPS)
    bare_db.rows("select trap.grab()")
    assert bare_db.one("select rolsuper from pg_roles where rolname = 'af'")  # they are traps indeed
    bare_db.rows("alter role af nosuperuser; truncate public.loot")
    yield bare_db
    bare_db.rows("alter role af nosuperuser")


def by_command(_: Server, db: AirflowDatabase, *, gone: bool) -> None:
    if gone:
        uninstall(db.url, cascade=True)
        return
    for change in (install, heal):
        with suppress(DagstopError):
            change(db.url)


def by_script(server: Server, db: AirflowDatabase, *, gone: bool) -> None:
    with suppress(RuntimeError):  # what psql says
        server.psql(db.url, uninstall_script(cascade=True) if gone else install_script())


def nothing_gained(db: AirflowDatabase) -> None:
    with psycopg2.connect(db.user_url("postgres"), options="-c search_path=pg_catalog") as connection:
        cursor = connection.cursor()
        cursor.execute("select rolsuper from pg_roles where rolname = 'af'")
        assert cursor.fetchone() == (False,)
        cursor.execute("select * from public.loot")
        assert cursor.fetchall() == []
    connection.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_after_an_install(trapped: AirflowDatabase, server: Server, attack: str) -> None:
    install(trapped.url)
    nothing_gained(trapped)
    af = trapped.user_url("af")
    rows(af, "alter table task_instance disable trigger dagstop_fence")
    rows(af, "update dagstop.alembic_version set version_num = '0001'")
    rows(af, ATTACKS[attack])
    url = server.create_database(template=trapped.url.rsplit("/", 1)[1])
    try:
        for db, by in ((trapped, by_command), (AirflowDatabase(url, trapped.shape), by_script)):
            if attack == "search_path":  # a copy has neither its own settings nor its own owner
                trapped.rows(f'alter database "{db.url.rsplit("/", 1)[1]}" owner to af')
                rows(db.user_url("af"), SET_PATH)
            by(server, db, gone=False)
            nothing_gained(db)
            by(server, db, gone=True)
            nothing_gained(db)
    finally:
        server.drop_database(url)


PRE_CREATED = {
    "trigger": "create table dagstop.setting (name text primary key, value text not null, comment text not null);"
    " create trigger aa before insert on dagstop.setting for each row execute function trap.fired()",
    "both tables": "create table dagstop.setting (name text primary key, value text not null, comment text not null);"
    " create table dagstop.alembic_version (version_num varchar(32) not null);"
    " create trigger aa after insert or update on dagstop.alembic_version for each row execute function trap.fired()",
    "default": "create table dagstop.setting (name text primary key, value text not null, comment text not null,"
    " aa text default trap.value())",
    "view": "create view dagstop.alembic_version as select trap.value()::varchar(32) as version_num",
    "function": "create function dagstop.setting_of(setting_name text, fallback text) returns text language plpgsql as"
    " $f$ begin perform trap.grab(); return fallback; end $f$",
    "default of an order": "create table dagstop.stop_order (id bigint default length(trap.value()))",
}  # fmt: skip


@pytest.mark.parametrize("by", [by_command, by_script])
@pytest.mark.parametrize("owner", ["af", "mallory"])
@pytest.mark.parametrize("made", PRE_CREATED)
def test_before_the_first_install(
    trapped: AirflowDatabase, server: Server, made: str, owner: str, by: Callable[..., None]
) -> None:
    trapped.rows(
        "drop role if exists mallory; create role mallory login;"
        " do $$ begin execute format('grant create on database %I to mallory', current_database()); end $$"
    )
    rows(trapped.user_url(owner), f"create schema dagstop; {PRE_CREATED[made]}")
    by(server, trapped, gone=False)
    nothing_gained(trapped)
    by(server, trapped, gone=True)
    nothing_gained(trapped)


@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("status",),
        ("history",),
        ("config",),
        ("config", "cascade", "all"),
        ("config", "cascade", "--unset"),
        ("stop", "dag", "run"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("login", ["postgres", "member"])
def test_the_commands(trapped: AirflowDatabase, command: tuple[str, ...], login: str) -> None:
    install(trapped.url)
    trapped.rows("drop role if exists member; create role member login; grant postgres to member")
    trapped.add_running()
    af = trapped.user_url("af")
    for attack in (
        "trigger of setting",
        "function setting_of",
        "function seconds_of",
        "function trigger_health",
        "Airflow's triggers",
        "search_path",
    ):
        rows(af, ATTACKS[attack])
    rows(af, SET_PATH)
    done = dagstop(*command, "--database-url", trapped.user_url(login), check=False)
    nothing_gained(trapped)
    assert done.returncode == 1
    assert "superuser" in done.stderr and "'af'" in done.stderr


def test_nothing_changes_between_the_look_and_the_use(trapped: AirflowDatabase, server: Server) -> None:
    """What was found to be clean stays so until the superuser's transaction ends."""
    install(trapped.url)
    begin = sql.script(sql.PIN_FILE) + sql.script(sql.REFUSE_FILE, revision="0", published="off")
    with trapped.transaction() as cursor:
        cursor.execute(begin)
        for statement in (
            "alter schema dagstop rename to other",
            *(f"{ON_A_TABLE[kind]}".format("dagstop.setting", "value") for kind in ON_A_TABLE),
        ):
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                rows(trapped.user_url("af"), f"set lock_timeout = '100ms'; {statement}")
        cursor.execute(
            "select value from dagstop.setting where name = 'cascade'"
        )  # Airflow's statements do so


def test_the_owner_may_have_triggers_of_his_own(trapped: AirflowDatabase) -> None:
    """In a session of his own they run with no right that he has not; a superuser is told to drop them."""
    install(trapped.url)
    af = trapped.user_url("af")
    rows(af, ATTACKS["trigger of setting"])
    said = r"take the rights of postgres: trigger aa on dagstop.setting. Drop that .*or run this as af"
    with pytest.raises(InstallError, match=said):
        install(trapped.url)
    rows(af, "alter table task_instance disable trigger dagstop_fence")
    assert install(af).healed == ("task_instance.dagstop_fence",)
    nothing_gained(trapped)


def test_an_event_trigger_of_a_lesser_role(trapped: AirflowDatabase) -> None:
    """Only a superuser makes one, but whose function it calls is his choice."""
    rows(
        trapped.user_url("af"),
        "create function trap.ddl() returns event_trigger language plpgsql as"
        " $f$ begin perform trap.grab(); end $f$",
    )
    trapped.rows("create event trigger aa on ddl_command_end execute function trap.ddl()")
    with pytest.raises(InstallError, match="event trigger aa would run another role's code"):
        install(trapped.url)
    nothing_gained(trapped)


def test_a_listener_that_logs_in_as_a_superuser(trapped: AirflowDatabase) -> None:
    """It is not refused, or nothing would be stopped; `check` warns of it."""
    install(trapped.url)
    trapped.rows("select * from dagstop.heartbeat('host', gen_random_uuid(), '1', '{}')")
    told = dagstop("check", "--json", "--database-url", trapped.user_url("af"), check=False).stdout
    (found,) = (f for f in json.loads(told)["findings"] if f["name"] == "login of host")
    assert "superuser postgres" in found["said"] and "dagstop_listener" in found["do"]
