"""15_reports.sql: reports, heartbeats, and when an order is closed."""

from __future__ import annotations

from tests.support.airflow_tables import AirflowDatabase
from tests.support.queries import report


def closed(db: AirflowDatabase) -> bool:
    return bool(db.one("select closed_at is not null from dagstop.stop_order"))


def failed_run(db: AirflowDatabase) -> int:
    db.add_running()
    db.set_run("failed")
    return int(db.one("select id from dagstop.stop_order"))


def test_closed_when_every_live_listener_is_done(airflow_db: AirflowDatabase) -> None:
    order = failed_run(airflow_db)
    airflow_db.beat("one")
    airflow_db.beat("two")
    report(airflow_db, order, "one", None)
    assert not closed(airflow_db)
    report(airflow_db, order, "one", "stopped")
    assert not closed(airflow_db)
    assert airflow_db.one("select waiting_for from dagstop.open_order") == ["two"]
    report(airflow_db, order, "two", "nothing_found")
    assert closed(airflow_db)
    history = airflow_db.rows("select host, outcome from dagstop.history order by host")
    assert history == [("one", "stopped"), ("two", "nothing_found")]


def test_a_dead_listener_is_not_waited_for(airflow_db: AirflowDatabase) -> None:
    order = failed_run(airflow_db)
    airflow_db.beat("one")
    airflow_db.beat("two")
    report(airflow_db, order, "one", "stopped")
    airflow_db.rows("update dagstop.listener set seen_at = now() - interval '2 min' where host = 'two'")
    airflow_db.beat("one")
    assert closed(airflow_db)


def test_a_final_outcome_stays(airflow_db: AirflowDatabase) -> None:
    order = failed_run(airflow_db)
    report(airflow_db, order, "one", "stopped")
    report(airflow_db, order, "one", None)
    assert airflow_db.one("select outcome from dagstop.report") == "stopped"
    report(airflow_db, order + 1000, "one", "stopped")  # an order removed in between


def test_a_heartbeat_knows_the_triggers_and_the_faults(airflow_db: AirflowDatabase) -> None:
    assert airflow_db.beat("one") == [(True, 0, 0)]
    airflow_db.rows("alter table dag_run disable trigger dagstop_order")
    airflow_db.rows("insert into dagstop.fault (place, sqlstate, message) values ('p', 'x', 'm')")
    assert airflow_db.beat("one") == [(False, 1, 0)]


def test_a_listener_takes_only_its_own_row_away(airflow_db: AirflowDatabase) -> None:
    airflow_db.beat("one")
    (mine,) = airflow_db.rows("select listener_id::text from dagstop.listener")
    airflow_db.rows("select dagstop.retire('one', gen_random_uuid())")
    assert airflow_db.one("select count(*) from dagstop.listener") == 1
    airflow_db.rows("select dagstop.retire('one', %s::uuid)", mine)
    assert airflow_db.one("select count(*) from dagstop.listener") == 0


def test_old_rows_are_removed(airflow_db: AirflowDatabase) -> None:
    order = failed_run(airflow_db)
    airflow_db.set_task("a", "running")
    report(airflow_db, order, "one", "stopped")
    airflow_db.rows("update dagstop.stop_order set created_at = now() - interval '31 days'")
    airflow_db.beat("one")
    for table in ("stop_order", "stop_target", "report", "refused_write"):
        assert airflow_db.one(f"select count(*) from dagstop.{table}") == 0, table


def test_what_is_older_than_keep_seconds_goes_bit_by_bit(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_runs(1100)
    airflow_db.rows("update dag_run set state = 'failed'")
    airflow_db.rows(
        "insert into dagstop.report (order_id, host, outcome) select id, 'one', 'stopped' from dagstop.stop_order"
    )
    airflow_db.rows(
        "insert into dagstop.fault (place, sqlstate, message) select 'p', 'x', 'm' from generate_series(1, 600)"
    )
    airflow_db.rows(
        "update dagstop.stop_order set created_at = now() - interval '40 days', closed_at = now()"
    )
    airflow_db.rows("update dagstop.fault set at = now() - interval '40 days'")
    airflow_db.rows("update dagstop.setting set value = '4320000' where name = 'keep_seconds'")  # 50 days
    airflow_db.beat("one")
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1100
    airflow_db.rows("update dagstop.setting set value = '2592000' where name = 'keep_seconds'")
    left = []
    for _ in range(3):
        airflow_db.beat("one")
        left.append(
            airflow_db.one(
                "select (select count(*) from dagstop.report), (select count(*) from dagstop.fault)"
            )
        )
    assert left == [(600, 100), (100, 0), (0, 0)]
    assert airflow_db.faults() == []
