"""12_notify.sql: one doorbell per transaction."""

from __future__ import annotations

import select

from tests.support.airflow_tables import AirflowDatabase


def test_one_doorbell_per_transaction(airflow_db: AirflowDatabase) -> None:
    for number in range(5):
        airflow_db.add_running(f"run{number}", ("a",), number)
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("listen dagstop")
        airflow_db.rows("update dag_run set state = 'failed'")
        assert select.select([connection], [], [], 10) != ([], [], [])
        connection.poll()
        assert [(n.channel, n.payload) for n in connection.notifies] == [("dagstop", "")]


def test_nothing_failed_rings_nothing(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("listen dagstop")
        airflow_db.set_run("success")
        cursor.execute("select 1")  # a notification would come with the answer
        connection.poll()
        assert connection.notifies == []
