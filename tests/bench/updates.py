"""What dagstop costs Airflow's own statements, and the mass update; all on the tables of 2.11.2."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg2
from psycopg2.extensions import cursor as Cursor

from tests.bench.stage import Stage
from tests.bench.table import Found, Row, median
from tests.support.airflow_tables import AirflowDatabase

ROWS = 100
PAIRS = 80
_TRIGGERS = """
select tgrelid::regclass::text, tgname from pg_trigger
where tgname like 'dagstop%%' and tgrelid in ('dag_run'::regclass, 'task_instance'::regclass) and not tgisinternal
"""
_KEY = "where dag_id = 'dag' and task_id = 'a' and run_id = %s and map_index = -1"
# what scheduler, task and supervisor write, with the columns that they set
_QUEUED = f"update task_instance set state = 'queued', queued_dttm = now(), queued_by_job_id = 1, updated_at = now() {_KEY}"
_RUNNING = (
    "update task_instance set state = 'running', start_date = now(), end_date = null, duration = null,"
    f" hostname = 'worker', job_id = 7, pid = 4321, try_number = 1, updated_at = now() {_KEY}"
)
_SUCCESS = (
    f"update task_instance set state = 'success', end_date = now(), duration = 1.5, updated_at = now() {_KEY}"
)
_BEAT = f"update task_instance set updated_at = now() {_KEY}"
_RUN_BEAT = "update dag_run set last_scheduling_decision = now(), updated_at = now() where dag_id = 'dag' and run_id = %s"
_CHANGES = (_QUEUED, _RUNNING, _SUCCESS)
# statements, the most that they may cost, and whether a block of them goes to the server in one piece:
# then no round trip hides what the triggers cost
KINDS: dict[str, tuple[tuple[str, ...], float, bool]] = {
    "dag_run heartbeat": ((_RUN_BEAT,) * 3, 1.03, False),
    "task_instance heartbeat": ((_BEAT,) * 3, 1.03, False),
    "task_instance state change": (_CHANGES, 1.15, False),
    "dag_run heartbeat, in one piece": ((_RUN_BEAT,) * 3, 1.03, True),
    "task_instance heartbeat, in one piece": ((_BEAT,) * 3, 1.03, True),
    "task_instance state change, in one piece": (_CHANGES, 1.15, True),
}


def run(stage: Stage) -> Found:
    """Triggers enabled and disabled in turn, a few hundred statements each."""
    found = Found("updates")
    database = stage.database("full")
    _fill(database, ROWS, 1)
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(_TRIGGERS)
        triggers = list(cursor.fetchall())
        for what, (statements, most, whole) in KINDS.items():
            ratios, with_ms, without_ms = [], [], []
            for number in range(stage.times(PAIRS)):
                took: dict[bool, float] = {}
                for enabled in (True, False) if number % 2 else (False, True):
                    for table, name in triggers:
                        cursor.execute(
                            f"alter table {table} {'enable' if enabled else 'disable'} trigger {name}"
                        )
                    _reset(cursor)
                    took[enabled] = _block(cursor, statements, whole)
                ratios.append(took[True] / took[False])
                with_ms.append(took[True])
                without_ms.append(took[False])
            count = ROWS * len(statements) / 1000
            row = Row(
                what, "disabled", median(without_ms) / count, median(with_ms) / count, "us", f"<= {most} x"
            )
            row.met = median(ratios) <= most
            row.note = f"median ratio of {len(ratios)} pairs {median(ratios):.3f}"
            found.rows.append(row)
    stage.server.drop_database(database.url)
    return found


def mass(stage: Stage) -> Found:
    """20,000 runs of five task instances: one UPDATE with dagstop, the two UPDATEs by hand without."""
    found = Found("mass")
    runs = 2000 if stage.quick else 20000
    databases = {name: stage.database(name) for name in ("bare", "full")}
    for database in databases.values():
        _fill(database, runs, 5)
    times: dict[str, list[float]] = {name: [] for name in databases}
    for repeat in range(stage.times(9)):
        for name in list(databases) if repeat % 2 else reversed(list(databases)):
            copy = stage.database(databases[name].url.rsplit("/", 1)[1])
            times[name].append(_timed(copy, _by_hand if name == "bare" else _by_dagstop, runs))
            stage.server.drop_database(copy.url)
    row = Row(
        f"{runs} runs x 5 failed by one UPDATE",
        "by hand",
        median(times["bare"]),
        median(times["full"]),
        "ms",
        "<= 1.3 x",
    )
    ratio = median(b / a for a, b in zip(times["bare"], times["full"], strict=True))
    row.met = ratio <= 1.3
    row.note = f"median ratio of {len(times['bare'])} pairs {ratio:.3f}"
    found.rows.append(row)
    return found


def _fill(database: AirflowDatabase, runs: int, tasks: int) -> None:
    """Running runs, each with running tasks `a`, `b`, ..."""
    database.rows(
        "insert into dag_run (dag_id, run_id, state, execution_date, start_date, run_type) select 'dag', 'run' || n,"
        " 'running', now() - n * interval '1 minute', now() - interval '1 hour', 'scheduled' from generate_series(1, %s) n",
        (runs,),
    )
    database.rows(
        "insert into task_instance (dag_id, run_id, task_id, state, try_number, hostname, pid, job_id, start_date, pool,"
        " pool_slots, operator, queue, priority_weight) select 'dag', 'run' || n, chr(96 + t), 'running', 1, 'worker', 4321,"
        " n, now() - interval '1 hour', 'default_pool', 1, 'BashOperator', 'default', 1"
        " from generate_series(1, %s) n, generate_series(1, %s) t",
        (runs, tasks),
    )
    database.rows("vacuum analyze dag_run, task_instance")


def _timed(database: AirflowDatabase, statements: Callable[[Cursor], None], runs: int) -> float:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("checkpoint")
        cursor.execute("select count(*), max(length(t::text)) from task_instance t")
        connection.autocommit = False
        begun = time.monotonic()
        statements(cursor)
        connection.commit()
        took = (time.monotonic() - begun) * 1000
        cursor.execute("select count(*) from task_instance where state = 'failed'")
        (failed,) = cursor.fetchone() or (0,)
        if failed != 5 * runs:
            raise RuntimeError(f"{failed} of {5 * runs} task instances failed")
    return took


def _by_hand(cursor: Cursor) -> None:
    cursor.execute("update dag_run set state = 'failed' where state = 'running'")
    cursor.execute(
        "update task_instance set state = 'failed', end_date = now(), updated_at = now(),"
        " duration = extract(epoch from now() - start_date) where state = 'running'"
    )


def _by_dagstop(cursor: Cursor) -> None:
    cursor.execute("update dag_run set state = 'failed' where state = 'running'")


def _reset(cursor: Cursor) -> None:
    """Everything as before the block, no matter what the triggers make of it, and no dead rows."""
    cursor.execute("set session_replication_role = replica")
    cursor.execute("update task_instance set state = 'scheduled'")
    cursor.execute("set session_replication_role = origin")
    cursor.execute("vacuum dag_run, task_instance")


def _block(cursor: psycopg2.extensions.cursor, statements: tuple[str, ...], whole: bool) -> float:
    """Milliseconds for all statements on each of the rows; the first rows once more before, to warm up."""
    texts = [cursor.mogrify(text, (f"run{n}",)).decode() for text in statements for n in range(1, ROWS + 1)]
    if whole:
        texts = ["; ".join(texts)]
    for number in range(1, 6):
        cursor.execute(_RUN_BEAT, (f"run{number}",))
        cursor.execute(_BEAT, (f"run{number}",))
    begun = time.monotonic()
    for text in texts:
        cursor.execute(text)
    return (time.monotonic() - begun) * 1000
