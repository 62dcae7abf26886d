"""A database after a busy day: listeners, orders and reports as real listeners write them; and a hostile one."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any, Protocol

import dagstop
from tests.support.airflow_tables import AirflowDatabase

HOSTILE = (
    "<img src=x onerror=\"document.title='hacked'\">",
    "\"><script>document.title='hacked'</script>",
    "javascript:document.title='hacked'",
    "'; document.title='hacked'; '",
    "</title></script><svg onload=document.title='hacked'>",
    "{{7*7}} ${7*7} %s\x1b[31m\r\n\u202egnp.exe\u2028",
    "a" * 240,
)
DETAIL = {
    "notices": "listening", "reconnects": 0, "pid": 812, "uid": 0, "host_names": ["localhost"],
    "airflow_homes": ["/opt/airflow"], "docker": ["unix:///var/run/docker.sock"], "under_way": 0,
    "watched": 14, "looked_ago": 0.1, "process_events": {"told": True, "lost": 0, "gaps": 0},
    "tally": {
        "outcomes": {"stopped": 40, "nothing_found": 7, "unkillable": 1, "superseded": 2, "spared": 1},
        "first_signal": {"counts": [20, 10, 5, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0], "sum": 0.5},
        "last_death": {"counts": [2, 5, 8, 9, 6, 4, 1, 2, 1, 1, 1, 1, 0, 0], "sum": 61.25},
    },
}  # fmt: skip


def place(
    container: str, hostname: str | None = None, refused: str | None = None, **more: Any
) -> dict[str, Any]:
    """A container as a heartbeat tells of it."""
    named = {"named_by": "compose=shop", "unread": False, "airflow": True, "kept_by": None}
    return {"container": container, "hostname": hostname or container, "refused": refused, **named, **more}


PLACES = [
    place("7b1e55d0c2aa", refused="the metadata database of container 7b1e55d0c2aa is db-2:5432/airflow;"
          " if that is ours, name it with --same-database"),
    place("c0ffee123456", refused="container c0ffee123456 cannot be read: /proc/4100/root: Permission denied"
          " (CAP_SYS_PTRACE is needed)", unread=True),
    place("9b1c55d0e2aa", refused="it lives in a container that no --container names", named_by=None),
    place("d1ce00000001", refused="container d1ce00000001 shows no AIRFLOW_HOME in the environment of its first"
          " process", airflow=False),
    place("51d0e2aa9b1c", "worker-1", kept_by=4711),
    place("3f2a90c41b7d"),
]  # fmt: skip
"""One of each kind, those that are refused first."""


class Rows(Protocol):
    """A database that answers."""

    def rows(self, query: str, arguments: Any = None) -> list[tuple[Any, ...]]: ...


class Session:
    """Many statements by one connection; each call of an AirflowDatabase connects again."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def rows(self, query: str, arguments: Any = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return list(cursor.fetchall()) if cursor.description else []


def listener(db: Rows, host: str, *, seen_ago: float = 3.0, up: float = 90000.0, **detail: Any) -> None:
    """A row as a heartbeat writes it; times in seconds."""
    db.rows(
        "insert into dagstop.listener (host, listener_id, version, started_at, seen_at, detail) values"
        " (%s, %s, %s, now() - %s * interval '1 s', now() - %s * interval '1 s', %s)",
        (host, str(uuid.uuid4()), detail.pop("version", dagstop.__version__), up, seen_ago,
         json.dumps({**DETAIL, **detail})),
    )  # fmt: skip


def order(
    db: Rows, dag: str, run: str, *, ago: float, task: str | None = None, by: str = "airflow",
    program: str = "psql", client: str | None = "192.0.2.17", closed: bool = True, targets: int = 3,
    refused: int = 0,
) -> int:  # fmt: skip
    """An order written `ago` seconds before now; its number."""
    (number,) = db.rows(
        "insert into dagstop.stop_order (kind, airflow_schema, dag_id, run_id, task_id, map_index, created_at,"
        " cascaded, session_user_name, application_name, client_addr, state_before, closed_at) values"
        " (%s, 'public', %s, %s, %s, %s, now() - %s * interval '1 s', true, %s, %s, %s, 'running',"
        " case when %s then now() end) returning id",
        ("task" if task else "run", dag, run, task, -1 if task else None, ago, by, program, client, closed),
    )[0]
    db.rows(
        "insert into dagstop.stop_target (order_id, task_id, map_index, try_number, hostname, pid, operator,"
        " state_before) select %s, coalesce(%s, 'extract_' || n), -1, 1, 'worker-1', 4100 + n, 'BashOperator',"
        " 'running' from generate_series(0, %s - 1) n",
        (number, task, targets),
    )
    db.rows(
        "insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state,"
        " application_name) select %s, %s, %s, 'extract_0', -1, 'up_for_retry', 'airflow worker'"
        " from generate_series(1, %s)",
        (number, dag, run, refused),
    )
    return int(number)


def report(
    db: Rows, number: int, host: str, outcome: str | None, *, signal: float | None = None,
    death: float | None = None, processes: int = 0, containers: int = 0, alive: str | None = None,
    spared: str | None = None, command: str = "bash -c 'spark-submit --master yarn job.py'",
    problem: str | None = None, more: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """A host's report; `signal` and `death` in seconds after the order, as many items as said."""
    ((created,),) = db.rows("select created_at from dagstop.stop_order where id = %s", (number,))

    def at(seconds: float | None) -> str | None:
        return None if seconds is None else (created + timedelta(seconds=seconds)).isoformat()

    def item(index: int, count: int) -> dict[str, Any]:
        last = index == count - 1
        living = alive is not None and last
        return {
            "signals": [["SIGTERM", at(signal)]]
            + ([["SIGKILL", at(death or 10)]] if living or (death or 0) > 5 else []),
            "died_at": None if living else at(death),
            "why": "it names the run",
            "evidence": ["environment: AIRFLOW_CTX_DAG_RUN_ID", "session of the runner"],
            **({"alive": alive} if living else {}),
        }

    detail: dict[str, Any] = {
        "processes": [
            {"pid": 4100 + n, "start": 9 + n, "command": command, "session": 4100, "role": "other", **item(n, processes)}
            for n in range(processes)
        ],
        "containers": [
            {"id": f"3f9ac1d2e4b{n}", "name": "etl_load", "image": "registry.example.org/etl:7", **item(n, containers)}
            for n in range(containers)
        ],
        "spared": [{"pid": 977, "command": command, "why": spared, "evidence": ["AIRFLOW_HOME=/srv/other"]}] if spared else [],
        **(more or {}),
    }  # fmt: skip
    if problem:
        detail["problem"] = problem
    db.rows(
        "insert into dagstop.report (order_id, host, outcome, first_signal_at, last_death_at, detail)"
        " values (%s, %s, %s, %s, %s, %s)",
        (number, host, outcome, at(signal), at(death), json.dumps(detail)),
    )


def busy_day(database: AirflowDatabase) -> None:
    """What an operator may find: most is well, one host is silent, one process cannot be killed."""
    with database.connect() as connection:
        _busy_day(Session(connection))


def _busy_day(db: Rows) -> None:
    for number in range(1, 6):
        listener(db, f"worker-{number}", seen_ago=number, watched=number * 9)
    listener(db, "worker-6", notices="polling", uid=1000, docker=[], reconnects=4,
             process_events={"told": False, "why": "CAP_NET_ADMIN is missing", "every": 0.25})  # fmt: skip
    listener(db, "worker-7", seen_ago=4000, process_events={"told": True, "lost": 12, "gaps": 2})
    for number in range(9):
        one = order(db, "reporting_daily", f"scheduled__2026-11-0{number + 1}T00:00:00+00:00", ago=80000 - 900 * number,
                    by="airflow", program="airflow webserver", client="192.0.2.4")  # fmt: skip
        report(db, one, f"worker-{number % 5 + 1}", "stopped", signal=0.0013 + number / 3000, death=0.009 + number / 40,
               processes=number + 2)  # fmt: skip
        report(db, one, "worker-6", "nothing_found")
    one = order(
        db,
        "feature_store",
        "manual__2026-11-12T08:15:00+00:00",
        ago=5400,
        by="dba_ines",
        client=None,
        refused=2,
    )
    report(db, one, "worker-1", "stopped", signal=0.0021, death=0.0118, processes=3)
    report(db, one, "worker-2", "stopped", signal=0.0034, death=0.412, processes=2, containers=2)
    report(db, one, "worker-3", "stopped", signal=0.0061, death=10.04, processes=1)
    one = order(
        db,
        "warehouse_load",
        "scheduled__2026-11-12T09:00:00+00:00",
        ago=3000,
        by="airflow",
        program="airflow api-server",
        client="2001:db8::4",
    )
    report(db, one, "worker-4", "unkillable", signal=0.002, death=0.31, processes=3, alive="in uninterruptible sleep (state D)",
           command="tar -cf /mnt/nfs/export.tar /data/warehouse")  # fmt: skip
    one = order(db, "warehouse_load", "manual__2026-11-12T09:20:00+00:00", ago=1500, by="dba_ines")
    db.rows("update dagstop.stop_order set state_after = 'deleted' where id = %s", (one,))
    db.rows("update dagstop.stop_target set released_at = now() where order_id = %s", (one,))
    report(db, one, "worker-2", "spared", spared="another AIRFLOW_HOME: /srv/other")
    one = order(
        db,
        "ml_training",
        "manual__2026-11-12T09:40:00+00:00",
        ago=700,
        task="fit_model",
        by="airflow",
        targets=1,
    )
    later = {
        "pid": 977,
        "command": "sleep",
        "why": "a later try runs it",
        "evidence": [],
        "whose": "a later try's",
    }
    report(db, one, "worker-5", "superseded", more={"spared": [later]})
    one = order(
        db,
        "clickstream",
        "scheduled__2026-11-12T10:00:00+00:00",
        ago=4,
        by="dba_ines",
        closed=False,
        targets=12,
    )
    report(db, one, "worker-1", None, signal=0.0019, death=0.04, processes=4, alive="still there in state S")
    report(db, one, "worker-2", "stopped", signal=0.0024, death=0.052, processes=2)


def hostile_day(database: AirflowDatabase) -> None:
    """Every name that somebody else may choose is an attack."""
    with database.connect() as connection:
        _hostile_day(Session(connection))


def _hostile_day(db: Rows) -> None:
    for number, text in enumerate(HOSTILE):
        listener(db, text, version=text, notices=text, docker=[text], airflow_homes=[text], host_names=[text],
                 places=[place(text, text, text), place(text, text, named_by=text, kept_by=text)])  # fmt: skip
        one = order(db, text, text, ago=60 + number, task=text if number % 2 else None, by=text[:60], program=text[:60],
                    closed=number > 1, refused=1, targets=1)  # fmt: skip
        report(db, one, text, "unkillable" if number % 2 else "spared", signal=0.001, death=0.01, processes=2, containers=1,
               alive=text if number % 2 else None, spared=text, command=text, problem=text)  # fmt: skip
        db.rows("update dagstop.stop_order set state_after = %s where id = %s", (text, one))
        db.rows("insert into dagstop.fault (place, sqlstate, message) values (%s, 'XX000', %s)", (text, text))
