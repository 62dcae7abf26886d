"""The whole path with a real Postgres and real processes: a row turns failed, its processes die."""

from __future__ import annotations

from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_1_10, shape_2
from tests.support.tasks import Tasks, find, wait_for


def test_a_failed_run_stops_and_nothing_else_does(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.add_running("other", number=1)
    tasks.bash("sleep 7001 & sleep 7002 & wait", tasks.environment("dag", "run"))
    tasks.bash("sleep 7003", tasks.environment("dag", "other"))
    theirs = {
        "AIRFLOW_HOME": "/srv/other",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql://db.example/other",
    }
    tasks.bash("sleep 7004", tasks.environment("dag", "run", **theirs))
    tasks.bash("sleep 7005", {"PATH": "/bin:/usr/bin", "NOTE": "AIRFLOW_CTX_DAG_ID=dag run"})
    for number in range(7001, 7006):
        wait_for(f"sleep {number}")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        assert not find("sleep 7001") and not find("sleep 7002")
        assert find("sleep 7003") and find("sleep 7004") and find("sleep 7005")
        assert [item["why"] for item in report["detail"]["spared"]] == ["its AIRFLOW_HOME is /srv/other"]
        # a chore that follows the report
        airflow_db.wait_until("select closed_at is not null from dagstop.stop_order where run_id = 'run'")
        assert listener.stop() == 0


@one_server
@shape_2
def test_what_ignores_sigterm_is_killed_at_once(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("trap '' TERM; sleep 7011 & sleep 7012 & wait", tasks.environment("dag", "run"))
    wait_for("sleep 7012")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=5)  # well under the grace period of 10 s
        assert not find("sleep 7011")
        signals = {name for item in report["detail"]["processes"] for name, _ in item["signals"]}
        assert signals == {"SIGKILL"}, show(report)


@one_server
@shape_2
def test_what_handles_sigterm_gets_its_grace_then_sigkill(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    stubborn = tasks.bash(
        "trap 'echo no' TERM; while :; do sleep 0.2; done", tasks.environment("dag", "run", "a")
    )
    with Listener(airflow_db.url, tmp_path, "--grace", "1") as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        (item,) = [p for p in report["detail"]["processes"] if p["pid"] == stubborn.pid]
        assert [name for name, _ in item["signals"]] == ["SIGTERM", "SIGKILL"]
        assert report["outcome"] == "stopped"
        assert stubborn.wait(1) == -9


@one_server
@shape_2
def test_the_runner_is_asked_first_so_that_on_kill_runs(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    mark = tmp_path / "mark"
    runner = tasks.runner("airflow task runner: dag a run 7", "sleep 7021", MARK=str(mark))
    wait_for("sleep 7021")
    airflow_db.rows("update task_instance set pid = %s", (runner.pid,))
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert mark.read_text() == "on_kill"
        assert not find("sleep 7021")
        assert runner.wait(1) == 0
        roles = {item["role"] for item in report["detail"]["processes"]}
        assert roles == {"runner", "other"}, show(report)


@one_server
@shape_1_10
def test_children_without_a_tag_are_remembered_when_every_ancestor_is_gone(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    date = airflow_db.one("select execution_date from dag_run").isoformat()
    runner = tasks.runner(
        f"airflow run dag a {date} --job_id 7 --raw -sd x",
        "sleep 7031 & setsid nohup env -i sleep 7032 & wait",
        session=True,
    )
    wait_for("sleep 7032")
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_until_remembered(4)
        runner.kill()
        runner.wait(5)
        listener.stop()  # what it knows is kept across a restart
        listener.start()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        assert not find("sleep 7031") and not find("sleep 7032")


@one_server
@shape_2
def test_a_listener_that_starts_after_the_failure_stops_it_too(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7041", tasks.environment("dag", "run"))
    wait_for("sleep 7041")
    airflow_db.set_run("failed")
    with Listener(airflow_db.url, tmp_path) as listener:
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped"
        assert not find("sleep 7041")


@one_server
@shape_2
def test_after_a_clear_the_old_try_dies_and_the_new_one_lives(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7051", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7051")
    airflow_db.set_run("failed")
    airflow_db.set_task("a", None)  # cleared
    airflow_db.rows("update dag_run set state = 'queued'")
    airflow_db.rows(
        "update task_instance set state = 'running', try_number = 2, job_id = 8, start_date = now()"
    )
    tasks.bash("sleep 7052", tasks.environment("dag", "run", "a", AIRFLOW_CTX_TRY_NUMBER="2"))
    wait_for("sleep 7052")
    with Listener(airflow_db.url, tmp_path) as listener:
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        assert not find("sleep 7051") and find("sleep 7052")
        assert airflow_db.states() == {"a": "running"}


@one_server
@shape_2
def test_a_cleared_runner_writes_nothing_more(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """Ending by SIGTERM, Airflow 2.x would write `failed` into the row, which is the new try's by now."""
    airflow_db.add_running("run")
    mark = tmp_path / "mark"
    tasks.runner("airflow task runner: dag a run 7", "sleep 7055", MARK=str(mark))
    wait_for("sleep 7055")
    airflow_db.set_run("failed")
    airflow_db.set_task("a", None)
    with Listener(airflow_db.url, tmp_path) as listener:
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        signals = {
            item["role"]: [name for name, _ in item["signals"]] for item in report["detail"]["processes"]
        }
        assert signals == {"runner": ["SIGKILL"], "other": ["SIGTERM"]}
        assert not find("sleep 7055") and not mark.exists()


@one_server
@shape_2
def test_a_task_failed_by_sql_takes_only_its_own_processes(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run", ("a", "b"))
    tasks.bash("sleep 7061", tasks.environment("dag", "run", "a"))
    tasks.bash("sleep 7062", tasks.environment("dag", "run", "b"))
    wait_for("sleep 7062")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_task("a", "failed")
        (report,) = listener.wait_for_reports(1)
        assert (report["kind"], report["outcome"]) == ("task", "stopped")
        assert not find("sleep 7061") and find("sleep 7062")


@one_server
@shape_2
def test_a_task_that_failed_by_itself_may_finish_its_callbacks(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    runner = tasks.runner("airflow task runner: dag a run 7", "sleep 0.1", LINGER="3")
    wait_for("sleep 0.1", 0)
    airflow_db.rows("update task_instance set pid = %s", (runner.pid,))
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.rows("update task_instance set state = 'failed', end_date = now()")
        (report,) = listener.wait_for_reports(1)
        assert runner.wait(10) == 0
        assert report["outcome"] == "nothing_found", show(report)


@one_server
@shape_2
def test_a_late_starter_of_a_stopped_run_is_stopped_too(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run", ("a", "b"))
    tasks.bash("sleep 7071", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7071")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        tasks.bash("sleep 7072", tasks.environment("dag", "run", "b"))
        wait_for("sleep 7072", 0)
        listener.wait_for("processes=2")
        (report,) = listener.wait_for_reports(1)
        assert len(report["detail"]["processes"]) == 2


@one_server
@shape_2
def test_the_connection_may_be_cut_at_any_time(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7081", tasks.environment("dag", "run"))
    wait_for("sleep 7081")
    with Listener(airflow_db.url, tmp_path) as listener:
        # the order is committed while the line is down
        airflow_db.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            ("dagstop listen host-1",),
        )
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped"
        assert "database lost" in listener.log()


@one_server
@shape_2
def test_dry_run_signals_and_reports_nothing(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7091", tasks.environment("dag", "run"))
    wait_for("sleep 7091")
    with Listener(airflow_db.url, tmp_path, "--dry-run") as listener:
        airflow_db.set_run("failed")
        listener.wait_for("would be stopped order=")
        assert find("sleep 7091")
        assert airflow_db.rows("select * from dagstop.report") == []


@one_server
@shape_2
def test_once_ends_by_itself(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7101", tasks.environment("dag", "run"))
    wait_for("sleep 7101")
    airflow_db.set_run("failed")
    done = dagstop(
        *("listen", "--once", "--database-url", airflow_db.url, "--airflow-home", str(tmp_path)),
        *("--state-dir", str(tmp_path / "state"), "--docker-url", "unix:///nowhere"),
    )
    assert "stopped order=1" in done.stderr
    assert not find("sleep 7101")


@one_server
@shape_2
def test_a_hundred_runs_in_one_update(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    for number in range(100):
        airflow_db.add_running(f"run{number}", number=number)
        tasks.bash("sleep 7111 & sleep 7111 & wait", tasks.environment("dag", f"run{number}", "a"))
    wait_for("sleep 7111", 200)
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.rows("update dag_run set state = 'failed' where run_id <> 'run7'")
        reports = listener.wait_for_reports(99)
        assert {report["outcome"] for report in reports} == {"stopped"}
        wait_for("sleep 7111", 2)
