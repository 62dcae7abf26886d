"""A primary and a standby, real ones: both spellings of two servers, a failover, and a plain word on a standby."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dagstop.errors import ReadOnlyError
from dagstop.install import install
from dagstop.page.facts import Here, Source
from tests.support.airflow_tables import AirflowDatabase, schema_sql
from tests.support.listener import Listener, dagstop
from tests.support.standby import Standby
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.postgres import Server, binaries, rows

pytestmark = pytest.mark.server

SHAPE = "2.11.2"
PRIMARY = "a standby, which cannot be written to: connect to the primary"
WRITABLE = "switch default_transaction_read_only off"


@dataclass
class Pair:
    primary: Server
    standby: Standby

    @property
    def urls(self) -> tuple[str, str]:
        """Both servers, as SQLAlchemy and as libpq name them."""
        one, two = f"127.0.0.1:{self.primary.port}", f"127.0.0.1:{self.standby.port}"
        want = "target_session_attrs=read-write"
        return (
            f"postgresql+psycopg2://postgres@/airflow?host={one}&host={two}&{want}",
            f"postgresql://postgres@{one},{two}/airflow?{want}",
        )


@pytest.fixture(params=sorted(binaries()))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    primary = Server(binaries()[request.param])
    try:
        primary.psql(primary.create_database(name="airflow"), schema_sql(SHAPE))
        standby = Standby(primary)
        try:
            yield Pair(primary, standby)
        finally:
            standby.stop()
    finally:
        primary.stop()


def test_install_listen_check_and_stop_go_on_after_a_failover(
    pair: Pair, tmp_path: Path, tasks: Tasks
) -> None:
    url, other = pair.urls
    first, second = (AirflowDatabase(one.url("airflow"), SHAPE) for one in (pair.primary, pair.standby))
    dagstop("install", "--database-url", url)
    for number, run in enumerate(("before", "after")):
        first.add_running(run, number=number)
        tasks.bash(f"sleep 717{number}", tasks.environment("dag", run, "a"))
        wait_for(f"sleep 717{number}")
    with Listener(url, tmp_path, "--host", "worker") as listener:
        checked = json.loads(dagstop("check", "--database-url", other, "--json", check=False).stdout)
        assert next(f for f in checked["findings"] if f["name"] == "listener worker")["ok"]
        stopped = dagstop("stop", "dag", "before", "--wait", "--database-url", url, check=False)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert not find("sleep 7170") and find("sleep 7171")
        pair.standby.catch_up()
        pair.primary.halt()
        listener.wait_for("database lost")
        pair.standby.promote()
        second.wait_until(
            "select count(*) = 1 from dagstop.listener where seen_at > pg_postmaster_start_time()"
        )
        listener.wait_for("connected", after=listener.log().encode().rindex(b"database lost"))
        stopped = dagstop("stop", "dag", "after", "--wait", "--database-url", other, check=False)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert not find("sleep 7171")
        assert "already installed" in dagstop("install", "--database-url", url).stdout
        listener.stop()


def test_on_a_standby_every_command_says_in_one_line_to_connect_to_the_primary(pair: Pair) -> None:
    install(pair.primary.url("airflow"))
    pair.standby.catch_up()
    url = pair.standby.url("airflow")
    for words in (
        ("install",),
        ("install", "--heal"),
        ("uninstall",),
        ("check", "--json"),
        ("stop", "dag", "run"),
        ("status",),
        ("history",),
        ("config",),
        ("config", "observe_only", "on"),
        ("ps", "--airflow-home", "/"),
        ("explain", "dag", "run", "--airflow-home", "/"),
        ("listen", "--once", "--airflow-home", "/"),
    ):
        done = dagstop(*words, "--database-url", url, check=False)
        assert (done.returncode, done.stdout) == (1, ""), f"{words}: {done.stdout}"
        assert PRIMARY in done.stderr.splitlines()[-1], f"{words}: {done.stderr}"
    page = Source(url, Here("host", "1", "database"))
    with pytest.raises(ReadOnlyError, match=PRIMARY):
        page.snapshot()
    page.close()
    # nor where several servers are named and none of them is a primary
    port = pair.standby.port
    both = f"postgresql://postgres@/airflow?host=127.0.0.1:{port}&host=127.0.0.1:1"
    done = dagstop("stop", "dag", "run", "--database-url", both, check=False)
    assert done.returncode == 1 and done.stderr.strip().endswith(": connect to the primary"), done.stderr
    assert "session is read-only" in done.stderr and "Connection refused" in done.stderr


def test_a_listener_on_a_standby_says_so_and_works_from_its_promotion_on(
    pair: Pair, tmp_path: Path, tasks: Tasks
) -> None:
    first, second = (AirflowDatabase(one.url("airflow"), SHAPE) for one in (pair.primary, pair.standby))
    install(first.url)
    first.add_running("run")
    tasks.bash("sleep 7173", tasks.environment("dag", "run"))
    wait_for("sleep 7173")
    pair.standby.catch_up()
    with ExitStack() as stack:
        listener = Listener(second.url, tmp_path)
        stack.push(listener.__exit__)
        listener.start(until="database lost")
        assert "which cannot be written to" in listener.log()
        assert 'do="connect to the primary"' in listener.log()
        pair.standby.promote()
        listener.wait_for("connected")
        second.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped" and not find("sleep 7173")
        # and a primary that becomes a standby under it
        told = len(listener.log().encode())
        pair.standby.demote()
        listener.wait_for('do="connect to the primary"', after=told)
        pair.standby.promote()
        listener.wait_for("connected", after=told)


def test_where_a_login_may_only_read_the_setting_is_named(pair: Pair, tmp_path: Path) -> None:
    url = pair.primary.url("airflow")
    install(url)
    AirflowDatabase(url, SHAPE).add_running("run")
    with Listener(url, tmp_path) as listener:
        rows(url, "alter system set default_transaction_read_only = on")
        rows(url, "select pg_reload_conf()")
        for words in (("stop", "dag", "run"), ("config", "observe_only", "on"), ("uninstall",)):
            done = dagstop(*words, "--database-url", url, check=False)
            assert done.returncode == 1 and WRITABLE in done.stderr.splitlines()[-1], (
                f"{words}: {done.stderr}"
            )
        checked = json.loads(dagstop("check", "--json", "--database-url", url, check=False).stdout)
        (writing,) = [finding for finding in checked["findings"] if finding["name"] == "writing"]
        assert not writing["ok"] and WRITABLE in writing["do"]
        assert dagstop("history", "--database-url", url).returncode == 0
        listener.wait_for(WRITABLE)
        told = len(listener.log().encode())
        rows(
            f"{url}?options=-c%20default_transaction_read_only%3Doff",
            "alter system reset default_transaction_read_only",
        )
        rows(url, "select pg_reload_conf()")
        listener.wait_for("connected", after=told)
