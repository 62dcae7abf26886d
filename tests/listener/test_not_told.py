"""A run that was running while no listener ran: its report says so, and stays what it is."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, query, remembered, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, wait_for
from tests.support.watch import wait_until

pytestmark = [one_server, shape_2]
WHY = "no listener ran"
SOME_TICKS = timedelta(seconds=0.1)


def over(listener: Listener) -> bool:
    """Whether the second gap has ended more than some ticks ago, in which processes count their starts."""
    gaps = remembered(listener.state_dir, "gaps")
    return len(gaps) == 2 and datetime.now(timezone.utc) - datetime.fromisoformat(gaps[1][1]) > SOME_TICKS


def test_a_report_says_when_nobody_was_told(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("before")
    airflow_db.add_running("after", number=1)
    with Listener(airflow_db.url, tmp_path) as listener:
        tasks.bash("sleep 7841", tasks.environment("dag", "before", "a"))
        wait_for("sleep 7841")
        listener.wait_until_remembered(1)
        listener.kill()
        listener.start()
        wait_until(
            lambda: over(listener), 20, listener.log
        )  # it may be connected before it has looked around
        tasks.bash("sleep 7842", tasks.environment("dag", "after", "a"))
        wait_for("sleep 7842")
        airflow_db.set_run("failed", "before")
        airflow_db.set_run("failed", "after")
        reports = {report["run_id"]: report for report in listener.wait_for_reports(2)}
        assert {report["outcome"] for report in reports.values()} == {"stopped"}, show(reports)
        assert "not_told" not in reports["after"]["detail"], show(reports)
        (gap,) = reports["before"]["detail"]["not_told"]
        assert gap["why"] == WHY and gap["from"] < gap["to"], show(gap)
        ask = "select detail -> 'not_told' -> 0 ->> 'why' as why from dagstop.listener"
        wait_until(lambda: [row["why"] for row in query(airflow_db.url, ask)] == [WHY], 20, listener.log)
    said = dagstop("history", "--database-url", airflow_db.url).stdout
    assert said.count("not told what it forked from") == 1, said
