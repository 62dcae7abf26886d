"""64 sessions that fail runs beside 64 that only heartbeat: what the failing ones cost the others."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from dagstop.lab.postgres import binaries, connect
from tests.bench.stage import Stage
from tests.bench.table import Found, Row, median
from tests.bench.updates import _fill
from tests.support.airflow_tables import AirflowDatabase

SESSIONS = 64
RUNS = 2000
BEATS, FAILURES = 400, 20  # of all sessions in a second: below what two cores can do, or all waits for a core
MOST = 1.03
_BEAT = r"""\set n random(1, 2000)
update task_instance set updated_at = now() where dag_id = 'dag' and task_id = 'a' and run_id = 'run' || :n and map_index = -1;
"""
_RESET = """set session_replication_role = replica;
update task_instance set state = 'running', end_date = null where dag_id = 'dag' and run_id = 'run' || :n;
update dag_run set state = 'running' where dag_id = 'dag' and run_id = 'run' || :n;
set session_replication_role = origin;
"""
_FAIL = r"""\set n random(1, 2000)
begin;
update dag_run set state = 'failed' where dag_id = 'dag' and run_id = 'run' || :n;
"""
_BY_HAND = """update task_instance set state = 'failed', end_date = now()
where dag_id = 'dag' and run_id = 'run' || :n and state = 'running';
"""
KINDS = {
    "without": ("bare", _FAIL + _BY_HAND + "commit;\n" + _RESET),
    "a bare NOTIFY": ("bare", _FAIL + _BY_HAND + "notify dagstop;\ncommit;\n" + _RESET),
    "dagstop": ("full", _FAIL + "commit;\n" + _RESET),
}


def run(stage: Stage) -> Found:
    """The same number of beats and of failures each second, in turn without, with a bare NOTIFY, and with dagstop."""
    found = Found("storm")
    databases = {name: stage.database(template) for name, (template, _) in KINDS.items()}
    for database in databases.values():
        _fill(database, RUNS, 3)
    took: dict[str, list[float]] = {name: [] for name in KINDS}
    for repeat in range(stage.times(9)):
        for name in list(KINDS) if repeat % 2 else reversed(list(KINDS)):
            took[name].append(_beats(stage, databases[name], KINDS[name][1], 3 if stage.quick else 8))
    for name in ("a bare NOTIFY", "dagstop"):
        ratio = median(b / a for a, b in zip(took["without"], took[name], strict=True))
        row = Row(
            f"a heartbeat beside {SESSIONS} sessions that fail runs, {name}",
            "without", median(took["without"]), median(took[name]), "ms", f"<= {MOST} x" if name == "dagstop" else "",
        )  # fmt: skip
        row.met = ratio <= MOST if name == "dagstop" else None
        row.note = f"median ratio of {len(took[name])} rounds {ratio:.3f}"
        found.rows.append(row)
    for database in databases.values():
        stage.server.drop_database(database.url)
    return found


def _beats(stage: Stage, database: AirflowDatabase, failing: str, seconds: int) -> float:
    """Milliseconds that a heartbeat takes on average, while one session listens."""
    with connect(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("listen dagstop")
        both = [
            _pgbench(stage, database, text, rate, seconds)
            for text, rate in ((failing, FAILURES), (_BEAT, BEATS))
        ]
        _, said = (process.communicate()[0] for process in both)
    average = re.search(r"latency average = ([0-9.]+) ms", said)
    if average is None or any(process.returncode for process in both):
        raise RuntimeError(f"pgbench: {said}")
    return float(average[1])


def _pgbench(
    stage: Stage, database: AirflowDatabase, script: str, rate: int, seconds: int
) -> subprocess.Popen[str]:
    path = stage.folder / f"{rate}.sql"
    path.write_text(script)
    found = binaries()
    words: list[str | Path] = [
        (found.get("pg15") or found[max(found)]) / "pgbench", "-n", "-c", str(SESSIONS), "-R", str(rate),
        "-T", str(seconds), "-f", path, database.url,
    ]  # fmt: skip
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PGOPTIONS": ""}
    )
