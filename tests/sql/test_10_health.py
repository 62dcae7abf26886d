"""10_health.sql: is every trigger in place?"""

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


def test_all_four_are_expected(airflow_db: AirflowDatabase) -> None:
    assert airflow_db.rows("select distinct status, count(*) over () from dagstop.trigger_health()") == [
        ("installed", 4)
    ]
