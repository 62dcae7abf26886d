"""`dagstop page` beside a real listener: a program of its own, which needs only the database."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop
from tests.support.marks import one_server, shape_2
from tests.support.page import TOKEN, Page, get, wait_for_answer
from tests.support.tasks import Tasks, wait_for
from tests.testbed.postgres import free_port


@one_server
@shape_2
def test_a_stop_is_seen_on_the_page_and_in_the_metrics(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    tasks.bash("sleep 7401", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7401")
    with Page(airflow_db) as page, Listener(airflow_db.url, tmp_path) as listener:
        health = page.url + "/healthz?host=host-1"
        assert "ok: host-1 can stop what runs on it (listening)" in wait_for_answer(health, 200)
        assert wait_for_answer(page.url + "/healthz", 200) == "ok: everything can be stopped\n"
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        done = 'dagstop_orders_done_total{host="host-1",outcome="stopped"} 1.0'
        body = wait_for_answer(page.url + "/metrics", 200, done)  # the next heartbeat brings it
        samples = {
            (sample.name, sample.labels.get("le")): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }
        assert samples["dagstop_last_death_seconds_bucket", "+Inf"] == 1
        assert (
            samples["dagstop_last_death_seconds_sum", None]
            >= samples["dagstop_first_signal_seconds_sum", None]
        )
        assert samples["dagstop_orders", None] == 0 or samples["dagstop_open_orders", None] == 0
        airflow_db.rows("drop trigger dagstop_fence on task_instance")
        missing_trigger = "trigger task_instance.dagstop_fence is missing: run `dagstop install`"
        for url in (health, page.url + "/healthz"):
            wait_for_answer(url, 503, f"failed: {missing_trigger}")
        metrics = wait_for_answer(page.url + "/metrics", 200, 'trigger="dagstop_fence"} 0.0')
        assert "dagstop_able_to_stop 0.0" in metrics
        assert listeners_of(listener.process) == set(), "the root daemon opens no port"
        assert len(listeners_of(page.process)) == 1


def listeners_of(process: subprocess.Popen[bytes] | None) -> set[str]:
    """The inodes of the sockets on which a process takes TCP connections."""
    assert process is not None
    own = {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.is_symlink()}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{process.pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[9] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own}


@one_server
@shape_2
def test_it_shows_no_secret_and_ends_by_sigterm(airflow_db: AirflowDatabase) -> None:
    secret = airflow_db.url.replace("postgres@", "postgres:no-trust-looks-at-me@")
    busy.listener(airflow_db, "worker-1")
    with Page(airflow_db, url=secret, token=TOKEN) as page:
        assert page.get("/")[0] == 401
        status, body, _ = page.get("/api/overview", Authorization=f"Bearer {TOKEN}")
        assert status == 200 and "no-trust" not in body
        assert page.process is not None
        assert b"no-trust" not in Path(f"/proc/{page.process.pid}/cmdline").read_bytes()
        assert "no-trust" not in page.log() and TOKEN not in page.log()
        assert ("page runs as root" in page.log()) == (os.geteuid() == 0)
        assert page.stop() == 0


@one_server
@shape_2
def test_without_a_database_it_says_so_and_comes_back(airflow_db: AirflowDatabase) -> None:
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/airflow"
    with Page(airflow_db, url=away) as page:
        assert "cannot be reached" in wait_for_answer(page.url + "/healthz", 503)
        status, body, _ = page.get("/metrics")
        assert status == 200 and "dagstop_database_up 0.0" in body and "dagstop_open_orders" not in body
        assert page.get("/api/overview")[0] == 503 and "cannot be reached" in page.get("/api/overview")[1]
        assert page.get("/")[0] == 200
    busy.listener(airflow_db, "worker-1")
    with Page(airflow_db) as page:
        wait_for_answer(page.url + "/healthz?host=worker-1", 200)
        airflow_db.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'dagstop page%'"
        )
        wait_for_answer(page.url + "/healthz?host=worker-1", 200)


@one_server
@shape_2
def test_a_port_that_is_taken_is_one_clear_line(airflow_db: AirflowDatabase) -> None:
    with Page(airflow_db) as page:
        port = page.url.rpartition(":")[2]
        done = dagstop("page", "--http", port, "--database-url", airflow_db.url, check=False)
        assert done.returncode == 1
        assert done.stderr == f"dagstop: --http {port} cannot be served: Address already in use\n"
        assert get(page.url + "/")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--http", "0.0.0.0:8321"), "DAGSTOP_HTTP_TOKEN"),
        (("--http", "8321", "--http-token", "short"), "16 characters"),
        (("--http", "nonsense"), "HOST:PORT"),
    ],
)
def test_bad_options_are_one_clear_line(arguments: tuple[str, ...], said: str) -> None:
    done = dagstop("page", "--database-url", "postgresql:///x", *arguments, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


def test_the_listener_keeps_no_right_for_the_page() -> None:
    (caps,) = re.findall(r"CapabilityBoundingSet=(.*)", dagstop("systemd").stdout)
    assert "SETUID" not in caps and "SETGID" not in caps
    page = dagstop("systemd", "--page").stdout
    assert "\nDynamicUser=yes\nCapabilityBoundingSet=\n" in page
