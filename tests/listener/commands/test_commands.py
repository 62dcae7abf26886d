"""Every command as a user types it, on a real database and real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dagstop.policy import text
from tests.conftest import missing
from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import NO_DOCKER, failing
from tests.support.listener import Listener, dagstop
from tests.support.marks import on_one, one_server
from tests.support.tasks import Tasks, find, wait_for


@pytest.mark.parametrize(
    "command",
    "install uninstall listen check config status history ps explain stop policy systemd".split(),
)
def test_every_command_has_help(command: str) -> None:
    assert "Usage: dagstop" in dagstop(command, "--help").stdout


def test_the_list_of_commands_fits_a_terminal() -> None:
    commands = dagstop("--help", COLUMNS="80").stdout.partition("Commands:")[2]
    assert "listen      Stop what runs" in commands and "..." not in commands


@on_one
def test_install_says_what_it_did_and_twice_is_no_op(bare_db: AirflowDatabase) -> None:
    first = dagstop("install", "--database-url", bare_db.url).stdout
    assert "is installed in postgresql://postgres@" in first
    second = dagstop("install", DAGSTOP_DATABASE_URL=bare_db.url).stdout
    assert "nothing changed" in second
    assert "is gone from" in dagstop("uninstall", "--database-url", bare_db.url).stdout
    assert "was not installed" in dagstop("uninstall", "--database-url", bare_db.url).stdout


@on_one
@pytest.mark.parametrize("command", ["check", "status", "history", "ps"])
def test_a_database_without_dagstop_is_one_clear_line(bare_db: AirflowDatabase, command: str) -> None:
    done = failing(command, "--database-url", bare_db.url)
    assert done.stderr == ("dagstop: dagstop is not installed in this database: run `dagstop install`\n")


def test_bad_urls_are_one_clear_line_without_the_password(tmp_path: Path) -> None:
    for url, said in (
        ("mysql://airflow:secret@db/airflow", "PostgreSQL"),
        ("sqlite:////opt/airflow/airflow.db", "PostgreSQL"),
        ("postgresql://airflow:secret@127.0.0.1:1/airflow", "127.0.0.1:1"),
    ):
        for command in ("install", "status"):
            done = failing(command, "--database-url", url)
            assert said in done.stderr and "secret" not in done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
    home = {"HOME": str(tmp_path)}
    assert "No database URL" in failing("status", **home).stderr
    done = failing("listen", "--database-url", "postgresql:///x", **home)
    assert "AIRFLOW_HOME" in done.stderr


@on_one
def test_stop_wait_tells_what_was_seen_dead(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    tasks.bash("sleep 7301", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7301")
    with Listener(airflow_db.url, tmp_path):
        done = dagstop("stop", "dag", "run", "--wait", "--database-url", airflow_db.url)
        assert "host-1: stopped (" in done.stdout, done.stdout
        assert not find("sleep 7301")
    assert airflow_db.states() == {"a": "failed"}


@on_one
def test_a_run_that_is_failed_already_is_stopped_again(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    airflow_db.rows("alter table dag_run disable trigger user")  # as before dagstop came
    airflow_db.set_run("failed")
    airflow_db.rows("alter table dag_run enable trigger user")
    tasks.bash("sleep 7303", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7303")
    findings = json.loads(dagstop("check", "--json", "--database-url", airflow_db.url, check=False).stdout)
    assert {"name": "run dag run", "ok": True, "said": "failed, and 1 of its tasks run"}.items() <= next(
        finding for finding in findings["findings"] if finding["name"].startswith("run ")
    ).items()
    stop = ("stop", "dag", "run", "--wait", "--database-url", airflow_db.url)
    with Listener(airflow_db.url, tmp_path):
        for outcome in ("stopped", "nothing_found"):
            done = json.loads(dagstop(*stop, "--json").stdout)
            assert done["changed"] == 0
            assert [order["reports"][0]["outcome"] for order in done["orders"]] == [outcome]
            assert not find("sleep 7303")
            assert airflow_db.states() == {"a": "failed"}
    said = failing("stop", "dag", "run", "--task-id", "a", "--database-url", airflow_db.url).stderr
    assert "has ended already" in said


@one_server
def test_stop_of_one_task(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    airflow_db.add_running("run", ("a", "b"))
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    tasks.bash("sleep 7302", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7302")
    with Listener(airflow_db.url, tmp_path):
        dagstop("stop", "dag", "run", "--task-id", "a", "--wait", "--database-url", airflow_db.url)
    assert airflow_db.states() == {"a": "failed", "b": "running"}
    assert not find("sleep 7302")


@on_one
def test_stop_fails_plainly(airflow_db: AirflowDatabase) -> None:
    url = ("--database-url", airflow_db.url)
    assert "There is no run 'nope' of DAG 'dag'" in failing("stop", "dag", "nope", *url).stderr
    airflow_db.add_running("run")
    said = failing("stop", "dag", "run", "--task-id", "zz", *url).stderr
    assert "There is no task 'zz' in run 'run' of DAG 'dag'" in said
    done = failing("stop", "dag", "run", "--wait", "--timeout", "0.2", *url)
    assert "no listener is running" in done.stdout


@on_one
def test_check_is_red_until_a_listener_lives_and_after_a_trigger_is_gone(
    airflow_db: AirflowDatabase, tmp_path: Path
) -> None:
    arguments = ("check", "--json", "--database-url", airflow_db.url)

    said: dict[str, str] = {}

    def red() -> set[str]:
        done = dagstop(*arguments, check=False)
        facts = json.loads(done.stdout)
        assert done.returncode == (0 if facts["ok"] else 1)
        said.update({finding["name"]: finding["said"] for finding in facts["findings"]})
        return {finding["name"] for finding in facts["findings"] if not finding["ok"]}

    assert red() == {"listeners"}
    assert (said["dag_run triggers"], said["task_instance triggers"]) == ("4 installed", "3 installed")
    with Listener(airflow_db.url, tmp_path) as listener:
        assert red() == set()
        airflow_db.add_running("run")
        assert red() == {"host worker"}
        airflow_db.rows("update task_instance set hostname = 'host-1'")
        airflow_db.rows("drop trigger dagstop_fence on task_instance")
        assert red() == {"trigger task_instance.dagstop_fence"}
        assert said["task_instance triggers"] == "2 installed"
        assert "task_instance.dagstop_fence" in dagstop("install", "--database-url", airflow_db.url).stdout
        assert red() == set()
        listener.stop()
    assert red() == {"listeners", "host host-1"}


@on_one
def test_explain_names_the_evidence_and_signals_nothing(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7311", tasks.environment("dag", "run"))
    tasks.bash("sleep 7312", tasks.environment("dag", "run", AIRFLOW_HOME="/srv/other"))
    wait_for("sleep 7312")
    where = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path), *NO_DOCKER)
    facts = json.loads(dagstop("explain", "dag", "run", "--json", *where).stdout)
    verdicts = {item["command"]: item["verdict"] for item in facts["found"]}
    assert verdicts["sleep 7311"] == "kill" and verdicts["sleep 7312"] == "spare"
    assert "environment" in dagstop("explain", "dag", "run", *where).stdout
    assert find("sleep 7311") and find("sleep 7312")
    through = "postgresql+psycopg2://airflow:secret@pooler.example.org:6432/airflow"
    tasks.bash("sleep 7313", tasks.environment("dag", "run", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=through))
    wait_for("sleep 7313")
    for more, verdict in ((), "spare"), (("--same-database", through), "kill"):
        facts = json.loads(dagstop("explain", "dag", "run", "--json", *where, *more).stdout)
        (item,) = [item for item in facts["found"] if item["command"] == "sleep 7313"]
        assert item["verdict"] == verdict, item
        assert ("--same-database" in item["why"]) == (verdict == "spare")
    assert "no run 'x'" in failing("explain", "dag", "x", *where).stderr
    assert "no task 'x' in run 'run'" in failing("explain", "dag", "run", "--task-id", "x", *where).stderr


@on_one
def test_ps_shows_tasks_states_and_orphans(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    airflow_db.add_running("run", ("a", "b"))
    tasks.bash("sleep 7321", tasks.environment("dag", "run", "a"))
    tags = {"AIRFLOW_CTX_DAG_ID": "dag", "AIRFLOW_CTX_DAG_RUN_ID": "run", "AIRFLOW_CTX_TASK_ID": "b"}
    command = f"env AIRFLOW_CTX_TRY_NUMBER=1 {' '.join(f'{k}={v}' for k, v in tags.items())} sleep 7322"
    tasks.runner("airflow task runner: dag b run 7", command)
    wait_for("sleep 7322")
    where = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path), *NO_DOCKER)
    rows = json.loads(dagstop("ps", "--json", *where).stdout)["tasks"]
    seen = sorted((row["task_id"], row["state"], row["run_state"], row["orphan"]) for row in rows)
    assert seen == [("a", "running", "running", True), ("b", "running", "running", False)]  # a row each
    assert "orphan" in dagstop("ps", *where).stdout


@on_one
def test_history_and_status(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    where = ("--database-url", airflow_db.url)
    assert "there is no listener" in dagstop("status", *where).stdout
    assert "nothing has been stopped yet" in dagstop("history", *where).stdout
    airflow_db.add_running("run")
    tasks.bash("sleep 7331", tasks.environment("dag", "run"))
    wait_for("sleep 7331")
    airflow_db.set_run("failed")
    assert "a listener" in dagstop("status", *where).stdout
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_for_reports(1)
        assert "no open orders" in dagstop("status", *where).stdout
        line = dagstop("history", *where, "--dag-id", "dag", "--run-id", "run").stdout.splitlines()[1]
        assert "stopped" in line and "host-1" in line and "postgres" in line
        assert dagstop("history", *where, "--dag-id", "x").stdout == "nothing that matches was stopped\n"
        (row,) = json.loads(dagstop("history", "--json", *where).stdout)
        assert row["outcome"] == "stopped"


@on_one
def test_hostile_names_are_shown_escaped(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    name = "d\x1b[31m\n%s{}'\""
    airflow_db.add_run(dag_id=name, run_id="run")
    airflow_db.set_run("failed")
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_for_reports(1)
        shown = dagstop("history", "--database-url", airflow_db.url).stdout
    for output in (shown, listener.log()):
        assert "\\x1b[31m\\n%s{}" in output and "\x1b" not in output


def test_policy_prints_the_file() -> None:
    assert dagstop("policy").stdout == text()


NAMED = ("--container", "compose=shop*", "--container", 'image=a b%c$d"e\\f:1')


@pytest.mark.parametrize(
    "options",
    [(), ("--user", "daemon"), ("--page",), NAMED, ("--user", "daemon", *NAMED)],
    ids=["root", "user", "page", "containers", "user, containers"],
)
def test_the_systemd_unit_is_clean_and_hardened(tmp_path: Path, options: tuple[str, ...]) -> None:
    if shutil.which("systemd-analyze") is None:
        missing(RuntimeError("no systemd-analyze here: apt-get install systemd"))
    unit = tmp_path / "dagstop.service"
    unit.write_text(dagstop("systemd", *options).stdout)
    assert ("\nUser=daemon" in unit.read_text()) == ("daemon" in options)
    verify = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (verify.returncode, verify.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=40", str(unit)]
    security = subprocess.run(command, capture_output=True, text=True)
    assert security.returncode == 0, security.stdout[-300:]  # an exposure of 4.0 or less


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--container", "compose=*"), "would name every container"),
        (("--container", "image=a\nb"), "a character that no unit can hold"),
        (("--page", "--container", "compose=shop"), "exclude each other"),
    ],
)
def test_no_unit_is_printed_of_containers_that_cannot_be_meant(options: tuple[str, ...], wanted: str) -> None:
    done = dagstop("systemd", *options, check=False)
    assert done.returncode != 0 and done.stdout == "" and wanted in done.stderr


@on_one
def test_the_rights_that_the_unit_leaves_are_enough(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """Root with those capabilities only stops the processes of another user."""
    if os.geteuid() != 0:
        missing(RuntimeError("only root can start processes of another user"))
    (caps,) = re.findall(r"CapabilityBoundingSet=(.*)", dagstop("systemd").stdout)
    kept = ",".join(f"+{cap.removeprefix('CAP_').lower()}" for cap in caps.split())
    airflow_db.add_running("run")
    environment = tasks.environment("dag", "run", "a")
    tasks.start(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "7341"],
                environment, session=True)  # fmt: skip
    wait_for("sleep 7341")
    listener = Listener(airflow_db.url, tmp_path, "--task-user", "65534")
    listener.command[:0] = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs"]
    with listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped"
    assert not find("sleep 7341")


@on_one
def test_status_names_the_containers_that_are_spared(airflow_db: AirflowDatabase) -> None:
    """Those that the operator named; not another project's, nor a database of the same one."""
    busy.listener(airflow_db, "machine-1", places=busy.PLACES)
    shown = dagstop("status", "--database-url", airflow_db.url).stdout
    assert "2 ours, 2 refused, 1 unreadable" in shown
    named = [line.split("\t") for line in shown.splitlines() if line.startswith("machine-1\t")][1:]
    assert [(line[1], line[2]) for line in named] == [
        ("7b1e55d0c2aa", "compose=shop"),
        ("c0ffee123456", "compose=shop"),
    ], shown
    assert "(CAP_SYS_PTRACE is needed)" in shown


@on_one
def test_a_host_that_is_gone_for_good_can_be_forgotten(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    database = ("--database-url", airflow_db.url)

    def listeners() -> dict[str, tuple[str, str]]:
        facts = json.loads(dagstop("check", "--json", *database, check=False).stdout)
        return {f["name"]: (f["ok"], f["do"]) for f in facts["findings"] if f["name"].startswith("listener")}

    with Listener(airflow_db.url, tmp_path) as listener:
        refused = dagstop("forget", "host-1", *database, check=False)
        assert refused.returncode == 1 and "lives, it was seen" in refused.stderr
        assert refused.stderr.strip().endswith("stop it first: it takes its row away itself")
        listener.kill()
    airflow_db.rows("update dagstop.listener set seen_at = now() - interval '2 h'")
    ok, do = listeners()["listener host-1"]
    assert not ok and "`dagstop forget host-1`" in do and "listen" not in do
    airflow_db.rows("create table job (job_type text, latest_heartbeat timestamptz, hostname text)")
    airflow_db.rows("update dagstop.listener set seen_at = now() - interval '2 d'")
    assert listeners()["listener host-1"] == (True, "")
    assert "\tgone\t" in dagstop("status", *database).stdout
    unknown = dagstop("forget", "host-2", *database, check=False)
    assert unknown.returncode == 1 and unknown.stderr.strip().endswith("known hosts: host-1")
    assert dagstop("forget", "host-1", *database).stdout == "host-1 is forgotten\n"
    assert set(listeners()) == {"listeners"}
    assert "host-1" not in dagstop("status", *database).stdout
