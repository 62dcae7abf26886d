"""An error that nobody expects, in one order or in all: it is logged and tried again, and ends nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for

pytestmark = [one_server, shape_2]

FAILS = """
import importlib
owner = getattr(importlib.import_module("{module}"), "{owner}")
original, left = owner.{method}, [{times}]
def failing(self, *arguments, **more):
    of = arguments[0] if arguments else self
    order = getattr(of, "order", of)
    if getattr(order, "run_id", "bad") == "bad" and left[0]:
        left[0] -= 1
        raise RuntimeError("nobody expects this")
    return original(self, *arguments, **more)
owner.{method} = failing
"""
PLACES = [
    ("dagstop.cases.stopping", "Stopping", "_take_order"),
    ("dagstop.cases.stopping", "Stopping", "_judge_one"),
    ("dagstop.cases.stopping", "Stopping", "_keep_logs"),
    ("dagstop.cases.stopping", "Stopping", "_findings"),
    ("dagstop.cases.stopping", "Stopping", "_survey"),
    ("dagstop.cases.stopping", "Stopping", "tick"),
    ("dagstop.cases.case", "Case", "escalate"),
    ("dagstop.evidence.watch", "Watch", "tick"),
]


@pytest.mark.parametrize(("module", "owner", "method"), PLACES, ids=[".".join(p[1:]) for p in PLACES])
def test_an_error_in_one_order_ends_no_other(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, module: str, owner: str, method: str
) -> None:
    for number, run in enumerate(("bad", "good")):
        airflow_db.add_running(run, number=number)
        tasks.bash(f"sleep 792{number}", tasks.environment("dag", run, "a"))
        wait_for(f"sleep 792{number}")
    broken = tmp_path / "broken"
    broken.mkdir()
    text = FAILS.format(module=module, owner=owner, method=method, times=2)
    (broken / "sitecustomize.py").write_text(text)
    with Listener(airflow_db.url, tmp_path, "--sweep", "1", PYTHONPATH=str(broken)) as listener:
        airflow_db.rows("update dag_run set state = 'failed'")
        reports = listener.wait_for_reports(2)
        assert [report["outcome"] for report in reports] == ["stopped"] * 2, list(map(show, reports))
        assert not find("sleep 7920") and not find("sleep 7921")
        listener.wait_for("nobody expects this")
        assert listener.process is not None and listener.process.poll() is None


def test_a_report_that_cannot_be_read_keeps_no_order_from_being_carried_out(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """Of an earlier release, or written by somebody else."""
    airflow_db.add_running("run")
    tasks.bash("sleep 7931", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7931")
    airflow_db.set_run("failed")
    airflow_db.rows(
        "insert into dagstop.report (order_id, host, detail)"
        " select id, 'host-1', '{\"processes\": [5]}' from dagstop.stop_order"
    )
    with Listener(airflow_db.url, tmp_path) as listener:
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped" and not find("sleep 7931"), show(report)
