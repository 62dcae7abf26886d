"""Installing: once, twice, in part, as a script, under locks; and uninstalling."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dagstop import errors
from dagstop.install import heal, install, install_script, uninstall, uninstall_script
from tests.support.airflow_tables import AirflowDatabase, schema_sql
from tests.support.marks import one_server, shape_2
from tests.testbed.postgres import PASSWORD_ROLE, Server, connect, rows

GOLDEN = Path(__file__).parents[1] / "expected" / "schema.sql"
RENEW = "RENEW_GOLDEN=1 make test ARGS='tests/migrations -k golden'"
ALL_TRIGGERS = {
    "dag_run.dagstop_order", "dag_run.dagstop_cascade", "task_instance.dagstop_order",
    "task_instance.dagstop_fence", "task_instance.dagstop_deleted", "dag_run.dagstop_deleted",
    "dag_run.dagstop_fence",
}  # fmt: skip


def test_twice_changes_nothing(bare_db: AirflowDatabase, server: Server) -> None:
    first = install(bare_db.url)
    assert first.changed and first.airflow_schema == "public"
    dump = server.dump(bare_db.url)
    with bare_db.transaction() as cursor:  # the second one must not even wait for this lock
        cursor.execute("lock table dag_run, task_instance in row exclusive mode")
        second = install(bare_db.url, waits=())
    assert not second.changed and second.revision == first.revision
    assert server.dump(bare_db.url) == dump


def test_uninstall_leaves_no_trace_and_may_come_twice(bare_db: AirflowDatabase, server: Server) -> None:
    before = server.dump(bare_db.url)
    install(bare_db.url)
    bare_db.add_running()
    bare_db.set_run("failed")
    assert server.dump(bare_db.url) != before
    assert uninstall(bare_db.url) is True
    assert server.dump(bare_db.url) == before
    assert uninstall(bare_db.url) is False
    assert bare_db.states() == {"a": "failed"}


@pytest.mark.parametrize(
    "leftover",
    [
        "create schema dagstop",
        "create schema dagstop; create table dagstop.alembic_version "
        "(version_num varchar(32) not null constraint alembic_version_pkc primary key)",
        "create schema dagstop; create function dagstop.fence() returns trigger language plpgsql as "
        "'begin return null; end'; create trigger dagstop_order after update on dag_run "
        "for each row execute function dagstop.fence()",
    ],
)
def test_a_partial_install_is_completed_or_taken_out(
    bare_db: AirflowDatabase, server: Server, leftover: str
) -> None:
    before = server.dump(bare_db.url)
    bare_db.rows(leftover)
    assert uninstall(bare_db.url) is True
    assert server.dump(bare_db.url) == before
    install(bare_db.url)
    whole = server.dump(bare_db.url)
    uninstall(bare_db.url)
    bare_db.rows(leftover)
    assert install(bare_db.url).changed
    assert server.dump(bare_db.url) == whole


@pytest.mark.parametrize(
    "damage",
    [
        "drop table dagstop.stop_target cascade",
        "drop function dagstop.fence() cascade",
        "drop table dagstop.setting",
        "drop view dagstop.history",
    ],
)
def test_what_was_dropped_by_hand_is_healed(airflow_db: AirflowDatabase, server: Server, damage: str) -> None:
    whole = server.dump(airflow_db.url)
    airflow_db.rows(damage)
    assert install(airflow_db.url).changed
    assert server.dump(airflow_db.url) == whole


def test_airflow_2_2_recreates_task_instance(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows(
        "create table new_task_instance (like task_instance including all); "
        "drop table task_instance; alter table new_task_instance rename to task_instance"
    )
    health = dict(
        airflow_db.rows("select table_name || '.' || trigger_name, status from dagstop.trigger_health()")
    )
    lost = {name for name in ALL_TRIGGERS if name.startswith("task_instance")}
    assert {name for name, status in health.items() if status == "missing"} == lost
    assert lost <= set(install(airflow_db.url).healed)
    assert {row[2] for row in airflow_db.rows("select * from dagstop.trigger_health()")} == {"installed"}


def test_a_disabled_trigger_is_healed(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("alter table dag_run disable trigger dagstop_order")
    assert install(airflow_db.url).healed == ("dag_run.dagstop_order",)
    assert not install(airflow_db.url).changed


def test_the_script_makes_the_same_schema(bare_db: AirflowDatabase, server: Server) -> None:
    before = server.dump(bare_db.url)
    install(bare_db.url)
    online = server.dump(bare_db.url)
    uninstall(bare_db.url)
    server.psql(bare_db.url, install_script())
    assert server.dump(bare_db.url) == online
    assert not install(bare_db.url).changed
    server.psql(bare_db.url, uninstall_script())
    assert server.dump(bare_db.url) == before


@one_server
@shape_2
def test_the_script_gives_up_on_a_table_that_is_held(bare_db: AirflowDatabase, server: Server) -> None:
    with bare_db.transaction() as cursor:
        cursor.execute("lock table dag_run in row exclusive mode")
        with pytest.raises(RuntimeError, match="lock timeout"):
            server.psql(bare_db.url, install_script())
    assert bare_db.one("select to_regnamespace('dagstop')") is None


def test_the_script_says_where_it_does_not_belong(server: Server) -> None:
    with pytest.raises(RuntimeError, match="no Airflow tables dag_run"):
        server.psql(server.create_database(), install_script())


@one_server
def test_golden(server: Server) -> None:
    """On the newest server only: the words of pg_dump differ by release."""
    url = server.create_database(template="full_2.11.2")
    found = [
        line
        for line in server.dump(url, "--schema=dagstop", "--no-owner").splitlines()
        if not line.startswith(("-- Dumped", "\\restrict", "\\unrestrict"))  # a token, new each time
    ]
    if os.environ.get("RENEW_GOLDEN"):
        GOLDEN.write_text("\n".join(found) + "\n")
    assert found == GOLDEN.read_text().splitlines(), f"renew it with: {RENEW}"


def test_airflows_tables_in_a_schema_of_their_own(server: Server) -> None:
    url = server.create_database()
    script = f'create schema "Air flow"; set search_path = "Air flow"; {schema_sql("2.11.2")}'
    rows(url, script)
    assert install(url).airflow_schema == "Air flow"
    db = AirflowDatabase(url + "?options=-csearch_path%3D%22Air%5C%20flow%22", "2.11.2")
    db.add_running()
    db.set_run("failed")
    assert db.states() == {"a": "failed"}
    present = "select present -> 0 ->> 'state' from dagstop.open_orders('host')"
    assert db.one(present) == "failed"
    assert not install(url).changed
    rows(url, f"create schema other; set search_path = other; {schema_sql('2.11.2')}")
    with pytest.raises(errors.NotAirflowError, match="several schemas"):
        install(url)
    rows(url, 'alter schema "Air flow" rename to gone; alter table gone.dag_run rename to was')
    assert install(url + "?options=-csearch_path%3Dother").airflow_schema == "other"
    # what the same ids say in another Airflow's table is nothing to that order
    assert db.one(present) is None


@shape_2
def test_a_second_airflow_in_the_database_is_refused(airflow_db: AirflowDatabase, server: Server) -> None:
    """In whatever schema it is: dagstop goes on working for the first one."""
    airflow_db.rows(f"create schema other; set search_path = other; {schema_sql('2.11.2')}")
    other = airflow_db.url + "?options=-csearch_path%3Dother"
    before = server.dump(airflow_db.url)
    said = (
        "dagstop works for the Airflow in schema public, and a database has one dagstop only"
        ".* If Airflow has moved to schema other, drop or rename the tables that it left in schema public"
    )
    for change in (install, heal):
        with pytest.raises(errors.InstallError, match=said):
            change(other)
    with pytest.raises(RuntimeError, match="dagstop works for the Airflow in schema public"):
        server.psql(other, install_script())
    assert server.dump(airflow_db.url) == before
    assert not install(airflow_db.url).changed
    airflow_db.add_running()
    airflow_db.set_run("failed")
    assert airflow_db.states() == {"a": "failed"}
    airflow_db.rows("alter table public.dag_run rename to old_dag_run")  # it has moved
    assert install(other).airflow_schema == "other"


def test_airflows_tables_that_moved(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("alter schema public rename to airflow")
    assert install(airflow_db.url + "?options=-csearch_path%3Dairflow").airflow_schema == "airflow"
    moved = AirflowDatabase(airflow_db.url + "?options=-csearch_path%3Dairflow", airflow_db.shape)
    moved.add_running()
    moved.set_run("failed")
    assert moved.one("select present -> 0 ->> 'state' from dagstop.open_orders('host')") == "failed"
    assert moved.faults() == []


def test_a_lock_held_by_another_session(bare_db: AirflowDatabase) -> None:
    with bare_db.connect(application_name="long report") as holder:
        holder.autocommit = False
        holder.cursor().execute("lock table dag_run in access share mode")
        holder.cursor().execute("lock table task_instance in row exclusive mode")
        with pytest.raises(errors.LockError, match=r"3 attempts, held by pid \d+ \(long report"):
            install(bare_db.url, lock_timeout="50ms", waits=(0.01, 0.01))
        assert bare_db.one("select to_regnamespace('dagstop')") is None
    assert install(bare_db.url).changed


def test_not_airflow(server: Server) -> None:
    url = server.create_database()
    with pytest.raises(errors.NotAirflowError, match=r"is not Airflow's: no dag_run.*search_path"):
        install(url)
    assert uninstall(url) is False


def test_connection_errors_never_show_the_password(server: Server) -> None:
    rows(
        server.url("postgres"),
        f"drop role if exists {PASSWORD_ROLE}; create role {PASSWORD_ROLE} login password 'p@ss/w'",
    )
    wrong = server.url("postgres", PASSWORD_ROLE, "geheim%40")
    cases: list[tuple[str, type[errors.DagstopError], str]] = [
        (wrong, errors.LoginError, "password authentication failed"),
        (server.url("nowhere"), errors.NoSuchDatabaseError, "has no database 'nowhere'"),
        (server.url("postgres", "nobody_such"), errors.LoginError, "does not exist"),
        ("postgresql://u:geheim@127.0.0.1:1/a", errors.UnreachableError, "127.0.0.1:1 cannot be"),
        ("postgresql://u:geheim@/a?host=/no/such", errors.UnreachableError, "/no/such/.s.PGSQL.5432"),
        ("mysql://u:geheim@h/a", errors.UnsupportedDatabaseError, "mysql"),
        ("sqlite:////a/b.db", errors.UnsupportedDatabaseError, "sqlite"),
    ]
    for url, kind, words in cases:
        with pytest.raises(kind) as caught:
            install(url)
        assert words in str(caught.value)
        assert "geheim" not in str(caught.value) and "\n" not in str(caught.value)
    right = server.url("postgres", PASSWORD_ROLE, "p%40ss%2Fw")
    with pytest.raises(errors.NotAirflowError):
        install(right.replace("postgresql://", "postgresql+psycopg2://"))
    with pytest.raises(errors.NotAirflowError):
        install(server.socket_url("postgres"))


def test_two_installs_at_once(bare_db: AirflowDatabase) -> None:
    found: list[object] = []

    def one() -> None:
        try:
            found.append(install(bare_db.url).changed)
        except errors.DagstopError as error:
            found.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["False", "True"]


def test_the_role_goes_with_its_last_database(server: Server) -> None:
    with connect(server.url("postgres")) as connection, connection.cursor() as cursor:
        url = server.create_database(template="bare_1.10.0")
        install(url)
        uninstall(url)
        cursor.execute("select count(*) from pg_roles where rolname = 'dagstop_listener'")
        assert cursor.fetchone() == (1,)  # the template databases use it still
