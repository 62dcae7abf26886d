"""Containers of a failed run, on a real Docker engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dagstop import policy
from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import ps
from tests.support.containers import TWIN, Run, running
from tests.support.counted import CountedSocket
from tests.support.listener import CLEAN, Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.settings import set_setting
from tests.support.tasks import Tasks, wait_for
from tests.support.watch import wait_until
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
HANDLES = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


def test_containers_of_the_run_die_and_foreign_ones_live(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    airflow_db.add_running("run")
    ours = {
        "no handler": run(["sleep", "600"]),
        "handler": run(HANDLES),
        "restarts": run(["sleep", "600"], restart_policy={"Name": "always"}),
        "auto_remove": run(["sleep", "600"], auto_remove=True),
        "paused": run(["sleep", "600"]),
    }
    ours["paused"].pause()
    foreign = [
        run(["sleep", "600"], dag="another"),
        run(["sleep", "600"], home="/srv/other", more_tags=TWIN),
        run(["sleep", "600"], more_tags=TWIN),
        run(["sleep", "600"], tags=False),
    ]
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=9)  # nobody's grace of 10 s was waited for
    assert report["outcome"] == "stopped", show(report)  # their tags prove the others to be another Airflow's
    assert {name for name, container in ours.items() if running(container)} == set()
    assert all(running(container) for container in foreign)
    signals = {item["id"]: [name for name, _ in item["signals"]] for item in report["detail"]["containers"]}
    assert signals[str(ours["handler"].id)[:12]] == ["SIGTERM"], show(report)
    assert signals[str(ours["no handler"].id)[:12]] == ["SIGKILL"], show(report)
    assert set(signals) == {str(container.id)[:12] for container in ours.values()}, show(report)
    reasons = sorted(item["why"] for item in report["detail"]["spared"])
    assert reasons == [
        "its AIRFLOW_HOME is /srv/other",
        "its host is 5e8f0d7c1b2a, that of Airflow's job 7 is worker: it is another Airflow's",
    ]


def test_tags_of_an_earlier_policy_kill_nothing_where_two_airflows_share_them(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    """Ids and a home are all that they say: both containers live, and `check` says why."""
    airflow_db.add_running("run")
    both = [run(["sleep", "600"], more_tags={}) for _ in range(2)]
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "spared" and all(running(one) for one in both), show(report)
        reasons = {item["why"] for item in report["detail"]["spared"]}
        assert len(report["detail"]["spared"]) == 2 and len(reasons) == 1, show(report)
        assert "another container says that it is of the same try" in reasons.pop()
        both[1].remove(force=True)  # one claim is believed
        airflow_db.set_run("running")
        airflow_db.set_run("failed")
        wait_until(lambda: not running(both[0]), 20, listener.log)


def test_two_projects_with_one_home_and_an_earlier_policy(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    """Two Airflows of compose, alike to the letter; only the twin's container is left."""
    airflow_db.add_running("run")
    same = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql://u@postgres/a"}
    client = docker_engine.client()
    parts = [
        client.containers.run(
            IMAGE, ["sleep", "600"], detach=True, network_mode="none", environment=same,
            labels={"com.docker.compose.project": project},
        )
        for project in ("a", "b")
    ]  # fmt: skip
    try:
        twins = run(["sleep", "600"], more_tags={})
        with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1)
            assert running(twins), show(report)
            (spared,) = report["detail"]["spared"]
            assert "more than one Airflow here has the AIRFLOW_HOME" in spared["why"], show(report)
            ours = run(["sleep", "600"])
            airflow_db.set_run("running")
            airflow_db.set_run("failed")
            second = listener.wait_for_reports(2)[1]
            assert not running(ours) and running(twins), show(second)
            assert all(running(part) for part in parts), show(second)
    finally:
        for part in parts:
            part.remove(force=True)
        client.close()


def test_check_names_a_policy_of_an_earlier_release(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    where = (
        "--database-url",
        airflow_db.url,
        "--airflow-home",
        str(tmp_path),
        "--docker-url",
        docker_engine.url,
    )

    def findings() -> list[dict[str, Any]]:
        said = json.loads(dagstop("check", "--json", *where, check=False).stdout)
        return [finding for finding in said["findings"] if finding["name"] == "cluster policy"]

    run(["sleep", "600"])
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "airflow_local_settings.py"
    file.write_text("from dagstop_policy import *")  # the site's own
    assert findings() == []
    ours = file.with_name("dagstop_policy.py")
    ours.write_text(policy.text())
    (good,) = findings()
    assert good["ok"] and not good["do"] and str(ours) in good["said"]
    ours.write_text(policy.text().replace("VERSION = 2", ""))
    old = run(["sleep", "600"], more_tags={})
    by_file, by_tags = findings()
    assert "version 1, this release's is 2" in by_file["said"] and "`dagstop policy`" in by_file["do"]
    assert old.name in by_tags["said"] and "`dagstop policy`" in by_tags["do"]


def test_observing_ends_the_grace_of_a_container(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    """Switched on between its SIGTERM and its SIGKILL; no row is written into Airflow's audit log."""
    airflow_db.add_log_table()
    airflow_db.add_running("run")
    stubborn = run(["sh", "-c", "trap 'echo no' TERM; while :; do sleep 0.1; done"])
    set_setting(airflow_db, "grace_seconds", "60")  # however busy the machine is
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        airflow_db.set_run("failed")
        wait_until(lambda: b"no" in stubborn.logs(), 20, listener.log)
        set_setting(airflow_db, "observe_only", "on")
        (report,) = listener.wait_for_reports(1)
        assert running(stubborn), show(report)
        assert report["outcome"] == "spared" and report["detail"]["containers"] == [], show(report)
        ((why, name),) = [(item["why"], item["container"]) for item in report["detail"]["spared"]]
        assert name == stubborn.name
        assert why == "observe only: it would die, of the stopped run; it had got SIGTERM"
        listener.wait_for_audit_log()
        assert airflow_db.rows("select * from log") == []
        set_setting(airflow_db, "grace_seconds", "1")
        set_setting(airflow_db, "observe_only", "off")
        airflow_db.set_run("running")
        airflow_db.set_run("failed")
        assert listener.wait_for_reports(2)[1]["outcome"] == "stopped"
        assert not running(stubborn)
        listener.wait_for_audit_log()
        assert airflow_db.one("select extra from log").startswith("stopped by dagstop: DAG run marked failed")


def test_ps_names_containers_that_nothing_ties_to_a_task(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    tied = run(["sleep", "600"])
    operators = run(["sleep", "600"], tags=False, labels={"AIRFLOW_TMP_DIR": "/tmp"})
    anybody = run(["sleep", "600"], tags=False)
    said = ps(airflow_db, tmp_path, docker_engine)
    assert [row["containers"][0]["name"] for row in said["tasks"]] == [tied.name]
    why = {item["what"].split()[1]: item["why"] for item in said["not_attributable"]}
    assert why.keys() == {operators.name, anybody.name}
    assert all("not attributable" in words and "`dagstop policy`" in words for words in why.values())
    assert "new ones will be" in why[operators.name] and "not a task's" in why[anybody.name]


def test_an_engine_that_is_away_is_waited_for(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    container = run(["sleep", "600"])
    tasks.bash("sleep 7201", tasks.environment("dag", "run"))
    wait_for("sleep 7201")
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        docker_engine.halt()
        try:
            airflow_db.set_run("failed")
            wait_for("sleep 7201", 0)  # the processes do not wait for the engine
            listener.wait_for("engine away")
            assert listener.reports() == []
        finally:
            docker_engine.start()
        (report,) = listener.wait_for_reports(1, timeout=40)
    assert report["outcome"] == "stopped", show(report)
    assert len(report["detail"]["containers"]) == 1
    assert not running(container)


def test_the_container_of_a_docker_run_in_bash_dies_with_it(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    cidfile = tmp_path / "cid"
    command = f"docker run --network none --cidfile {cidfile} --rm {IMAGE} sh -c 'sleep 600; :' --name nobody"
    tasks.bash(command, tasks.environment("dag", "run", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path)))
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        wait_for("sh -c sleep 600; : --name nobody")
        (row,) = ps(airflow_db, tmp_path, docker_engine)["tasks"]
        assert row["task_id"] == "t" and row["containers"][0]["id"] == cidfile.read_text()[:12]
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    assert len(report["detail"]["containers"]) == 1
    listed = subprocess.run(
        ["docker", "ps", "-q", "--no-trunc"],
        env={**CLEAN, "DOCKER_HOST": docker_engine.url, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert cidfile.read_text() not in listed


def test_a_cidfile_that_the_dying_task_removes_is_read_before(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks
) -> None:
    """By a listener that comes only then, too."""
    airflow_db.add_running("run")
    folder = tmp_path / "airflowtmp"
    folder.mkdir()
    client = f"docker run --network none --cidfile {folder}/cid {IMAGE} sleep 7261"
    command = f"{client} & trap 'rm -r {folder}; exit' TERM; wait"
    tasks.bash(command, tasks.environment("dag", "run", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path)))
    wait_for("sleep 7261")
    airflow_db.set_run("failed")
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        (report,) = listener.wait_for_reports(1)
    assert not folder.exists()
    assert len(report["detail"]["containers"]) == 1, show(report)
    wait_for("sleep 7261", 0)


@pytest.mark.parametrize("settles", [False, True], ids=["in its grace", "settling"])
def test_the_engine_is_not_asked_without_a_pause_while_a_process_has_its_time(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks, settles: bool
) -> None:
    airflow_db.add_running("run")
    runner = tasks.runner("airflow task runner: dag a run 7", "trap : TERM; while :; do sleep 0.2; done")
    airflow_db.rows("update task_instance set pid = %s", (runner.pid,))
    airflow_db.rows("update dagstop.setting set value = '4' where name = 'settle_seconds'")
    with (
        CountedSocket(tmp_path / "docker.sock", docker_engine.url.removeprefix("unix://")) as counted,
        Listener(airflow_db.url, tmp_path, "--grace", "4", docker_url=counted.url) as listener,
    ):
        listener.wait_until_remembered(2)
        if settles:
            airflow_db.rows("update task_instance set state = 'failed', end_date = clock_timestamp()")
        else:
            airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        asked = counted.asked(b"/containers/json")
    assert report["outcome"] == "stopped", show(report)
    assert 0 < asked < 45  # four times a second; some hundreds without a pause


# decoys: at the pid of each container's init, a process whose handler for SIGTERM says the opposite
DECOYS = """
import json, os, signal, sys, time
for pid, handles in json.loads(sys.argv[1]):
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(pid - 1))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, (lambda *_: None) if handles else signal.SIG_DFL)
        while True:
            time.sleep(60)
    assert child == pid, (child, pid)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_pid_of_the_engine_counts_only_where_it_is_the_containers(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, run: Run
) -> None:
    """A listener in a container sees its own pid namespace only: there they mean other processes."""
    if os.geteuid() != 0:
        missing(RuntimeError("only root can give out pids"))
    airflow_db.add_running("run")
    polite = run(["sh", "-c", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"])
    deaf = run(["sleep", "600"])
    decoys = []
    for container, handles in ((polite, False), (deaf, True)):
        container.reload()
        decoys.append((container.attrs["State"]["Pid"], handles))
    listener = Listener(airflow_db.url, tmp_path, "--grace", "2", docker_url=docker_engine.url)
    away = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    listener.command = [*away, sys.executable, "-c", DECOYS, json.dumps(decoys), *listener.command]
    with listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    signals = {item["id"]: [name for name, _ in item["signals"]] for item in report["detail"]["containers"]}
    wanted = {str(polite.id)[:12]: ["SIGTERM"], str(deaf.id)[:12]: ["SIGTERM", "SIGKILL"]}
    assert signals == wanted, show(report)
    assert b"bye" in polite.logs()
    assert report["outcome"] == "stopped" and not running(polite) and not running(deaf), show(report)
