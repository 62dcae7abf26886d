"""The page beside a real listener: what its process may do, and that the listener needs it for nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dagstop.lab.postgres import free_port
from tests.conftest import missing
from tests.listener.test_stop import one_server, shape_2
from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop
from tests.support.page import TOKEN, Page, get, wait_for_answer
from tests.support.tasks import Tasks, descendants, find, wait_for

PAGE = "-I -m dagstop.page"


def url_of(listener: Listener) -> str:
    listener.wait_for("INFO page at=", timeout=60)
    return re.findall(r"page at=(http://\S+)/", listener.log())[-1]


def page_of(listener: Listener, *, other_than: int = 0) -> int:
    """The pid of its page process."""
    until = time.monotonic() + 60
    assert listener.process is not None
    while True:
        for pid in descendants(listener.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if PAGE in words and pid != other_than:
                return pid
        assert time.monotonic() < until, listener.log()
        time.sleep(0.05)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def wait_for_death(pid: int, timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while True:
        try:
            if status_of(pid)["State"][0] in "ZX":
                return
        except OSError:
            return
        assert time.monotonic() < until, f"process {pid} lives"
        time.sleep(0.05)


@one_server
@shape_2
def test_a_stop_is_seen_on_the_page_and_in_the_metrics(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7401", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7401")
    with Listener(airflow_db.url, tmp_path, "--http", "0") as listener:
        url = url_of(listener)
        assert "ok: host-1 can stop what runs on it (listening)" in wait_for_answer(url + "/healthz", 200)
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        done = 'dagstop_orders_done_total{host="host-1",outcome="stopped"} 1.0'
        body = wait_for_answer(url + "/metrics", 200, done)  # the next heartbeat brings it
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
        wait_for_answer(
            url + "/healthz",
            503,
            "failed: trigger task_instance.dagstop_fence is missing: run `dagstop install`",
        )
        assert "dagstop_able_to_stop 0.0" in wait_for_answer(
            url + "/metrics", 200, 'trigger="dagstop_fence"} 0.0'
        )


@one_server
@shape_2
def test_its_process_may_do_nothing_and_shows_no_secret(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing(RuntimeError("only root has rights that can be given up"))
    secret = airflow_db.url.replace("postgres@", "postgres:no-trust-looks-at-me@")
    environment = {"DAGSTOP_HTTP_TOKEN": TOKEN}
    with Listener(secret, tmp_path, "--http", "0", **environment) as listener:
        url = url_of(listener)
        assert get(url + "/")[0] == 401
        assert wait_for_answer_with_token(url + "/healthz").startswith("ok")
        pid = page_of(listener)
        status = status_of(pid)
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert (status["Groups"], status["NoNewPrivs"]) == ("", "1")
        assert {status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
        assert (
            Path(f"/proc/{pid}/mem").stat().st_uid == 0
        )  # not dumpable: nobody's other processes cannot trace it
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{pid}/{name}").read_bytes()
            assert b"no-trust" not in content and TOKEN.encode() not in content
        assert "no-trust" not in listener.log() and TOKEN not in listener.log()
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 1000


def wait_for_answer_with_token(url: str, timeout: float = 60) -> str:
    until = time.monotonic() + timeout
    while True:
        status, body, _ = get(url, Authorization=f"Bearer {TOKEN}")
        if status == 200:
            return body
        assert time.monotonic() < until, (status, body)
        time.sleep(0.1)


@one_server
@shape_2
def test_the_rights_that_the_unit_leaves_are_enough(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing(RuntimeError("only root has rights that can be given up"))
    (caps,) = re.findall(r"CapabilityBoundingSet=(.*)", dagstop("systemd").stdout)
    kept = [f"+{cap.removeprefix('CAP_').lower()}" for cap in caps.split()]
    for without, expected in (((), ""), (("+setuid",), "CAP_SETUID")):
        listener = Listener(airflow_db.url, tmp_path, "--http", "0")
        bounding = ",".join(["-all", *(cap for cap in kept if cap not in without)])
        listener.command[:0] = ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs"]
        with listener:
            if expected:
                listener.wait_for(expected, timeout=60)  # it serves nothing rather than as root
                continue
            wait_for_answer(url_of(listener) + "/healthz", 200)
            assert status_of(page_of(listener))["Uid"].split() == ["65534"] * 4


REHEARSED = """
import http.client, socket, sys, threading
from dagstop.page.facts import Here, Source
from dagstop.page.server import Server
bound = socket.create_server(("127.0.0.1", 0))
source = Source(sys.argv[1], Here("worker-1", "", "0", ""))
source.connect()
server = Server(bound, source, None, lambda: None)
touched = []
late = lambda event, found: touched.append(found[0]) if event == "import" or (event == "open" and "dagstop" in str(found[0])) else None
threading.Thread(target=server.serve_forever, daemon=True).start()
def ask(path, method="GET", host="localhost"):
    connection = http.client.HTTPConnection(*bound.getsockname(), timeout=60)
    connection.request(method, path, headers={"Host": host})
    connection.getresponse().read()
ask("/icon.svg")  # what the client itself imports
sys.addaudithook(late)
for path in ("/", "/metrics", "/healthz", "/api/overview", "/api/orders?only=spared&words=%C3%BC", "/api/orders/1", "/api/orders?before=x", "/x"):
    ask(path)
ask("/", "POST"), ask("/", host="evil.example.org")
source._connection.close()
ask("/api/orders"), ask("/api/orders/1")
print(touched)
"""


@one_server
@shape_2
def test_it_reads_no_file_and_imports_nothing_once_it_serves(airflow_db: AirflowDatabase) -> None:
    """User nobody may have no right to, say below /root."""
    busy.busy_day(airflow_db)
    words = [sys.executable, "-I", "-c", REHEARSED, airflow_db.url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stdout + done.stderr


@one_server
@shape_2
def test_listener_and_page_end_without_each_other(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7402", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7402")
    with Listener(airflow_db.url, tmp_path, "--http", "0") as listener:
        url = url_of(listener)
        wait_for_answer(url + "/healthz", 200)
        first = page_of(listener)
        os.kill(first, signal.SIGSTOP)  # a page that hangs holds nothing up
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        assert not find("sleep 7402")
        os.kill(first, signal.SIGKILL)
        listener.wait_for("page not served", timeout=60)
        second = page_of(listener, other_than=first)
        wait_for_answer(url + "/healthz", 200)  # the same port
        os.kill(second, signal.SIGTERM)  # as systemd does to all processes of a service
        wait_for_answer(url + "/healthz", 200)
        assert page_of(listener) == second
        listener.kill()  # SIGKILL: it can tell nobody
        wait_for_death(second)
    with Listener(airflow_db.url, tmp_path, "--http", "0") as listener:
        pid = page_of(listener)
        wait_for_answer(url_of(listener) + "/healthz", 200)
        assert listener.stop() == 0
        wait_for_death(pid)


@one_server
@shape_2
def test_a_port_that_is_taken_or_a_database_that_is_away_stops_no_listener(
    airflow_db: AirflowDatabase, tmp_path: Path
) -> None:
    with Page(airflow_db) as other:
        port = other.url.rpartition(":")[2]
        with Listener(airflow_db.url, tmp_path, "--http", port) as listener:
            listener.wait_for("page not served", timeout=60)
            assert "Address already in use" in listener.log()
            airflow_db.add_running("run")
            airflow_db.set_run("failed")
            listener.wait_for_reports(1)
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/airflow"
    with Page(airflow_db, url=away) as page:
        assert "cannot be reached" in wait_for_answer(page.url + "/healthz", 503)
        status, body, _ = page.get("/metrics")
        assert status == 200 and "dagstop_database_up 0.0" in body and "dagstop_open_orders" not in body
        assert page.get("/api/overview")[0] == 503 and "cannot be reached" in page.get("/api/overview")[1]
        assert page.get("/")[0] == 200


@one_server
@shape_2
def test_only_root_may_log_in_and_the_page_still_does(
    airflow_db: AirflowDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a password in a .pgpass that root alone may read: the page connects before it becomes nobody, and starts anew when cut off."""
    if os.geteuid() != 0:
        missing(RuntimeError("only root can become another user"))
    monkeypatch.delenv("PGHOST", raising=False)
    airflow_db.rows("drop role if exists r_root; create role r_root login; grant dagstop_listener to r_root")
    busy.listener(airflow_db, "worker-1")
    # where the server is stands in a folder that only root may enter
    folder = tmp_path / "root-only"
    folder.mkdir(mode=0o700)
    service = folder / "services"
    service.write_text(f"[only-root]\nhost=127.0.0.1\nport={urlsplit(airflow_db.url).port}\nuser=r_root\n")
    url = f"postgresql:///{urlsplit(airflow_db.url).path[1:]}?service=only-root"
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    with Page(airflow_db, url=url) as page:
        wait_for_answer(page.url + "/healthz", 200)
        airflow_db.rows("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'r_root'")
        wait_for_answer(page.url + "/healthz", 503, "services")
        wait_for_answer(page.url + "/healthz", 200, timeout=120)
    airflow_db.rows("drop owned by r_root cascade; drop role r_root")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--http", "0.0.0.0:8321"), "DAGSTOP_HTTP_TOKEN"),
        (("--http", "8321", "--http-token", "short"), "16 characters"),
        (("--http", "nonsense"), "HOST:PORT"),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    where = (
        "--airflow-home",
        str(tmp_path),
        "--state-dir",
        str(tmp_path),
        "--database-url",
        "postgresql:///x",
    )
    done = dagstop("listen", *where, *arguments, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
