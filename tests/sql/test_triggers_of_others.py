"""A DBA's audit triggers with unqualified names work for Airflow, and they work for dagstop's updates of its tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dagstop.install import install
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import dagstop
from tests.support.marks import one_server
from tests.testbed.postgres import Server, connect, rows

AUDIT = """
create type {0}.kind as enum ('noted');
create table {0}.change (at timestamptz default now(), kind kind, who text, what text);
create function {0}.kind_of(text) returns kind language plpgsql as $$ begin return $1::kind; end $$;
create function {0}.note() returns trigger language plpgsql as $$
declare
    noted kind := kind_of('noted');
begin
    insert into change (kind, who, what)
    values (noted, current_user, concat_ws(' ', tg_op, tg_table_name, tg_when, tg_level));
    return new;
end
$$;
"""
TRIGGER = """
create trigger {0}_{1}_{2} {0} insert or update on {2} for each {1} execute function {3}.note()
"""
# where the audit is, and the path that Airflow's role has as its default
PLACES = {
    "public": ("public", "public", None),
    "airflow's own schema": ("airflow", "airflow", "airflow"),
    "another schema on the path": ("public", "audit", "public, audit"),
    "another schema on the path, Airflow in its own": ("airflow", "audit", '"$user", airflow, audit'),
}


@pytest.fixture(params=PLACES)
def audited(
    server: Server, bare_db: AirflowDatabase, request: pytest.FixtureRequest
) -> Iterator[AirflowDatabase]:
    """Airflow's tables belong to the role that Airflow uses, and an audit trigger of each sort is on them."""
    airflow, place, path = PLACES[request.param]
    bare_db.rows("create role r_owner login")
    bare_db.rows("create role r_beat login in role dagstop_listener")
    name = bare_db.url.rsplit("/", 1)[1]
    bare_db.rows(f"grant create on database {name} to r_owner; grant all on schema public to r_owner")
    for schema in {airflow, place} - {"public"}:
        bare_db.rows(f"create schema {schema} authorization r_owner")
    bare_db.add_log_table()
    for (table,) in bare_db.rows(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    ):
        bare_db.rows(f"alter table {table} owner to r_owner")
        if airflow != "public":
            bare_db.rows(f"alter table {table} set schema {airflow}")
    if path is not None:
        bare_db.rows(f"alter role r_owner in database {name} set search_path = {path}")
    db = AirflowDatabase(bare_db.user_url("r_owner"), bare_db.shape)
    db.rows(AUDIT.format(place))
    for table in ("dag_run", "task_instance", "log"):
        for when in ("before", "after"):
            for level in ("row", "statement"):
                db.rows(TRIGGER.format(when, level, table, place))
    install(db.url)
    db.add_running()
    db.rows("truncate change")
    yield db
    server.drop_database(bare_db.url)
    bare_db = AirflowDatabase(server.url("postgres"), bare_db.shape)
    for role in ("r_owner", "r_beat"):
        bare_db.rows(f"drop owned by {role}; drop role {role}")


def noted(db: AirflowDatabase) -> set[str]:
    """What the audit has of task_instance; and forgets it."""
    found = {what for (what,) in db.rows("select what from change where what like '%task_instance%'")}
    db.rows("truncate change")
    return found


ALL_FOUR = {
    f"UPDATE task_instance {when} {level}" for when in ("BEFORE", "AFTER") for level in ("ROW", "STATEMENT")
}


def beat(db: AirflowDatabase) -> None:
    """A listener's session, whose role has nothing of Airflow's path."""
    rows(db.url.replace("//r_owner@", "//r_beat@"), "call dagstop.do_chores()")


def test_the_cascade_and_the_fence(audited: AirflowDatabase) -> None:
    audited.set_run("failed")
    assert audited.faults() == []
    assert audited.states() == {"a": "failed"} and noted(audited) == ALL_FOUR
    audited.set_task("a", "up_for_retry")
    assert audited.faults() == []
    assert audited.states() == {"a": "failed"} and noted(audited) == ALL_FOUR


@one_server
def test_who_fails_the_task_itself_and_the_audit_log(audited: AirflowDatabase) -> None:
    audited.set_task("a", "failed")  # before Airflow 3 its end is set by a second update
    assert audited.faults() == []
    assert noted(audited) == ALL_FOUR
    (order,) = audited.one("select array_agg(id) from dagstop.stop_order")
    beat(audited)
    rows(
        audited.url.replace("//r_owner@", "//r_beat@"),
        "select dagstop.write_report(%s, 'host', 'stopped', null, null, '{}')",
        (order,),
    )
    beat(audited)
    assert audited.faults() == []
    assert audited.one("select count(*) from change where what like 'INSERT log%%'") == 4


@one_server
def test_a_run_that_a_heartbeat_completes(audited: AirflowDatabase) -> None:
    with audited.transaction() as cursor:
        cursor.execute("update task_instance set pid = 1")
        audited.set_run("failed")
    assert audited.states() == {"a": "running"}
    audited.rows("delete from dagstop.fault")
    noted(audited)
    beat(audited)
    assert audited.faults() == []
    assert audited.states() == {"a": "failed"} and noted(audited) == ALL_FOUR


@one_server
def test_the_command_stop(audited: AirflowDatabase) -> None:
    dagstop("stop", "dag", "run", "--database-url", audited.url)
    assert audited.faults() == []
    assert audited.states() == {"a": "failed"} and noted(audited) == ALL_FOUR
    audited.set_task("a", None)
    audited.set_task("a", "running")
    audited.rows("update dagstop.stop_order set closed_at = now()")
    dagstop("stop", "dag", "run", "--database-url", audited.url)  # a run that is failed already
    assert audited.faults() == []
    assert audited.states() == {"a": "failed"}


TRAP = """
create schema evil;
create table evil.change (kind text, who text, what text);
create table evil.caught (by text);
create function evil.catch() returns trigger language plpgsql security definer as
    $$ begin insert into evil.caught values (session_user); return new; end $$;
create trigger caught before insert on evil.change for each row execute function evil.catch();
create function evil.same(anyelement, anyelement) returns boolean language plpgsql as
    $$ begin insert into evil.caught values (session_user); return true; end $$;
"""
OPERATORS = """
create function evil.same(varchar, text) returns boolean language plpgsql as
    $$ begin insert into evil.caught values ('operator'); return true; end $$;
create operator evil.= (leftarg = varchar, rightarg = text, function = same);
create operator evil.<> (leftarg = varchar, rightarg = text, function = same);
create function evil.minus(timestamptz, timestamptz) returns interval language plpgsql as
    $$ begin insert into evil.caught values ('operator'); return null; end $$;
create operator evil.- (leftarg = timestamptz, rightarg = timestamptz, function = minus);
create function evil.clock_timestamp() returns timestamptz language plpgsql as
    $$ begin insert into evil.caught values ('function'); return pg_catalog.now(); end $$;
create function evil.unnest(anyarray) returns setof anyelement language plpgsql as
    $$ begin insert into evil.caught values ('function'); return; end $$;
create domain evil.text as pg_catalog.text check (false);
grant usage on schema evil to public;
grant select, insert on all tables in schema evil to public;
"""


@one_server
@pytest.mark.parametrize("audited", ["another schema on the path"], indirect=True)
def test_a_lesser_role_chooses_nothing_that_runs_as_the_owner(audited: AirflowDatabase) -> None:
    """Who may update dag_run only has the audit of task_instance run with the owner's rights."""
    server_url = audited.url.replace("//r_owner@", "//postgres@")
    lesser_url = audited.url.replace("//r_owner@", "//r_beat@")
    rows(server_url, TRAP)
    rows(server_url, OPERATORS.replace("= same", "= evil.same").replace("= minus", "= evil.minus"))
    audited.rows("grant select, update on dag_run to r_beat; grant usage on schema audit to r_beat;")
    audited.rows("grant select, insert on all tables in schema audit to r_beat")
    for statement in (
        "update public.dag_run set state = 'failed'",
        "call dagstop.do_chores()",
    ):
        audited.rows("update dagstop.stop_order set cascaded = false; delete from dagstop.stop_target")
        rows(server_url, "set session_replication_role = replica; update task_instance set state = 'running'")
        with connect(lesser_url) as connection, connection.cursor() as cursor:
            cursor.execute("create temp table change (kind text, who text, what text)")
            cursor.execute("set search_path = evil, pg_catalog, audit, public")
            cursor.execute(statement)
        assert audited.states() == {"a": "failed"} and audited.faults() == []
    # the DBA's trigger on dag_run itself is the lesser role's own statement
    caught = rows(server_url, "select distinct by from evil.caught")
    assert caught in ([], [("r_beat",)])
    assert (
        audited.one("select count(*) from audit.change where who = 'r_owner' and what like 'UPDATE task%'")
        == 8
    )


@one_server
@pytest.mark.parametrize("audited", ["another schema on the path"], indirect=True)
def test_operators_on_the_owners_own_path_stand_in_for_none(audited: AirflowDatabase) -> None:
    server_url = audited.url.replace("//r_owner@", "//postgres@")
    rows(server_url, TRAP)
    rows(server_url, OPERATORS.replace("= same", "= evil.same").replace("= minus", "= evil.minus"))
    rows(server_url, "drop table evil.change")
    name = audited.url.rsplit("/", 1)[1]
    rows(
        server_url, f"alter role r_owner in database {name} set search_path = evil, pg_catalog, public, audit"
    )
    audited.rows(
        "update public.dag_run set state = 'failed' where dag_id operator(pg_catalog.=) 'dag'::varchar"
    )
    audited.rows("update public.task_instance set state = 'up_for_retry'")
    assert audited.states() == {"a": "failed"} and audited.faults() == []
    assert audited.rows("select * from evil.caught") == []


@one_server
@pytest.mark.parametrize("audited", ["another schema on the path"], indirect=True)
def test_a_path_that_was_set_later_is_not_seen(audited: AirflowDatabase) -> None:
    """The trigger functions' own schema is on the path; what they find in a third one is not."""
    audited.rows("create schema third; alter table audit.change set schema third")
    with audited.connect() as connection:
        connection.cursor().execute("set search_path = public, audit, third")
        connection.cursor().execute("update dag_run set state = 'failed'")
    assert audited.faults() == [("cascade_statement", 'relation "change" does not exist')]
    assert audited.states() == {"a": "running"}
    assert audited.one("select count(*) from dagstop.stop_order") == 1  # the hosts stop it all the same
    name = audited.url.rsplit("/", 1)[1]
    audited.rows(f"alter role r_owner in database {name} set search_path = public, audit, third")
    beat(audited)
    assert audited.states() == {"a": "failed"}
