"""Hostile input in the database and in processes: names, pids, environments, notices."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from dagstop.feed.notices import LONGEST_DEAF
from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.ringer import ROLE, Ringer
from tests.support.tasks import Tasks, find, wait_for

pytestmark = [one_server, shape_2]
HOSTILE = "d\x1b[2J\n%s{}'\"\u202e\N{PILE OF POO}" + "x" * 234
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def test_another_users_process_that_names_the_run_is_spared_with_the_reason(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    if os.geteuid() != 0:
        missing(RuntimeError("only root can start processes of another user"))
    airflow_db.add_running("run")
    stranger = tasks.start([*NOBODY, "sleep", "7801"], tasks.environment("dag", "run", "a"), session=True)
    wait_for("sleep 7801")
    airflow_db.rows("update task_instance set pid = %s", (stranger.pid,))
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared" and find("sleep 7801")
    (item,) = report["detail"]["spared"]
    assert item["why"] == "it runs as uid 65534, which runs no Airflow of ours", show(report)


def test_a_recorded_pid_alone_kills_nobody(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    bystander = tasks.start(["sleep", "7811"], {"PATH": os.environ["PATH"]}, session=True)
    sshd = "import setproctitle, time; setproctitle.setproctitle('sshd: airflow [priv]'); time.sleep(600)"
    named = tasks.environment("dag", "run", "t6", FILL="x" * 1000)
    daemon = tasks.start([sys.executable, "-c", sshd], named, session=True)
    wait_for("sshd: airflow [priv]", timeout=60)
    postgres = airflow_db.one("select pid from pg_stat_activity where backend_type = 'checkpointer'")
    with Listener(airflow_db.url, tmp_path) as listener:
        assert listener.process is not None
        pids = (1, 2, listener.process.pid, os.getpid(), postgres, bystander.pid, daemon.pid, -1, 0)
        airflow_db.add_run()
        for number, pid in enumerate(pids):
            airflow_db.add_task(f"t{number}", pid=pid, hostname="host-1", job_id=number)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["detail"]["processes"] == [], show(report)
        assert listener.process.poll() is None and bystander.poll() is None
        assert daemon.poll() is None
    assert airflow_db.one("select count(*) = 1 from pg_stat_activity where pid = %s", (postgres,))


def test_doorbells_of_others_cost_no_order_and_nobody(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    for number in range(3):
        airflow_db.add_running(f"run{number}", number=number)
    tasks.bash("sleep 7821", tasks.environment("dag", "run0", "a"))
    tasks.bash("sleep 7822", tasks.environment("dag", "run1", "a"))
    wait_for("sleep 7822")
    flood = "select pg_notify('dagstop', left(n || %s || repeat('x', 7000), 7000)) from generate_series(1, 2000) n"
    with Listener(airflow_db.url, tmp_path) as listener:
        for _ in range(3):
            airflow_db.rows(flood, (HOSTILE,))
        airflow_db.set_run("failed", "run0")
        airflow_db.rows(flood, (HOSTILE,))
        airflow_db.set_run("failed", "run2")
        reports = listener.wait_for_reports(2)
        assert [report["outcome"] for report in reports] == ["stopped", "nothing_found"]
        assert find("sleep 7822") and not find("sleep 7821")
        assert "lost" not in listener.log()


def test_hostile_names_are_escaped_wherever_they_are_shown(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_run(dag_id=HOSTILE[:250], run_id=HOSTILE[:250])
    airflow_db.add_task(HOSTILE[:250], dag_id=HOSTILE[:250], run_id=HOSTILE[:250], hostname="host-1")
    names = (HOSTILE[:250], HOSTILE[:250])
    tasks.bash("exec -a $'sleep\\e[2J' sleep 7831", tasks.environment(*names, HOSTILE[:250]))
    wait_for("sleep\x1b[2J 7831")
    database = ("--database-url", airflow_db.url)
    here = (*database, "--airflow-home", str(tmp_path), "--docker-url", "unix:///nowhere")
    said = [dagstop("ps", *here).stdout, dagstop("explain", *names, *here).stdout]
    said += [dagstop("explain", "x" + HOSTILE, "r", *here, check=False).stderr]
    said += [dagstop("stop", "x" + HOSTILE, "r", *database, check=False).stderr]
    assert all("\\x1b[2J" in text for text in said), said
    said += [dagstop("stop", *names, *database).stdout, dagstop("status", *database).stdout]
    with Listener(airflow_db.url, tmp_path) as listener:
        (report,) = listener.wait_for_reports(1)
        said += [listener.log(), dagstop("history", *database).stdout]
    assert report["outcome"] == "stopped", show(report)
    for text in said:
        assert "\\x1b[2J" in text and all(c.isprintable() or c in "\n\t" for c in text), ascii(text)


def test_a_hosts_name_is_escaped_too(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running("run")
    airflow_db.set_run("failed")
    airflow_db.rows("select dagstop.write_report(1, %s, 'stopped', null, null, '{}')", ("done\x1b[2J",))
    airflow_db.rows("update dagstop.stop_order set closed_at = null")
    beat = "select * from dagstop.heartbeat(%s, gen_random_uuid(), '1', '{}')"
    airflow_db.rows(beat, ("late\x1b[2J",))
    wait = ("stop", "dag", "run", "--wait", "--timeout", "0.1", "--database-url", airflow_db.url)
    said = dagstop(*wait, check=False).stdout
    assert "done\\x1b[2J: stopped" in said and "late\\x1b[2J" in said and "\x1b" not in said


def test_a_host_that_the_database_names_is_escaped_too(airflow_db: AirflowDatabase) -> None:
    role = "who\x1b[2J"
    airflow_db.rows(f'drop role if exists "{role}"; create role "{role}" superuser login')
    try:
        airflow_db.add_running("run")
        airflow_db.rows("update task_instance set hostname = %s", ("w\x1b[2J\n",))
        airflow_db.rows("select dagstop.record_fault('p', 'XX000', %s, '{}')", ("m\x1b[2J\n",))
        database = ("--database-url", airflow_db.url)
        said = [dagstop("check", *database, check=False).stdout]
        assert "host w\\x1b[2J\\n" in said[0] and "m\\x1b[2J\\n" in said[0], said[0]
        airflow_db.rows(f"set session authorization \"{role}\"; update dag_run set state = 'failed'")
        said += [dagstop(command, *database).stdout for command in ("status", "history")]
        said.append(
            dagstop("stop", "dag", "run", "--wait", "--timeout", "0.1", *database, check=False).stdout
        )
        assert "nobody looked: w\\x1b[2J\\n" in said[-1], said[-1]
        for text in said:
            assert "\\x1b[2J" in text and "\x1b" not in text, ascii(text)
    finally:
        airflow_db.rows(f'drop role "{role}"')


def test_names_of_a_megabyte_hold_nothing_up(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    huge = "\x1b[2J" + "x" * 130_000  # the kernel takes no longer words
    airflow_db.add_running("run")
    named = tasks.environment("dag", "run", "a")
    shouting = {**named, "AIRFLOW_CTX_DAG_RUN_ID": huge, **{f"AIRFLOW_CTX_{n}": huge for n in range(6)}}
    tasks.start(["bash", "-c", "sleep 7841; true", *[huge] * 6], shouting, session=True)
    tasks.start(["bash", "-c", "sleep 7842; true", "airflow", "tasks", "run", huge], named, session=True)
    wait_for("sleep 7841"), wait_for("sleep 7842")
    said = dagstop("ps", "--database-url", airflow_db.url, "--airflow-home", str(tmp_path)).stdout
    assert len(said) < 20_000 and "\x1b" not in said
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)[:2000]
        assert find("sleep 7841") and not find("sleep 7842")
        assert len(json.dumps(report["detail"])) < 50_000
        assert max(map(len, listener.log().splitlines())) < 5_000


def test_a_stranger_who_rings_all_the_time_delays_nothing(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """For four seconds; `make chaos` plays a minute of it."""
    airflow_db.add_running("run")
    tasks.bash("sleep 7851", tasks.environment("dag", "run", "a"))
    tasks.bash("sleep 7852", tasks.environment("dag", "run2", "a"))
    wait_for("sleep 7851"), wait_for("sleep 7852")
    database = airflow_db.one("select current_database()")
    airflow_db.rows(f"alter database {database} set track_functions = 'all'")
    begun = time.monotonic()
    with Listener(airflow_db.url, tmp_path) as listener:
        with Ringer(airflow_db.url, airflow_db.user_url(ROLE)) as ringer:
            time.sleep(4)
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1, timeout=60)
        assert report["outcome"] == "stopped" and not find("sleep 7851") and find("sleep 7852")
        assert "lost" not in listener.log() and len(listener.log()) < 20_000
        assert listener.stop() == 0
    print(f"{ringer.per_second():.0f} notices a second")
    looks = "select calls from pg_stat_user_functions where funcname = 'rung_for'"
    airflow_db.wait_until(f"select exists ({looks})")
    # what answers a doorbell is asked for some times a second, however often it rings
    assert airflow_db.one(looks) < (time.monotonic() - begun) / LONGEST_DEAF + 20
