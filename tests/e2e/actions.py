"""The ways in which people fail a run or a task on a real Airflow."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.e2e.kinds import tasks_of
from tests.e2e.site import Site

SCHEDULED = "scheduled__2024-01-01T00:00:00+00:00"  # the one run of a DAG that 1.10 schedules @once
MODES = {
    "up": "everything is alive",
    "late": "the listener is started only after the failure",
    "scheduler_killed": "the scheduler was SIGKILLed",
    "scheduler_stopped": "the scheduler was stopped by SIGTERM",
    "web_only": "every Airflow process but the web server was SIGKILLed",
}
ACTIONS = ("sql_run", "sql_many", "ui_run", "stop", "timeout", "sql_task", "ui_task")


@dataclass(frozen=True)
class Act:
    """One action in one mode, and the runs that it fails."""

    mode: str
    action: str
    runs: tuple[str, ...]

    @property
    def of_tasks(self) -> bool:
        """Whether task instances are failed one by one, not the run."""
        return self.action in ("sql_task", "ui_task")

    @property
    def by_ui(self) -> bool:
        """Whether Airflow's own code does it, which first sets what is pending to skipped (2.x, 3.x)."""
        return self.action in ("ui_run", "timeout")


def acts_of(mode: str, actions: tuple[str, ...], generation: int) -> list[Act]:
    """The acts of a mode with runs of their own; those that the mode cannot have are left out."""
    acts = []
    for action in actions:
        number = 6100 + 100 * list(MODES).index(mode) + 10 * ACTIONS.index(action)
        names = (
            (f"matrix_{number}", f"matrix_{number + 1}") if action == "sql_many" else (f"matrix_{number}",)
        )
        if action == "timeout":
            if mode != "up" and mode != "late":
                continue  # it is a scheduler that applies it
            names = (SCHEDULED,) if generation == 1 else names
        acts.append(Act(mode, action, names))
    return acts


def perform(site: Site, act: Act) -> float:
    """Do it; time.monotonic() of the commit or, through Airflow's own code, of its beginning."""
    airflow, dag, run = site.airflow, site.dag_id, act.runs[0]
    began = time.monotonic()
    if act.action in ("sql_run", "sql_many"):
        done = airflow.execute(
            "UPDATE dag_run SET state = 'failed' WHERE dag_id = %s AND run_id = ANY (%s)",
            (dag, list(act.runs)),
        )
        assert done == len(act.runs)
    elif act.action == "ui_run":
        airflow.fail_run_by_ui(dag, run)
    elif act.action == "stop":
        site.dagstop("stop", dag, run)
    elif act.action == "timeout":
        airflow.execute(
            "UPDATE dag_run SET start_date = start_date - interval '8 days' WHERE dag_id = %s AND run_id = %s",
            (dag, run),
        )
        failed = "SELECT 1 FROM dagstop.stop_order WHERE dag_id = %s AND run_id = %s AND kind = 'run'"
        airflow.wait_for(lambda: bool(airflow.query(failed, (dag, run))), "timed out")
        ago = "SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 AS ago" + failed[8:]
        began = time.monotonic() - float(airflow.query(ago, (dag, run))[0]["ago"])
    elif act.action == "sql_task":
        which = "execution_date = (SELECT execution_date FROM dag_run WHERE dag_id = %s AND run_id = %s)"
        if airflow.generation > 1:
            which = "dag_id = %s AND run_id = %s AND map_index < 1"
        tasks = list(tasks_of(airflow.generation))
        done = airflow.execute(
            f"UPDATE task_instance SET state = 'failed' WHERE {which} AND task_id = ANY (%s)",
            (dag, run, tasks),
        )
        assert done == len(tasks)
    elif act.action == "ui_task":
        for task in tasks_of(airflow.generation):
            airflow.fail_task_by_ui(dag, run, task, 0 if task == "mapped" else -1)
    return began
