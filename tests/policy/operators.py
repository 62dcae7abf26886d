"""Small operators shaped like Airflow's, and what the policy should give a task of theirs."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from dagstop import policy

HOME = "/srv/airflow"
DATE = datetime(2020, 1, 2, tzinfo=timezone.utc)
TAGS = {
    "AIRFLOW_CTX_DAG_ID": "dag",
    "AIRFLOW_CTX_TASK_ID": "task",
    "AIRFLOW_CTX_EXECUTION_DATE": "2020-01-02T00:00:00+00:00",
    "AIRFLOW_CTX_DAG_RUN_ID": "run",
    "AIRFLOW_CTX_TRY_NUMBER": "2",
    "AIRFLOW_CTX_MAP_INDEX": "-1",
    "DAGSTOP_AIRFLOW_HOME": HOME,
    "DAGSTOP_HOSTNAME": "worker",
    "DAGSTOP_JOB_ID": "7",
    "DAGSTOP_PID": "4321",
    "DAGSTOP_POLICY": "2",
}


class Operator:
    """As Airflow's BaseOperator; `seen` gets its attributes and environment while it executes."""

    task_id = "task"

    def __init__(self, **attributes: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        vars(self).update(attributes)

    def look(self) -> None:
        self.seen.append({**vars(self), "environ": dict(os.environ)})


class PickledOperator(Operator):
    def execute(self, context: Any) -> None:
        self.look()


def operators() -> types.SimpleNamespace:
    """New classes for each test, since the policy changes classes."""

    class BaseOperator(Operator):
        def resume_execution(self, next_method: str, next_kwargs: Any, context: Any) -> Any:
            return getattr(self, next_method)(context)

    class DockerOperator(BaseOperator):
        def execute(self, context: Any) -> str:
            self.look()
            return "result"

        def execute_complete(self, context: Any) -> None:
            self.look()

    class OwnDocker(DockerOperator):
        def execute(self, context: Any, note: str = "") -> str:
            self.environment = {"AIRFLOW_CTX_DAG_ID": "lie"}
            return super().execute(context) + note

    class BashOperator(BaseOperator):
        def execute(self, context: Any) -> None:
            self.look()

    class PythonVirtualenvOperator(BaseOperator):
        def execute(self, context: Any) -> None:
            self.look()

    class PythonOperator(BaseOperator):
        call: Callable[[], None]

        def execute(self, context: Any) -> None:
            self.look()
            self.call()

    return types.SimpleNamespace(**locals())


def load() -> types.ModuleType:
    """A new module of the policy file, as Airflow would import it."""
    loaded = types.ModuleType("airflow_local_settings")
    exec(compile(policy.text(), policy.FILE_NAME, "exec"), vars(loaded))
    return loaded


def context(**changes: Any) -> dict[str, Any]:
    """Airflow's context for the attempt of TAGS; `changes` are attributes of its task instance."""
    values = {"dag_id": "dag", "task_id": "task", "execution_date": DATE, "try_number": 2}
    values |= {"hostname": "worker", "job_id": 7, "pid": 4321} if "id" not in changes else {}
    ti = types.SimpleNamespace(**{**values, **changes})
    return {"ti": ti, "dag_run": types.SimpleNamespace(run_id="run", logical_date=DATE)}


def run(module: types.ModuleType, task: Any, **changes: Any) -> dict[str, Any]:
    """Apply the policy to the task, execute it, and return what was seen meanwhile."""
    module.policy(task)
    task.execute(context=context(**changes))
    seen: dict[str, Any] = task.seen[-1]
    return seen


def tags_in(mapping: Mapping[str, str]) -> dict[str, str]:
    return {
        k: v
        for k, v in mapping.items()
        if k.startswith(("AIRFLOW_CTX_", "DAGSTOP_")) and k != "DAGSTOP_TEST_NAMESPACE"
    }
