"""An order that could not be written is kept and written later; what was cleared or begun since survives."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dagstop.database.connection import query
from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.testbed.postgres import Server

pytestmark = one_server  # each waits a second
OURS = (
    "select relname from pg_class where relnamespace = 'dagstop'::regnamespace and relkind = 'r' order by 1"
)
ORDERS = "select kind, run_id, task_id, state_after, cascaded, hands_off from dagstop.stop_order order by id"
KEPT = "select count(*) from dagstop.unwritten_order where id > 0"


def client(db: AirflowDatabase, statement: str) -> None:
    """What Airflow does; it raises if it fails, or waits for a DBA."""
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set statement_timeout = '15s'")
        cursor.execute(statement)


@contextmanager
def locked(db: AirflowDatabase, table: str, mode: str = "share") -> Iterator[None]:
    """As CREATE INDEX takes it, or with `access exclusive` VACUUM FULL."""
    with db.transaction() as dba:
        dba.execute(f"lock table dagstop.{table} in {mode} mode")
        yield


def lose(db: AirflowDatabase, statement: str = "update dag_run set state = 'failed'") -> None:
    with locked(db, "stop_order"):
        client(db, statement)
    assert db.rows(ORDERS) == [] and db.one(KEPT) > 0
    assert {row for (row,) in db.rows("select sqlstate from dagstop.fault")} == {"DS002"}


def shown(db: AirflowDatabase) -> list[str]:
    """The faults for which `check` is red."""
    with db.connect() as connection:
        return [row["message"] for row in query(connection, "recent_faults")]


def fill(db: AirflowDatabase, prefix: str, number: int) -> None:
    for place, what in enumerate(("fail", "gone", "task", "clear", "late")):
        db.add_running(f"{prefix}-{what}", tasks=(f"{prefix}-{what}",), number=10 * number + place)
    for what in ("clear", "late"):
        db.set_run("failed", f"{prefix}-{what}")


STATEMENTS = (
    "update dag_run set state = 'failed' where run_id = '{0}-fail'",
    "update task_instance set state = 'failed' where task_id = '{0}-task'",
    "update task_instance set state = null where task_id = '{0}-clear'",
    "update task_instance set state = 'up_for_retry' where task_id = '{0}-late'",
    "update task_instance set pid = 17 where task_id = '{0}-task'",
    "delete from task_instance where task_id = '{0}-gone'",
)
AFTER = """
select
    (select count(*) from dagstop.stop_order where run_id = '{0}-fail' and kind = 'run'),
    (select state from task_instance where task_id = '{0}-fail'),
    (select count(*) from dagstop.stop_order where run_id = '{0}-task' and kind = 'task'),
    (select count(*) from dagstop.stop_order where run_id = '{0}-gone' and state_after = 'deleted'),
    (select count(*) from dagstop.stop_target where task_id = '{0}-clear' and released_at is not null),
    (select state from task_instance where task_id = '{0}-clear'),
    (select state from task_instance where task_id = '{0}-late'),
    (select count(*) from dagstop.refused_write where task_id = '{0}-late')
"""


def test_no_lock_on_a_table_of_ours_holds_up_airflow(airflow_db: AirflowDatabase) -> None:
    """Every table that the catalogue names, so that a new one is tried too; all is made good afterwards."""
    airflow_db.rows("update dagstop.setting set value = 'deleted' where name = 'also_stop_on'")
    tables = [name for (name,) in airflow_db.rows(OURS)]
    assert {"setting", "stop_order", "unwritten_order", "alembic_version"} < set(tables)
    for number, table in enumerate(tables):
        fill(airflow_db, table, number)
        with locked(airflow_db, table, "access exclusive"):
            for statement in STATEMENTS:
                client(airflow_db, statement.format(table))
        airflow_db.beat()
        after = airflow_db.one(AFTER.format(table))
        assert after == (1, "failed", 1, 1, 1, None, "failed", 1), table
        assert airflow_db.one(KEPT) == 0 and shown(airflow_db) == [], table


def test_a_late_write_is_refused_whatever_time_zone_it_came_from(airflow_db: AirflowDatabase) -> None:
    """The row is compared with the one that was kept, which another session wrote as text."""
    fill(airflow_db, "a", 0)
    with locked(airflow_db, "stop_order", "access exclusive"):
        client(airflow_db, f"set timezone = 'Asia/Tokyo'; {STATEMENTS[3].format('a')}")
    airflow_db.beat()
    assert airflow_db.one("select state from task_instance where task_id = 'a-late'") == "failed"
    assert airflow_db.one(KEPT) == 0 and shown(airflow_db) == []


def test_an_order_that_could_not_be_written_is_made_good_once(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    lose(airflow_db)
    assert "no stop order was written" in shown(airflow_db)[0]
    assert airflow_db.states() == {"a": "running", "b": "running"}
    at, user = airflow_db.one(
        "select at, draft ->> 'session_user_name' from dagstop.unwritten_order where id > 0"
    )
    airflow_db.beat("host")
    airflow_db.beat("other")
    assert airflow_db.rows(ORDERS) == [("run", "run", None, "failed", True, None)]
    order = "select created_at, session_user_name, state_before, logical_date is null from dagstop.stop_order"
    assert airflow_db.one(order) == (at, user, "running", False)
    assert airflow_db.states() == {"a": "failed", "b": "failed"}
    targets = "select task_id, state_before, released_at from dagstop.stop_target order by 1"
    assert airflow_db.rows(targets) == [("a", "running", None), ("b", "running", None)]
    assert airflow_db.one(KEPT) == 0 and shown(airflow_db) == []
    with airflow_db.connect() as connection:
        assert [
            row["run_id"] for row in query(connection, "open_orders", host="h", ids=None, max_orders=9)
        ] == ["run"]


def test_two_listeners_make_it_good_once(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_running("run2", ("b",), 1)
    lose(airflow_db)
    with airflow_db.transaction() as first:
        # the other's chore is at this one, and takes more
        first.execute(
            "select from dagstop.unwritten_order where draft ->> 'run_id' = 'run' for no key update"
        )
        airflow_db.beat("other")
        assert [row[1] for row in airflow_db.rows(ORDERS)] == ["run2"]
    airflow_db.beat("host")
    airflow_db.beat("other")
    assert sorted(row[1] for row in airflow_db.rows(ORDERS)) == ["run", "run2"]


def cleared(db: AirflowDatabase, task: str) -> None:
    """Somebody clears a task and leaves the run failed; it runs once more, as another try."""
    db.rows("update task_instance set state = null where task_id = %s", (task,))
    again = "start_date = now(), queued_dttm = now()" + (
        ", id = gen_random_uuid()" if db.has_uuid else ", job_id = 8"
    )
    db.rows(f"update task_instance set state = 'queued', {again} where task_id = %s", (task,))
    db.rows("update task_instance set state = 'running', pid = 99 where task_id = %s", (task,))


def test_what_was_cleared_in_the_failed_run_lives(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.add_task("c", state=None)
    lose(airflow_db)
    cleared(airflow_db, "b")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "b": "running", "c": "failed"}
    released = (
        "select t.task_id, t.released_at = o.created_at"
        " from dagstop.stop_target t join dagstop.stop_order o on o.id = t.order_id"
    )
    assert dict(airflow_db.rows(released)) == {"a": None, "b": True, "c": None}


def test_what_was_queued_and_began_since(airflow_db: AirflowDatabase) -> None:
    """Airflow 3's uuid says that it is the same try; before, it may be one that somebody cleared."""
    airflow_db.add_running()
    airflow_db.rows("update task_instance set state = 'queued', start_date = null, queued_dttm = now()")
    lose(airflow_db)
    airflow_db.rows("update task_instance set state = 'running', start_date = now()")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed" if airflow_db.has_uuid else "running"}


@pytest.mark.parametrize("state", [None, "scheduled", "restarting"])
def test_what_is_to_begin_again_is_left_alone(airflow_db: AirflowDatabase, state: str | None) -> None:
    airflow_db.add_running()
    lose(airflow_db)
    airflow_db.set_task("a", state)
    airflow_db.beat()
    assert airflow_db.states() == {"a": state}


def test_a_heartbeat_of_the_very_try_makes_it_no_other(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    lose(airflow_db)
    airflow_db.rows("update task_instance set pid = 4322")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed"}


WITHDRAWN: dict[str, Callable[[AirflowDatabase], Any]] = {
    "cleared": lambda db: db.set_run("queued"),
    "deleted": lambda db: db.rows("delete from task_instance; delete from dag_run"),
    "too old": lambda db: db.rows("update dagstop.unwritten_order set at = now() - interval '2 days'"),
}


@pytest.mark.parametrize("what", WITHDRAWN)
def test_a_run_that_is_not_failed_any_more_is_not_stopped(airflow_db: AirflowDatabase, what: str) -> None:
    airflow_db.add_running()
    lose(airflow_db)
    WITHDRAWN[what](airflow_db)
    airflow_db.beat()
    assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == 0
    assert set(airflow_db.states().values()) <= {"running"}


def test_a_failed_run_of_which_nothing_was_lost_is_left_alone(airflow_db: AirflowDatabase) -> None:
    """It failed before dagstop came, or its statement was undone."""
    airflow_db.add_run(state="failed")
    airflow_db.add_task("a")
    with locked(airflow_db, "stop_order"), airflow_db.connect() as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute("update dag_run set state = 'running'; update dag_run set state = 'failed'")
        connection.rollback()
    airflow_db.beat()
    assert airflow_db.rows(ORDERS) == [] and airflow_db.states() == {"a": "running"}


@pytest.mark.parametrize(("setting", "value"), [("observe_only", "on"), ("protected", "d*")])
def test_what_is_not_to_be_stopped_is_not(airflow_db: AirflowDatabase, setting: str, value: str) -> None:
    """The settings could not be read either: nothing is killed at once, the chores read them."""
    airflow_db.rows("update dagstop.setting set value = %s where name = %s", (value, setting))
    airflow_db.add_running()
    with locked(airflow_db, "setting", "access exclusive"):
        client(airflow_db, "update dag_run set state = 'failed'")
    assert airflow_db.rows(ORDERS) == []
    airflow_db.beat()
    (order,) = airflow_db.rows(ORDERS)
    assert order[-1] is not None and airflow_db.states() == {"a": "running"}
    assert airflow_db.rows("select * from dagstop.stop_target") == []


def test_one_that_cannot_be_made_good_holds_up_no_other(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running("run", tasks=("a",))
    airflow_db.add_running("run2", tasks=("b",), number=1)
    airflow_db.add_running("run3", tasks=("c",), number=2)
    lose(airflow_db)
    airflow_db.rows(
        "update dagstop.unwritten_order set draft = draft || '{\"state_after\": null}' where id = 2"
    )
    with airflow_db.transaction() as other:
        other.execute("select from task_instance where task_id = 'a' for update")
        airflow_db.beat()
        assert airflow_db.states() == {"a": "running", "b": "running", "c": "failed"}
    airflow_db.beat()
    assert airflow_db.states()["a"] == "failed"


def test_what_nobody_can_make_good_is_said(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    with locked(airflow_db, "stop_order"), locked(airflow_db, "unwritten_order"):
        client(airflow_db, "update dag_run set state = 'failed'")
    airflow_db.beat()
    assert airflow_db.rows(ORDERS) == [] and airflow_db.states() == {"a": "running"}
    ((code, message),) = airflow_db.rows("select sqlstate, message from dagstop.fault")
    assert code == "DS003" and "nobody makes it good" in message and shown(airflow_db) == [message]


@contextmanager
def small_disk(server: Server, db: AirflowDatabase) -> Iterator[Path]:
    """A file system of its own for dagstop's tables: the folder in which to fill it."""
    if os.geteuid() != 0:
        missing(RuntimeError("only root can mount"))
    folder = Path(tempfile.mkdtemp(prefix="dagstop-full-"))
    owner = server.data.stat()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(folder)], check=True)
    except subprocess.CalledProcessError as exc:
        folder.rmdir()
        missing(exc)
    try:
        inside = folder / "postgres"
        inside.mkdir()
        os.chown(inside, owner.st_uid, owner.st_gid)
        db.rows(f"create tablespace small location '{inside}'")
        move(db, "small")
        yield folder
        move(db, "pg_default")
        db.rows("drop tablespace small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def move(db: AirflowDatabase, tablespace: str) -> None:
    for kind, named in db.rows(
        "select case relkind when 'r' then 'table' else 'index' end, oid::regclass::text from pg_class"
        " where relnamespace = 'dagstop'::regnamespace and relkind in ('r', 'i')"
    ):
        db.rows(f"alter {kind} {named} set tablespace {tablespace}")


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as full:
        try:
            while True:
                full.write(bytes(4096))
        except OSError:
            return


@pytest.mark.parametrize("runs", [1, 5])
def test_a_full_disk_fails_nothing_and_loses_nothing(
    server: Server, airflow_db: AirflowDatabase, runs: int
) -> None:
    tasks = [f"t{number}" for number in range(runs)]
    for number, task in enumerate(tasks):
        airflow_db.add_running(f"run{number}", tasks=(task,), number=number)
    airflow_db.beat()  # the first one makes room
    with small_disk(server, airflow_db) as folder:
        fill_up(folder / "full")
        client(airflow_db, "update dag_run set state = 'failed'")
        assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == runs
        assert {row for (row,) in airflow_db.rows("select state from dag_run")} == {"failed"}
        airflow_db.rows("call dagstop.do_chores()")
        assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == runs
        (folder / "full").unlink()
        airflow_db.beat()
        assert len(airflow_db.rows(ORDERS)) == runs and airflow_db.one(KEPT) == 0
        assert airflow_db.states() == dict.fromkeys(tasks, "failed")


@shape_2
def test_more_than_there_is_room_for(server: Server, airflow_db: AirflowDatabase) -> None:
    """Of one run with 500 task instances the run alone is kept, of 200 runs at once the first few."""
    airflow_db.add_running("large", tasks=[f"t{number}" for number in range(500)], number=-1)
    airflow_db.add_runs(200)
    airflow_db.beat()  # the first one makes room
    with small_disk(server, airflow_db) as folder:
        fill_up(folder / "full")
        client(airflow_db, "update dag_run set state = 'failed' where run_id = 'large'")
        kept = "select draft ->> 'run_id', targets is null from dagstop.unwritten_order where id > 0"
        assert airflow_db.rows(kept) == [("large", True)]
        client(airflow_db, "update dag_run set state = 'failed' where run_id <> 'large'")
        assert 1 < (few := airflow_db.one(KEPT)) < 200
        (folder / "full").unlink()
        airflow_db.beat()
        assert airflow_db.rows(ORDERS)[0] == ("run", "large", None, "failed", True, None)
        assert len(airflow_db.rows(ORDERS)) == few and airflow_db.one(KEPT) == 0
