"""64 sessions that fail runs beside 64 that only heartbeat: what the failing ones cost the others.

Two cores have to do the failing ones' work, too, whoever asks for it. So the heartbeats are also measured beside
sessions that fail runs by hand and then read plain rows until they have used as much CPU time as dagstop does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.stage import Stage, cpu_seconds
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
SETTLING, SECONDS = 0.5, 3  # of a turn: once each heartbeating session has done so, and measured
ROUNDS = 20
TRIAL, CALIBRATING = 60, 20  # reads; seconds for each kind
MOST = 1.03
_BEAT = r"""\set n random(1, 2000)
update task_instance set updated_at = now() where dag_id = 'dag' and task_id = 'a' and run_id = 'run' || :n and map_index = -1;
"""
_BACKENDS = (
    "select pid from pg_stat_activity where datname = current_database() and application_name = 'pgbench'"
)
_BEATING = _BACKENDS + " and query like 'update task_instance set updated%'"
_RESET = """set session_replication_role = replica;
update task_instance set state = 'running', end_date = null where dag_id = 'dag' and run_id = 'run' || :n;
update dag_run set state = 'running' where dag_id = 'dag' and run_id = 'run' || :n;
set session_replication_role = origin;
"""
_FAIL = """update dag_run set state = 'failed' where dag_id = 'dag' and run_id = 'run' || :n;
"""
_BY_HAND = """update task_instance set state = 'failed', end_date = now()
where dag_id = 'dag' and run_id = 'run' || :n and state = 'running';
"""
# statements that are planned at each call, as those of a trigger are
_READS = """create function reads(count integer) returns void language plpgsql as $$
begin
    for number in 1 .. count loop
        execute 'select from task_instance where dag_id = $1 and run_id = $2' using 'dag', 'run' || number;
    end loop;
end
$$
"""
WITHOUT, NOTIFY, READING, DAGSTOP = "without", "a bare NOTIFY", "as much reading", "dagstop"
KINDS = {
    WITHOUT: ("bare", _FAIL + _BY_HAND),
    NOTIFY: ("bare", _FAIL + _BY_HAND + "notify dagstop;\n"),
    READING: ("bare", _FAIL + _BY_HAND + "select reads({reads});\n"),
    DAGSTOP: ("full", _FAIL),
}


@dataclass
class Beat:
    """What a heartbeat took on average: until it was answered, and CPU time of its own backend."""

    ms: float
    cpu_ms: float
    failing_ms: float  # CPU time of all failing sessions in a second


MEASURES: tuple[tuple[str, Callable[[Beat], float], float | None], ...] = (
    (f"a heartbeat beside {SESSIONS} that fail runs", lambda beat: beat.ms, MOST),
    ("a heartbeat's own CPU time", lambda beat: beat.cpu_ms, MOST),
    ("CPU time of those that fail runs, in a second", lambda beat: beat.failing_ms, None),
)


def run(stage: Stage) -> Found:
    """As many heartbeats and failures each second, in turn beside each kind.

    All failing sessions stay connected and what is not its turn is stopped: turns are short, and meet the same machine.
    """
    found = Found("storm")
    databases = {name: stage.database(template) for name, (template, _) in KINDS.items()}
    for database in databases.values():
        _fill(database, RUNS, 3)
    databases[READING].rows(_READS)
    reads = _calibrate(stage, databases)
    beats: dict[str, list[Beat]] = {name: [] for name in KINDS}
    rounds = stage.times(ROUNDS)
    with ExitStack() as stack:
        for database in databases.values():
            connection = stack.enter_context(connect(database.url))
            connection.cursor().execute("listen dagstop")
        failing = {
            name: stack.enter_context(_failing(stage, databases[name], script.format(reads=reads)))
            for name, (_, script) in KINDS.items()
        }
        for repeat in range(rounds):
            for name in list(KINDS) if repeat % 2 else reversed(list(KINDS)):
                failing[name].send_signal(signal.SIGCONT)
                beats[name].append(_beats(stage, databases[name]))
                failing[name].send_signal(signal.SIGSTOP)
    for what, of, bar in MEASURES:
        for base, name in ((WITHOUT, NOTIFY), (WITHOUT, READING), (WITHOUT, DAGSTOP), (READING, DAGSTOP)):
            ratio = median(of(b) / of(a) for a, b in zip(beats[base], beats[name], strict=True))
            row = Row(
                f"{what}: {name}", base, median(map(of, beats[base])), median(map(of, beats[name])), "ms", ""
            )
            row.note = f"against {base}: median ratio of {rounds} rounds {ratio:.3f}"
            if name == DAGSTOP and bar is not None:
                row.bar, row.met = f"<= {bar} x", ratio <= bar
            found.rows.append(row)
    for database in databases.values():
        stage.server.drop_database(database.url)
    return found


def _calibrate(stage: Stage, databases: dict[str, AirflowDatabase]) -> int:
    """How many reads take as much CPU time as dagstop adds to the failing of a run, at the pace of the storm."""
    took: dict[str, float] = {}
    for name in (WITHOUT, READING, DAGSTOP):
        database = databases[name]
        with _failing(stage, database, KINDS[name][1].format(reads=TRIAL)) as process:
            pids = {pid for (pid,) in database.rows(_BACKENDS)}
            before = _cpu_ms(pids)
            process.send_signal(signal.SIGCONT)
            time.sleep(CALIBRATING)
            took[name] = _cpu_ms(pids) - before
    return max(1, round(TRIAL * (took[DAGSTOP] - took[WITHOUT]) / (took[READING] - took[WITHOUT])))


@contextmanager
def _failing(stage: Stage, database: AirflowDatabase, script: str) -> Iterator[subprocess.Popen[str]]:
    """Sessions that have failed a run before, stopped."""
    # What should have been sent while it was stopped is left out. One seed: all kinds fail runs at the same times
    whole = f"\\set n random(1, {RUNS})\nbegin;\n{script}commit;\n{_RESET}"
    process = _pgbench(stage, database, whole, FAILURES, 86400, "-L", "500", "--random-seed", "1")
    try:
        time.sleep(WARM_UP)
        process.send_signal(signal.SIGSTOP)
        yield process
        if process.poll() is not None:
            raise RuntimeError(f"pgbench: {process.communicate()[0]}")
    finally:
        process.kill()
        process.communicate()


def _beats(stage: Stage, database: AirflowDatabase) -> Beat:
    """What heartbeats take, once their sessions are warm."""
    log = stage.folder / "heartbeats"
    process = _pgbench(stage, database, _BEAT, BEATS, 86400, "-l", "--log-prefix", log)
    path = Path(f"{log}.{process.pid}")
    try:
        database.wait_until(f"select count(*) = {SESSIONS} from ({_BEATING}) as b", 60)
        beating = {pid for (pid,) in database.rows(_BEATING)}
        failing = {pid for (pid,) in database.rows(_BACKENDS)} - beating
        time.sleep(SETTLING)
        begun, before, others_before = time.time(), _cpu_ms(beating), _cpu_ms(failing)
        time.sleep(SECONDS)
        ended, after, others_after = time.time(), _cpu_ms(beating), _cpu_ms(failing)
        while not (logged := _logged(path)) or logged[-1][0] < ended:  # it writes some at once
            if process.poll() is not None:
                raise RuntimeError(f"pgbench: {process.communicate()[0]}")
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
        path.unlink(missing_ok=True)
    took = [ms for at, ms in logged if begun <= at < ended]
    return Beat(
        sum(took) / len(took), (after - before) / len(took), (others_after - others_before) / (ended - begun)
    )


def _cpu_ms(pids: set[int]) -> float:
    return sum(map(cpu_seconds, pids)) * 1000


def _logged(path: Path) -> list[tuple[float, float]]:
    """When each heartbeat was answered, and after how many milliseconds; the last line may not be whole."""
    if not path.exists():
        return []
    lines = path.read_text().rpartition("\n")[0].splitlines()
    words = [line.split() for line in lines]
    return [(int(w[4]) + int(w[5]) / 1e6, int(w[2]) / 1000) for w in words]


def _pgbench(
    stage: Stage, database: AirflowDatabase, script: str, rate: int, seconds: int, *more: str | Path
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
