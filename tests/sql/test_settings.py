"""06_settings.sql: what a setting may say, and orders that are not to be carried out."""

from __future__ import annotations

import psycopg2
import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.support.settings import set_setting

ORDER = "select hands_off, cascaded, logical_date is not null from dagstop.stop_order order by id"


@one_server
@shape_2
def test_a_value_that_a_setting_cannot_have_is_refused_in_one_line(airflow_db: AirflowDatabase) -> None:
    for name, value, wanted in (
        ("cascade", "most", "unfinished or all"),
        ("finished_tasks", "keep", "stop or spare"),
        ("observe_only", "yes", "on or off"),
        ("airflow_log", "no", "on or off"),
        ("also_stop_on", "deleted success", "of deleted, skipped, removed, with commas between"),
        ("also_stop_on", "success", "of deleted, skipped, removed"),
        ("fence_seconds", "10 min", "a whole number of seconds"),
        ("grace_seconds", "-1", "a whole number of seconds"),
        ("grace_seconds:a dag", "long", "a whole number of seconds"),
        ("protected", "billing_* payroll", "patterns of DAG ids"),
        ("protected", "billing_[ab]", "patterns of DAG ids"),
    ):
        with pytest.raises(psycopg2.errors.CheckViolation) as refused:
            set_setting(airflow_db, name, value)
        said = str(refused.value.diag.message_primary)
        assert said.startswith(f"dagstop setting {name}: '{value}' is not {wanted}") and "\n" not in said
    for name, value in (
        ("cascade", "all"),
        ("finished_tasks", "spare"),
        ("also_stop_on", "removed ,deleted"),
        ("fence_seconds", "0"),
        ("grace_seconds:a dag", "3"),
        ("protected", "billing_*,\n  días?, a.b-c\n"),
        ("of_a_later_release", "anything"),
    ):
        set_setting(airflow_db, name, value)


@one_server
@shape_2
def test_a_bad_value_from_before_stays_and_is_not_believed(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("alter table dagstop.setting disable trigger dagstop_setting")
    set_setting(airflow_db, "grace_seconds", "long")
    airflow_db.rows("alter table dagstop.setting enable trigger dagstop_setting")
    airflow_db.rows("update dagstop.setting set comment = 'mine' where name = 'grace_seconds'")
    assert airflow_db.one("select dagstop.grace_of('dag') is null")


@one_server
@shape_2
@pytest.mark.parametrize(
    ("protected", "dag", "expected"),
    [
        ("billing_*", "billing_a", True),
        ("billing_*", "billingXa", False),  # _ is not a wildcard
        ("billing_*", "my_billing_a", False),
        ("x, billing_?", "billing_a", True),
        ("x\nbilling_?", "billing_ab", False),
        ("a%", "ab", False),
        (" dag ,", "dag", True),
        ("DAG", "dag", False),
        ("", "dag", False),
        (", ,", "dag", False),
        ("*", "dag", True),
    ],
)
def test_patterns(airflow_db: AirflowDatabase, protected: str, dag: str, expected: bool) -> None:
    set_setting(airflow_db, "protected", protected)
    assert (airflow_db.one("select dagstop.hands_off_of(%s)", (dag,)) == "protected DAG") is expected


@one_server
@pytest.mark.parametrize(("name", "value", "why"), [
    ("observe_only", "on", "observe only"), ("protected", "d?g", "protected DAG"),
])  # fmt: skip
def test_nothing_of_airflows_changes(airflow_db: AirflowDatabase, name: str, value: str, why: str) -> None:
    set_setting(airflow_db, name, value)
    airflow_db.add_running(tasks=("a", "b"))
    before = airflow_db.rows("select to_jsonb(t) from task_instance t order by task_id")
    airflow_db.set_run("failed")
    assert airflow_db.rows(ORDER) == [(why, True, True)]
    airflow_db.beat("one")
    assert airflow_db.rows("select to_jsonb(t) from task_instance t order by task_id") == before
    airflow_db.set_task("a", "failed")
    assert airflow_db.rows(ORDER)[1] == (why, True, True)
    assert airflow_db.one("select count(*) from dagstop.stop_target") == 0
    airflow_db.set_task("a", "running")
    assert airflow_db.states() == {"a": "running", "b": "running"}
    assert airflow_db.rows("select * from dagstop.refused_write") == []
    assert airflow_db.one("select count(*) from dagstop.open_orders('one') where hands_off = %s", (why,)) == 2
    assert airflow_db.faults() == []


@one_server
def test_of_many_runs_only_the_protected_ones_are_left_alone(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "protected", "billing_*")
    airflow_db.add_running()
    airflow_db.add_run("billing_a", "run")
    airflow_db.add_task("b", dag_id="billing_a")
    airflow_db.set_run("failed")
    assert airflow_db.states() == {"a": "failed", "b": "running"}
    orders = airflow_db.rows("select dag_id, hands_off, cascaded from dagstop.stop_order order by dag_id")
    assert orders == [("billing_a", "protected DAG", True), ("dag", None, True)]


@one_server
@shape_2
def test_observing_begins_with_the_orders_that_are_open(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    set_setting(airflow_db, "observe_only", "on")
    assert airflow_db.one("select hands_off from dagstop.open_orders('one')") == "observe only"
    airflow_db.set_task("a", "running")
    assert airflow_db.states() == {"a": "running"}  # the fence refuses nothing either


@one_server
@shape_2
def test_a_cascade_that_was_left_behind_is_not_made_up_for(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    with airflow_db.transaction() as other:
        other.execute("select from task_instance for update")
        airflow_db.set_run("failed")
    assert airflow_db.rows("select cascaded from dagstop.stop_order") == [(False,)]
    set_setting(airflow_db, "observe_only", "on")
    airflow_db.beat("one")
    assert airflow_db.rows(ORDER) == [("observe only", True, True)]
    assert airflow_db.states() == {"a": "running"}


@one_server
@shape_2
def test_the_grace_of_a_dag_goes_before_that_of_all(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    grace = "select grace_seconds from dagstop.would_be_order('dag', 'run')"
    assert airflow_db.rows(grace) == [(None,)]
    set_setting(airflow_db, "grace_seconds", "7")
    assert airflow_db.rows(grace) == [(7,)]
    set_setting(airflow_db, "grace_seconds:dag", "3")
    set_setting(airflow_db, "grace_seconds:other", "4")
    assert airflow_db.rows(grace) == [(3,)]
    airflow_db.set_run("failed")
    assert airflow_db.rows("select grace_seconds from dagstop.open_orders('one')") == [(3,)]
