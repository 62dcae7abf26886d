"""What waits until an order is closed, some seconds: a retry set by hand, a task run by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.e2e.never_breaks.tasks import (
    QUIET_SECONDS,
    START_SECONDS,
    closed,
    dead,
    fail,
    heard,
    started,
    state,
)  # fmt: skip
from tests.e2e.site import Site, marked
from tests.support.watch import hold

pytestmark = pytest.mark.e2e


def test_a_retry_set_by_hand(site: Site) -> None:
    airflow, run = site.airflow, "retried_6206"
    airflow.trigger("retried", run)
    old = started(site, run)
    other = [p for p in marked(run) if p not in old]
    with site.listener_held():
        fail(site, "retried", run, "task")
        if airflow.generation < 3:
            airflow.retry_task_by_ui("retried", run, "long")
            assert state(site, run) == "failed"  # for a dying task wants the same
            assert wanted(site, run) == ["up_for_retry"]
    dead(site, old)
    closed(site, "retried", run)
    heard(site, "retried", run)
    assert state(site, run) == "failed"
    if airflow.generation < 3:
        airflow.retry_task_by_ui("retried", run, "long")
    else:  # its users clear
        airflow.clear_task_by_ui("retried", run, "long")
    new = started(site, run, besides=old)

    def look() -> None:
        assert all(p.alive() for p in (*new, *other)), site.listener_log()
        assert airflow.task_states(run) == {"long": "running", "other": "running"}

    hold(look, QUIET_SECONDS)
    airflow.fail_run_by_sql("retried", run)
    dead(site, [*new, *other])


def test_a_task_run_by_hand(site: Site) -> None:
    airflow, run = site.airflow, "again_6207"
    airflow.trigger("again", run)
    old = started(site, run)
    fail(site, "again", run, "run")
    dead(site, old)
    closed(site, "again", run)
    heard(site, "again", run)
    date = airflow.date("again", run)
    forced = {
        1: ("run", "--force", "again", "long", date.isoformat()),
        2: ("tasks", "run", "--force", "again", "long", run),
        # 3.x has no such command
        3: ("tasks", "clear", "again", "--yes", "--start-date", (date - timedelta(seconds=1)).isoformat(),
            "--end-date", (date + timedelta(seconds=1)).isoformat()),
    }  # fmt: skip
    airflow.begin("forced", *forced[airflow.generation])
    new = started(site, run, besides=old)

    def look() -> None:
        assert all(p.alive() for p in new), site.listener_log()
        assert state(site, run) == "running"

    hold(look, QUIET_SECONDS)
    fail(site, "again", run, "task")  # and is not immune to the next
    dead(site, new)
    airflow.wait_for(lambda: state(site, run) == "failed", "failed", START_SECONDS)


def wanted(site: Site, run: str) -> list[str]:
    """The states that the fence has refused `long`, each once."""
    refused = "SELECT DISTINCT wanted_state FROM dagstop.refused_write WHERE run_id = %s AND task_id = 'long'"
    return sorted(row["wanted_state"] for row in site.airflow.query(refused, (run,)))
