"""Which signal a process gets, and when: each process gets the time that it can use, and no more."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show, signals_of
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for

pytestmark = [one_server, shape_2]

CLEANS_UP = """
import signal, sys, time
def clean_up(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1.5)
    open(sys.argv[1], "w").write("clean")
    sys.exit(0)
signal.signal(signal.SIGTERM, clean_up)
open(sys.argv[1] + ".ready", "w").close()
signal.pause()
"""

LINGERS = """
import os, setproctitle, signal, sys, time
os.setpgid(0, 0)
def on_kill(number, frame):
    open(sys.argv[2], "w").write("on_kill")
signal.signal(signal.SIGTERM, on_kill)
setproctitle.setproctitle(sys.argv[1])
open(sys.argv[2] + ".ready", "w").close()
while True:
    time.sleep(1)
"""


def test_what_a_trap_starts_has_the_grace_of_its_shell(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    mark = tmp_path / "mark"
    script = f"trap 'sleep 1.5 && sh -c \"sleep 0.3\" && touch {mark}; exit 3' TERM; touch {mark}.ready; sleep 7951 & wait"
    shell = tasks.bash(script, tasks.environment("dag", "run", "a"))
    tasks.wait_for_file(Path(f"{mark}.ready"))
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert mark.exists() and shell.wait(10) == 3, show(report)
    assert signals_of(report, shell.pid) == ["SIGTERM"]
    assert not find("sleep 7951")


def test_what_a_trap_starts_dies_with_the_grace(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("trap 'sleep 7952' TERM; sleep 7953 & wait", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7953")
    with Listener(airflow_db.url, tmp_path, "--grace", "2") as listener:
        airflow_db.set_run("failed")
        wait_for("sleep 7952")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        (late,) = [item for item in report["detail"]["processes"] if item["command"] == "sleep 7952"]
        assert [name for name, _ in late["signals"]] == ["SIGKILL"]
    assert not find("sleep 7952")


def test_a_handler_that_ignores_further_signals_finishes_its_work(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    mark = tmp_path / "mark"
    process = tasks.start(
        [sys.executable, "-c", CLEANS_UP, str(mark)], tasks.environment("dag", "run", "a"), session=True
    )
    tasks.wait_for_file(Path(f"{mark}.ready"))
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert mark.read_text() == "clean"
    assert signals_of(report, process.pid) == ["SIGTERM"]


def test_a_stopped_process_is_continued_so_that_it_sees_its_signal(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    process = tasks.bash("sleep 7501; :", tasks.environment("dag", "run", "a"))
    (sleep,) = wait_for("sleep 7501")
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(sleep, signal.SIGSTOP)
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=5)
    assert signals_of(report, process.pid) == ["SIGTERM", "SIGCONT"], show(report)
    assert not find("sleep 7501")


def test_what_a_dying_bash_starts_anew_is_found_by_the_next_look(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    respawns = "trap 'setsid sleep 7512 & exit' TERM; sleep 7511 & wait"
    tasks.bash(respawns, tasks.environment("dag", "run", "a"))
    wait_for("sleep 7511")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert not find("sleep 7511") and not find("sleep 7512")
    assert report["outcome"] == "stopped"


def test_the_runner_is_signalled_before_its_bash_and_bash_before_its_children(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """A bash whose last child dies first ends well: Airflow would write success over failed."""
    airflow_db.add_running("run")
    runner = tasks.runner("airflow task runner: dag a run 7", "sleep 7521 & wait")
    (sleep,) = wait_for("sleep 7521")
    airflow_db.rows("update task_instance set pid = %s", (runner.pid,))
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    sent = sorted(report["detail"]["processes"], key=lambda item: item["signals"][0][1])
    assert sent[0]["pid"] == runner.pid and sent[0]["role"] == "runner", show(report)
    assert sent[-1]["pid"] == sleep, show(report)


def test_each_of_two_runners_in_one_session_has_its_own_sigterm(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """An executor's workers fork them in its session; neither may wait for the other's end."""
    airflow_db.add_running("run", tasks=("a", "b"))
    marks = {task: tmp_path / task for task in ("a", "b")}
    runners = {}
    for task, mark in marks.items():
        words = [sys.executable, "-c", LINGERS, f"airflow task runner: dag {task} run 7", str(mark)]
        environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path)}
        runners[task] = tasks.start(words, environment, session=False)
        tasks.wait_for_file(Path(f"{mark}.ready"))
        airflow_db.rows("update task_instance set pid = %s where task_id = %s", (runners[task].pid, task))
    assert len({os.getsid(runner.pid) for runner in runners.values()}) == 1
    with Listener(airflow_db.url, tmp_path, "--grace", "4") as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    for task, runner in runners.items():
        assert signals_of(report, runner.pid) == ["SIGTERM", "SIGKILL"], show(report)
        assert marks[task].read_text() == "on_kill"


def test_a_listener_killed_amid_its_work_goes_on_where_it_was(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """What it had signalled, and what died while no listener was there, is in the one report."""
    airflow_db.add_running("run")
    stubborn = tasks.bash("trap : TERM; while :; do sleep 0.2; done", tasks.environment("dag", "run", "a"))
    quick = tasks.bash("sleep 7531; :", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7531")
    with Listener(airflow_db.url, tmp_path, "--grace", "30") as listener:
        airflow_db.set_run("failed")
        airflow_db.wait_until("select detail -> 'processes' is not null from dagstop.report")
        listener.kill()
        assert listener.reports() == []
        stubborn.kill()
        stubborn.wait(5)
        listener.start()
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    assert signals_of(report, quick.pid) == ["SIGTERM"]
    (item,) = [p for p in report["detail"]["processes"] if p["pid"] == stubborn.pid]
    assert item["noticed"] == "gone when the listener came back"
