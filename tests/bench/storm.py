"""64 sessions that fail runs beside 64 that only heartbeat: what the failing ones cost the others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.stage import Stage
from tests.bench.table import Found, Row, median
from tests.bench.updates import _fill
from tests.support.airflow_tables import AirflowDatabase
from tests.testbed.postgres import binaries, connect

SESSIONS = 64
RUNS = 2000
BEATS, FAILURES = 400, 20  # of all sessions in a second: below what two cores can do, or all waits for a core
WARM_UP = (
    15  # seconds in which nearly each of the failing sessions does so once: the first time it plans all of it
)
SECONDS = 3
ROUNDS = 40
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
    """As many heartbeats and failures each second, in turn without dagstop, with a bare NOTIFY, and with dagstop.

    All sessions stay connected and what is not its turn is stopped: turns are short, and meet the same machine.
    """
    found = Found("storm")
    databases = {name: stage.database(template) for name, (template, _) in KINDS.items()}
    for database in databases.values():
        _fill(database, RUNS, 3)
    took: dict[str, list[float]] = {name: [] for name in KINDS}
    rounds = stage.times(ROUNDS)
    with ExitStack() as stack:
        for database in databases.values():
            connection = stack.enter_context(connect(database.url))
            connection.cursor().execute("listen dagstop")
        failing = {
            name: stack.enter_context(_failing(stage, databases[name], script))
            for name, (_, script) in KINDS.items()
        }
        for repeat in range(rounds):
            for name in list(KINDS) if repeat % 2 else reversed(list(KINDS)):
                failing[name].send_signal(signal.SIGCONT)
                took[name].append(_beats(stage, databases[name]))
                failing[name].send_signal(signal.SIGSTOP)
    for name in ("a bare NOTIFY", "dagstop"):
        ratio = median(b / a for a, b in zip(took["without"], took[name], strict=True))
        row = Row(
            f"a heartbeat beside {SESSIONS} sessions that fail runs, {name}",
            "without", median(took["without"]), median(took[name]), "ms", f"<= {MOST} x" if name == "dagstop" else "",
        )  # fmt: skip
        row.met = ratio <= MOST if name == "dagstop" else None
        row.note = f"median ratio of {rounds} rounds {ratio:.3f}"
        found.rows.append(row)
    for database in databases.values():
        stage.server.drop_database(database.url)
    return found


@contextmanager
def _failing(stage: Stage, database: AirflowDatabase, script: str) -> Iterator[subprocess.Popen[str]]:
    """Sessions that have failed a run before, stopped."""
    # what should have been sent while it was stopped is left out
    process = _pgbench(stage, database, script, FAILURES, 86400, "-L", "500")
    try:
        time.sleep(WARM_UP)
        process.send_signal(signal.SIGSTOP)
        yield process
        if process.poll() is not None:
            raise RuntimeError(f"pgbench: {process.communicate()[0]}")
    finally:
        process.kill()
        process.communicate()


def _beats(stage: Stage, database: AirflowDatabase) -> float:
    """Milliseconds that a heartbeat takes on average."""
    process = _pgbench(stage, database, _BEAT, BEATS, SECONDS)
    said = process.communicate()[0]
    average = re.search(r"latency average = ([0-9.]+) ms", said)
    if average is None or process.returncode:
        raise RuntimeError(f"pgbench: {said}")
    return float(average[1])


def _pgbench(
    stage: Stage, database: AirflowDatabase, script: str, rate: int, seconds: int, *more: str
) -> subprocess.Popen[str]:
    path = stage.folder / f"{database.url.rsplit('/', 1)[1]}-{rate}.sql"
    path.write_text(script)
    found = binaries()
    words: list[str | Path] = [
        (found.get("pg15") or found[max(found)]) / "pgbench", "-n", "-c", str(SESSIONS), "-R", str(rate),
        "-T", str(seconds), *more, "-f", path, database.url,
    ]  # fmt: skip
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PGOPTIONS": ""}
    )
