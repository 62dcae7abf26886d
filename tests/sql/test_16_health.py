"""16_health.sql: is every trigger in place?"""

from __future__ import annotations

import pytest

from tests.support.airflow_tables import AirflowDatabase

HEALTH = "select status from dagstop.trigger_health() where table_name || '.' || trigger_name = %s"


@pytest.mark.parametrize(
    ("damage", "trigger", "status"),
    [
        ("drop trigger dagstop_fence on task_instance", "task_instance.dagstop_fence", "missing"),
        ("drop table task_instance", "task_instance.dagstop_order", "missing"),
        ("alter table dag_run disable trigger dagstop_order", "dag_run.dagstop_order", "disabled"),
        ("alter table dag_run enable replica trigger dagstop_order", "dag_run.dagstop_order", "disabled"),
        ("comment on trigger dagstop_cascade on dag_run is 'x'", "dag_run.dagstop_cascade", "outdated"),
        ("update dagstop.setting set value = 'new' where name = 'triggers_checksum'",
         "dag_run.dagstop_cascade", "outdated"),
    ],
)  # fmt: skip
def test_damage_is_named(airflow_db: AirflowDatabase, damage: str, trigger: str, status: str) -> None:
    assert airflow_db.one(HEALTH, (trigger,)) == "installed"
    airflow_db.rows(damage)
    assert airflow_db.one(HEALTH, (trigger,)) == status


def test_all_seven_are_expected(airflow_db: AirflowDatabase) -> None:
    assert airflow_db.rows("select distinct status, count(*) over () from dagstop.trigger_health()") == [
        ("installed", 7)
    ]


def test_what_runs_in_failed_runs_is_named(airflow_db: AirflowDatabase) -> None:
    for number, run in enumerate(("stopped", "running", "before_dagstop")):
        airflow_db.add_running(run, (f"{run}_a", f"{run}_b"), number)
    airflow_db.set_run("failed", "stopped")
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set session_replication_role = replica")  # no trigger fires
        cursor.execute("update dag_run set state = 'failed' where run_id = 'before_dagstop'")
    left = airflow_db.rows("select * from dagstop.running_in_failed_runs()")
    assert left == [("dag", "before_dagstop", 2)]
    airflow_db.rows("select dagstop.stop_again('dag', 'before_dagstop')")
    assert airflow_db.rows("select * from dagstop.running_in_failed_runs()") == []
    assert airflow_db.states()["before_dagstop_a"] == "failed"
    assert airflow_db.states()["running_a"] == "running"
    order = "select state_before, cascaded from dagstop.stop_order where run_id = 'before_dagstop'"
    assert airflow_db.rows(order) == [("failed", True)]
