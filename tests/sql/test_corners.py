"""What Postgres can do to Airflow's tables and Airflow itself never does: handled, refused, or said in docs/limits.md."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest

from dagstop.errors import InstallError
from dagstop.install import install
from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase, schema_sql
from tests.support.marks import one_server, shape_1_10, shape_2
from tests.testbed.postgres import Server, binaries, connect

ORDERS = "select kind, run_id from dagstop.stop_order order by id"
FOR_THIS_TRANSACTION = "select set_config('dagstop.{}', txid_current()::text, true)"


@one_server
@shape_2
def test_a_run_that_a_dying_task_writes_back(airflow_db: AirflowDatabase) -> None:
    """By merging a copy that differs in the state alone: what is dead stays failed, the next failing is an order."""
    airflow_db.add_running()
    airflow_db.set_run("failed")
    airflow_db.rows("update dag_run set state = 'running', end_date = null returning id")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "failed"}
    airflow_db.set_run("failed")
    assert airflow_db.rows(ORDERS) == [("run", "run"), ("run", "run")]
    assert airflow_db.faults() == []


@one_server
def test_a_bypass_reaches_no_other_transaction(airflow_db: AirflowDatabase) -> None:
    """Through a pooler the next transaction of the session is Airflow's."""
    airflow_db.add_running()
    airflow_db.set_run("failed")
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        for leaked in (
            "set dagstop.bypass = 'on'",
            "select set_config('dagstop.bypass', txid_current()::text, false)",
        ):
            cursor.execute(leaked)
            cursor.execute("update task_instance set state = 'up_for_retry'")
            assert airflow_db.states() == {"a": "failed"}
        assert any("has no effect" in notice for notice in connection.notices)
        cursor.execute("begin; " + FOR_THIS_TRANSACTION.format("bypass"))
        cursor.execute("update task_instance set state = 'up_for_retry'; commit")
    assert airflow_db.states() == {"a": "up_for_retry"}
    assert airflow_db.faults() == []


@pytest.fixture(scope="module")
def prepares() -> Iterator[AirflowDatabase]:
    """A server that prepares transactions, which others do not by default."""
    server = Server(binaries()[max(binaries())])
    try:
        server.halt()
        with (server.data / "postgresql.conf").open("a") as conf:
            conf.write("max_prepared_transactions = 5\n")
        server.start()
        url = server.create_database()
        server.psql(url, schema_sql("2.11.2"))
        install(url)
        yield AirflowDatabase(url, "2.11.2")
    finally:
        server.stop()


@pytest.mark.server
def test_a_transaction_that_is_prepared(prepares: AirflowDatabase) -> None:
    """Postgres prepares none that has executed NOTIFY: its author says so, and the listeners' sweep finds the order."""
    prepares.add_running()
    fails = "update dag_run set state = 'failed'"
    with connect(prepares.url) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute(fails)
        with pytest.raises(psycopg2.errors.FeatureNotSupported, match="NOTIFY"):
            cursor.execute("prepare transaction 'mine'")
        assert prepares.states() == {"a": "running"}
        cursor.execute("begin")
        cursor.execute(FOR_THIS_TRANSACTION.format("quiet"))
        cursor.execute(fails)
        cursor.execute("prepare transaction 'mine'")
        assert prepares.states() == {"a": "running"}
        cursor.execute("commit prepared 'mine'")
    assert prepares.states() == {"a": "failed"}
    assert prepares.rows(ORDERS) == [("run", "run")]
    assert prepares.faults() == []


@one_server
@shape_1_10
@pytest.mark.parametrize("table", ["dag_run", "task_instance"])
def test_partitions_are_refused(bare_db: AirflowDatabase, table: str) -> None:
    bare_db.rows(
        f"alter table {table} rename to whole;"
        f" create table {table} (like whole including defaults) partition by list (state)"
    )
    with pytest.raises(InstallError, match="partitioned: dagstop needs them as Airflow makes them"):
        install(bare_db.url)
    assert bare_db.one("select to_regnamespace('dagstop')") is None


@pytest.fixture
def owned_db(server: Server, bare_db: AirflowDatabase) -> Iterator[AirflowDatabase]:
    """Airflow's tables belong to a role that is not a superuser and has installed dagstop."""
    name = bare_db.url.rsplit("/", 1)[1]
    bare_db.rows(f"create role r_owner login; grant create on database {name} to r_owner")
    bare_db.rows("grant all on schema public to r_owner")
    for table in ("dag_run", "task_instance", "alembic_version"):
        bare_db.rows(f"alter table {table} owner to r_owner")
    install(bare_db.user_url("r_owner"))
    yield bare_db
    server.drop_database(bare_db.url)
    AirflowDatabase(server.url("postgres"), bare_db.shape).rows("drop role r_owner")


@one_server
@shape_2
def test_policies_for_the_owner_too(owned_db: AirflowDatabase) -> None:
    """FORCE ROW LEVEL SECURITY binds dagstop, who acts as the owner: what it may not see it cannot fail."""
    owned_db.add_running(tasks=("seen", "hidden"))
    owned_db.rows(
        "alter table task_instance enable row level security;"
        " create policy p on task_instance using (task_id <> 'hidden')"
    )
    owned_db.set_run("failed")
    assert owned_db.states() == {"seen": "failed", "hidden": "failed"}  # an owner sees all
    assert owned_db.faults() == []
    owned_db.rows(
        "set session_replication_role = replica; update task_instance set state = 'running'; update dag_run set state = 'running'"
    )
    owned_db.rows("alter table task_instance force row level security")
    owned_db.set_run("failed")
    assert owned_db.states() == {"seen": "failed", "hidden": "running"}
    assert owned_db.rows(ORDERS) == [("run", "run")] * 2  # the hosts know it all the same
    ((place, message),) = owned_db.faults()
    assert place == "cascade_orders" and "row level security" in message


@one_server
@shape_2
def test_a_run_that_a_policy_hides_from_the_owner_is_stopped(owned_db: AirflowDatabase) -> None:
    """That it cannot be seen does not say that it is not there: a superuser has failed it."""
    owned_db.add_running()
    owned_db.rows(
        "alter table dag_run enable row level security, force row level security;"
        " create policy p on dag_run using (false)"
    )
    owned_db.set_run("failed")
    assert owned_db.rows(ORDERS) == [("run", "run")]
    assert owned_db.states() == {"a": "failed"}


@one_server
@shape_2
def test_a_session_that_wants_no_policies(owned_db: AirflowDatabase) -> None:
    """With row_security = off Postgres refuses what a policy would filter; the cascade has it on."""
    owned_db.add_running()
    owned_db.rows(
        "alter table task_instance enable row level security, force row level security;"
        " create policy p on task_instance using (true)"
    )
    owned_db.rows("set row_security = off; update dag_run set state = 'failed'")
    assert owned_db.states() == {"a": "failed"}


@one_server
def test_what_is_inserted_as_failed_was_not_failed_now(airflow_db: AirflowDatabase) -> None:
    """A restore or an archive that comes back must stop nothing. `check` names such a run if a task of it runs."""
    airflow_db.add_run(state="failed")
    airflow_db.add_task("failed already", state="failed")
    airflow_db.add_task("runs", state="running")
    assert airflow_db.rows(ORDERS) == []
    assert airflow_db.states() == {"failed already": "failed", "runs": "running"}
    assert airflow_db.rows("select run_id, tasks from dagstop.running_in_failed_runs()") == [("run", 1)]
    airflow_db.rows("select dagstop.stop_again('dag', 'run')")
    assert airflow_db.states()["runs"] == "failed"


@one_server
def test_a_replication_or_restore_orders_nothing(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("set session_replication_role = replica; update dag_run set state = 'failed'")
    assert airflow_db.rows(ORDERS) == [] and airflow_db.states() == {"a": "running"}
    assert airflow_db.one("select tasks from dagstop.running_in_failed_runs()") == 1


@one_server
@shape_1_10
@pytest.mark.parametrize("held", [False, True], ids=["at once", "by a heartbeat"])
def test_a_run_without_run_id(airflow_db: AirflowDatabase, held: bool) -> None:
    """Airflow 1.10's column allows it; the run's date says what belongs to it."""
    airflow_db.add_running()
    airflow_db.add_running("another", ("b",), 1)
    airflow_db.rows("update dag_run set run_id = null where run_id = 'run'")
    with airflow_db.transaction() as cursor:
        if held:
            cursor.execute("update task_instance set pid = 1")
        airflow_db.rows("update dag_run set state = 'failed' where run_id is null")
    if held:
        assert airflow_db.states() == {"a": "running", "b": "running"}
        airflow_db.beat("host")
    assert airflow_db.states() == {"a": "failed", "b": "running"}
    ((run, date, targets, present),) = airflow_db.rows(
        "select run_id, logical_date, jsonb_array_length(targets), jsonb_array_length(present)"
        " from dagstop.open_orders('host')"
    )
    assert (run, date, targets, present) == (None, FIRST_DATE, 1, 1)
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states()["a"] == "failed"
    assert len(airflow_db.faults()) == int(held)
