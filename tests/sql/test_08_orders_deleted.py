"""08_orders_deleted.sql: what orders a stop besides failed, if the setting also_stop_on says so."""

from __future__ import annotations

import pytest

from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.marks import one_server, shape_1_10
from tests.support.settings import set_setting

ORDERS = (
    "select kind, run_id, task_id, state_before, state_after, cascaded from dagstop.stop_order order by id"
)
TARGETS = "select task_id, state_before, released_at is not null from dagstop.stop_target order by task_id"


def test_by_itself_nothing_but_failed_orders_a_stop(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b", "c"))
    airflow_db.set_task("a", "skipped")
    airflow_db.set_task("b", "removed")
    airflow_db.rows("delete from task_instance where task_id = 'c'")
    airflow_db.rows("delete from dag_run")
    assert airflow_db.rows(ORDERS) == [] and airflow_db.faults() == []


def test_a_deleted_run_and_all_that_ran_in_it_is_one_order(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.add_running("other", tasks=("x",), number=1)
    airflow_db.add_task("done", "success")
    airflow_db.add_task("waits", "scheduled")
    airflow_db.rows("delete from dag_run where run_id = 'run'")
    ((kind, run, task, before, after, cascaded),) = airflow_db.rows(ORDERS)
    assert (kind, run, task, after, cascaded) == ("run", "run", None, "deleted", True)
    targets = [("a", "running"), ("b", "running")]
    if airflow_db.by_date:  # no foreign key takes the task instances along: they fail
        assert before == "running"
        assert airflow_db.one("select logical_date from dagstop.stop_order") == FIRST_DATE
        targets.append(("waits", "scheduled"))
        assert airflow_db.states() == {
            "a": "failed", "b": "failed", "done": "success", "waits": "failed", "x": "running",
        }  # fmt: skip
    else:
        assert before is None  # that of which of them?
        assert airflow_db.states() == {"x": "running"}
    gone = not airflow_db.by_date
    assert airflow_db.rows(TARGETS) == [(task, state, gone) for task, state in targets]
    (order,) = airflow_db.rows("select state_after, present is not null from dagstop.open_orders('h')")
    assert order == ("deleted", True)
    assert airflow_db.faults() == []


def test_as_airflow_deletes_a_run(airflow_db: AirflowDatabase) -> None:
    """Its task instances first, in statements of their own, one transaction."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running(tasks=("a", "b"))
    with airflow_db.transaction() as session:
        session.execute("delete from task_instance where task_id = 'a'")
        session.execute("delete from task_instance where task_id = 'b'")
        session.execute("delete from dag_run")
    orders = airflow_db.rows(ORDERS)
    assert [(kind, task) for kind, _, task, *_ in orders] == [("task", "a"), ("task", "b")]
    assert all(run == "run" for _, run, *_ in orders)


def test_a_deleted_task_instance_of_a_run_still_there(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.rows("delete from task_instance where task_id = 'a'")
    assert airflow_db.rows(ORDERS) == [("task", "run", "a", "running", "deleted", True)]
    assert airflow_db.one("select logical_date from dagstop.stop_order") == FIRST_DATE
    assert airflow_db.rows(TARGETS) == [("a", "running", True)]
    assert airflow_db.states() == {"b": "running"}


def test_what_is_finished_or_never_ran_is_deleted_without_an_order(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_run()
    for state in ("success", "failed", "skipped", None, "up_for_retry", "queued"):
        airflow_db.add_task(f"was {state}", state)
    airflow_db.rows("update dag_run set state = 'success'")
    airflow_db.rows("delete from dag_run")
    airflow_db.rows("delete from task_instance")
    assert airflow_db.rows(ORDERS) == []


def test_a_run_made_anew_with_the_same_name_is_not_fenced(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    with airflow_db.transaction() as session:
        session.execute("delete from task_instance")
        session.execute("delete from dag_run")
    set_setting(airflow_db, "also_stop_on", "")
    airflow_db.add_run()
    airflow_db.add_task("a", "failed")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


@pytest.mark.parametrize("state", ["skipped", "removed"])
def test_a_running_task_instance_that_is_set_so(airflow_db: AirflowDatabase, state: str) -> None:
    set_setting(airflow_db, "also_stop_on", f"deleted, {state}")
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.add_task("waits", "scheduled")
    airflow_db.set_task("a", state)
    airflow_db.set_task("waits", state)
    airflow_db.set_task("b", "success")
    assert airflow_db.rows(ORDERS) == [("task", "run", "a", "running", state, True)]
    assert airflow_db.states()["a"] == state
    assert airflow_db.one("select end_date is null from task_instance where task_id = 'a'")
    assert airflow_db.faults() == []


@one_server
def test_whatever_of_a_task_runs_is_stopped_with_it(airflow_db: AirflowDatabase) -> None:
    """Skipped in one statement: what had not begun, or has ended, needs no stop."""
    set_setting(airflow_db, "also_stop_on", "skipped")
    airflow_db.add_run()
    for state in ("running", "restarting", "shutdown", "queued", "up_for_retry", "success", None):
        airflow_db.add_task(f"was {state}", state)
    airflow_db.rows("update task_instance set state = 'skipped'")
    stopped = airflow_db.rows("select task_id from dagstop.stop_order order by 1")
    assert stopped == [("was restarting",), ("was running",), ("was shutdown",)]
    assert airflow_db.faults() == []


@one_server
@shape_1_10
def test_a_cascade_of_a_deleted_run_that_gave_way_is_made_up_for(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    with airflow_db.transaction() as other:
        other.execute("select from task_instance for update")
        airflow_db.rows("delete from dag_run")
    assert airflow_db.rows("select cascaded from dagstop.stop_order") == [(False,)]
    airflow_db.beat("one")
    assert airflow_db.rows("select cascaded from dagstop.stop_order") == [(True,)]
    assert airflow_db.states() == {"a": "failed"}


@one_server
@pytest.mark.parametrize(("name", "value", "why"), [
    ("observe_only", "on", "observe only"), ("protected", "dag", "protected DAG"),
])  # fmt: skip
def test_nothing_of_what_is_left_alone_changes(
    airflow_db: AirflowDatabase, name: str, value: str, why: str
) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted, skipped")
    set_setting(airflow_db, name, value)
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.set_task("b", "skipped")
    airflow_db.rows("delete from dag_run")
    orders = airflow_db.rows("select hands_off, cascaded, state_after from dagstop.stop_order order by id")
    assert orders == [(why, True, "skipped"), (why, True, "deleted")]
    assert airflow_db.rows(TARGETS) == []
    assert airflow_db.states() == ({"a": "running", "b": "skipped"} if airflow_db.by_date else {})


@one_server
def test_a_fault_lets_the_delete_pass(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    airflow_db.rows("drop function dagstop.ring(); drop function dagstop.date_column_of(text)")
    airflow_db.rows("delete from task_instance")
    airflow_db.rows("delete from dag_run")
    assert airflow_db.one("select count(*) from dag_run") == 0
    assert [place for place, _ in airflow_db.faults()] == ["order_deleted_task", "order_deleted_run"]


@one_server
def test_a_delete_waits_for_nobody(airflow_db: AirflowDatabase) -> None:
    """A migration that holds dag_run may want next what the deleting session holds."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    with airflow_db.transaction() as migration:
        migration.execute("lock table dag_run in access exclusive mode")
        airflow_db.rows("set lock_timeout = '8s'; delete from task_instance")
    assert airflow_db.states() == {}
    ((kind, task),) = airflow_db.rows("select kind, task_id from dagstop.stop_order")
    assert (kind, task) == ("task", "a")
    assert [place for place, _ in airflow_db.faults()] == ["order_deleted_task"]


def test_a_deleted_run_of_which_all_is_finished_orders_nothing(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_run()
    for state in ("success", "failed", "skipped", "upstream_failed", "removed"):
        airflow_db.add_task(state, state)
    airflow_db.rows("delete from dag_run")
    assert airflow_db.rows(ORDERS) == [] and airflow_db.faults() == []


def test_deleted_runs_of_two_dags_are_two_orders(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    for dag in ("d", "e"):
        airflow_db.add_run(dag_id=dag)
        airflow_db.add_task("a", dag_id=dag)
    airflow_db.rows("delete from dag_run")
    assert airflow_db.rows("select dag_id, kind from dagstop.stop_order order by 1") == [
        ("d", "run"),
        ("e", "run"),
    ]


def test_what_ran_in_a_run_that_was_finished_and_deleted_is_one_order(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.set_run("success")
    with airflow_db.transaction() as session:
        session.execute("delete from dag_run")
        session.execute("delete from task_instance where task_id = 'a'")
        session.execute("delete from task_instance where task_id = 'b'")
    expected = ["run"]
    if airflow_db.by_date:  # while another is left, the run may not be gone for good
        expected = ["run", "task"]
    assert [row[0] for row in sorted(airflow_db.rows(ORDERS))] == expected and airflow_db.faults() == []


def test_what_another_dag_still_runs_is_not_a_deleted_runs(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    for dag, state in (("d", "success"), ("e", "running")):
        airflow_db.add_run(dag_id=dag)
        airflow_db.add_task("a", state, dag_id=dag)
    airflow_db.rows("delete from dag_run where dag_id = 'd'")
    assert airflow_db.rows(ORDERS) == [] and airflow_db.faults() == []


def test_the_order_of_a_deleted_task_instance_names_it(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    airflow_db.rows("delete from task_instance")
    named = airflow_db.rows("select kind, run_id, task_id, map_index, state_before from dagstop.stop_order")
    assert named == [("task", "run", "a", -1, "running")]


@one_server
def test_runs_that_are_deleted_together_are_an_order_each(airflow_db: AirflowDatabase) -> None:
    """Two of one DAG, and one of the same name in another; each order has what ran in its own run."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running("run", ("a", "b"))
    airflow_db.add_running("other", ("c",), 1)
    airflow_db.add_run("dag2", "run")
    airflow_db.add_task("d", dag_id="dag2")
    airflow_db.rows("update dag_run set state = 'success'")
    with airflow_db.transaction() as session:
        session.execute("delete from dag_run")
        session.execute("delete from task_instance")
    of_orders = (
        "select o.dag_id, o.logical_date, string_agg(t.task_id, ' ' order by t.task_id)"
        " from dagstop.stop_order o join dagstop.stop_target t on t.order_id = o.id group by o.id order by 1, 2, 3"
    )
    found = [(dag, tasks) for dag, _, tasks in airflow_db.rows(of_orders)]
    if airflow_db.by_date:  # while others of a run are left it may not be gone for good
        assert sorted(found) in ([("dag", "a"), ("dag", "b"), ("dag", "c"), ("dag2", "d")],
                                 [("dag", "a b"), ("dag", "c"), ("dag2", "d")])  # fmt: skip
    else:
        assert sorted(found) == [("dag", "a b"), ("dag", "c"), ("dag2", "d")]
    assert airflow_db.faults() == []


@one_server
def test_a_run_that_is_deleted_a_second_time_is_a_second_order(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    for _ in range(2):
        airflow_db.add_running(tasks=("a", "b"))
        airflow_db.rows("update dag_run set state = 'success'")
        airflow_db.rows(
            "delete from dag_run; delete from task_instance where task_id = 'a'; delete from task_instance"
        )
    counted = "select count(*) from dagstop.stop_target group by order_id order by order_id"
    assert [n for (n,) in airflow_db.rows(counted)] in ([2, 2], [1, 1, 1, 1])
    assert airflow_db.faults() == []


@one_server
def test_a_protected_run_that_is_failed_and_deleted_at_once_is_two_orders(
    airflow_db: AirflowDatabase,
) -> None:
    """What it ran is not failed with it, so it is still running when it is deleted."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    set_setting(airflow_db, "protected", "dag")
    airflow_db.add_running()
    if airflow_db.by_date:
        airflow_db.rows("update dag_run set run_id = null")
    with airflow_db.transaction() as session:
        session.execute("update dag_run set state = 'failed'")
        session.execute("delete from dag_run")
        session.execute("delete from task_instance")
    after = [row[4] for row in airflow_db.rows(ORDERS)]
    assert after == ["failed", "deleted"] and airflow_db.rows(TARGETS) == []


@one_server
@shape_1_10
def test_of_a_protected_run_each_task_instance_is_an_order_until_the_last_one(
    airflow_db: AirflowDatabase,
) -> None:
    """While others of it are left, the run may be created again."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    set_setting(airflow_db, "protected", "dag")
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.rows("update dag_run set run_id = null")
    with airflow_db.transaction() as session:
        session.execute("delete from dag_run")
        session.execute("delete from task_instance where task_id = 'a'")
        session.execute("delete from task_instance")
    assert [(row[0], row[2]) for row in airflow_db.rows(ORDERS)] == [("run", None), ("task", "a")]


@one_server
@shape_1_10
@pytest.mark.parametrize("state", ["running", None])
def test_what_a_deleted_run_left_unfinished_fails_only_if_the_setting_says_so(
    airflow_db: AirflowDatabase, state: str | None
) -> None:
    for run, also, after in (("one", "", state), ("two", "deleted", "failed")):
        set_setting(airflow_db, "also_stop_on", also)
        airflow_db.rows("delete from task_instance")
        airflow_db.add_run(run_id=run)
        airflow_db.add_task("a", state)
        airflow_db.rows("delete from dag_run")
        assert airflow_db.states() == {"a": after}


@one_server
def test_a_run_is_gone_although_another_dag_has_one_of_its_name(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    for dag in ("dag", "other"):
        airflow_db.add_run(dag)
        airflow_db.add_task("a", dag_id=dag)
        airflow_db.add_task("b", dag_id=dag)
    airflow_db.rows("update dag_run set state = 'success'")
    with airflow_db.transaction() as session:
        session.execute("delete from dag_run where dag_id = 'dag'")
        session.execute("delete from task_instance where dag_id = 'dag'")
    named = "select dag_id, kind, task_id, map_index, state_before from dagstop.stop_order"
    assert airflow_db.rows(named) == [("dag", "run", None, None, None)]
    assert airflow_db.rows("select task_id from dagstop.stop_target order by 1") == [("a",), ("b",)]
    assert airflow_db.faults() == []


@one_server
def test_a_task_instance_deleted_before_its_run_keeps_an_order_of_its_own(
    airflow_db: AirflowDatabase,
) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.rows("update dag_run set state = 'success'")
    with airflow_db.transaction() as session:
        session.execute("delete from task_instance where task_id = 'a'")
        session.execute("delete from dag_run")
        session.execute("delete from task_instance")
    of_orders = (
        "select o.kind, o.task_id, string_agg(t.task_id, ' ' order by t.task_id)"
        " from dagstop.stop_order o join dagstop.stop_target t on t.order_id = o.id group by o.id order by o.id"
    )
    assert airflow_db.rows(of_orders) == [("task", "a", "a"), ("run", None, "b")]
    assert airflow_db.faults() == []


@one_server
@shape_1_10
def test_what_is_deleted_after_its_protected_run_is_an_order_without_the_runs_id(
    airflow_db: AirflowDatabase,
) -> None:
    """Airflow 1.10's task instances do not say it, and the row that did is gone; their date names the run as well."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    set_setting(airflow_db, "protected", "dag")
    airflow_db.add_running(tasks=("a", "b"))
    with airflow_db.transaction() as session:
        session.execute("delete from dag_run")
        session.execute("delete from task_instance")
    orders = airflow_db.rows(
        "select kind, run_id, logical_date, hands_off from dagstop.stop_order order by id"
    )
    assert orders == [("run", run, FIRST_DATE, "protected DAG") for run in ("run", None)]
    assert airflow_db.faults() == []


@one_server
@shape_1_10
def test_a_deleted_run_without_run_id_is_an_order_by_its_date(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    airflow_db.rows("update dag_run set run_id = null; delete from dag_run")
    assert airflow_db.rows(ORDERS) == [("run", None, None, "running", "deleted", True)]
    assert airflow_db.one("select logical_date from dagstop.stop_order") == FIRST_DATE
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.faults() == []


@one_server
@shape_1_10
def test_a_run_that_another_trigger_creates_again_at_its_date_runs_on(airflow_db: AirflowDatabase) -> None:
    """Airflow 1.10's task instances know the date of their run only: they are the new run's."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    airflow_db.rows(
        "create function create_again() returns trigger language plpgsql as $$ begin"
        " insert into dag_run (dag_id, run_id, execution_date, state)"
        " values (old.dag_id, 'again', old.execution_date, 'running'); return null; end $$;"
        " create trigger create_again after delete on dag_run for each row execute function create_again()"
    )
    airflow_db.rows("delete from dag_run")
    assert airflow_db.rows("select run_id from dag_run") == [("again",)]
    assert airflow_db.rows(ORDERS) == [] and airflow_db.states() == {"a": "running"}
    assert airflow_db.faults() == []
