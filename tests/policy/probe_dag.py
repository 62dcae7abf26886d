"""The DAG of real_airflow_probe.py, for Airflow 1.10.0 to 3.x (Python 3.6 and later).

A task's child writes its environment, one NAME=VALUE a line, to $PROBE_OUT/<label>-<map index>.
"""

import os
import subprocess
import sys
from datetime import datetime

try:
    from airflow.sdk import DAG, BaseOperator
except ImportError:
    from airflow import DAG
    from airflow.models import BaseOperator
try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import ExternalPythonOperator, PythonOperator
except ImportError:
    try:
        from airflow.operators.bash import BashOperator
        from airflow.operators.python import ExternalPythonOperator, PythonOperator
    except ImportError:
        from airflow.operators.bash_operator import BashOperator
        from airflow.operators.python_operator import PythonOperator

        ExternalPythonOperator = None
try:
    from airflow.providers.docker.operators.docker import DockerOperator
    from airflow.providers.docker.operators.docker_swarm import DockerSwarmOperator
except ImportError:
    from airflow.operators.docker_operator import DockerOperator

    try:
        from airflow.contrib.operators.docker_swarm_operator import DockerSwarmOperator
    except ImportError:
        DockerSwarmOperator = None
try:
    from airflow.triggers.base import BaseTrigger, TriggerEvent
except ImportError:
    BaseTrigger = None

OUT = os.environ["PROBE_OUT"]
CHILD = "env > " + OUT + '/%s-"${AIRFLOW_CTX_MAP_INDEX-none}"'
MAPPING = hasattr(BaseOperator, "partial")


def write_child(label):
    name = os.path.join(OUT, label + "-")
    subprocess.check_call(["bash", "-c", 'env > "$0${AIRFLOW_CTX_MAP_INDEX-none}"', name])


def write_and_call_docker_by_hand(**context):
    write_child("python")
    DockerOperator(task_id="by_hand", image="by_hand:1").execute({})


class OwnDocker(DockerOperator):
    """Replaces its environment in execute, as real subclasses do."""

    def execute(self, context):
        self.environment = {"OWN": "1", "AIRFLOW_CTX_DAG_ID": "lie"}
        return super().execute(context)


def plain_tasks(dag):
    BashOperator(task_id="bash", bash_command=CHILD % "bash", dag=dag)
    BashOperator(
        task_id="bash_own_env",
        bash_command=CHILD % "bash_own_env",
        env={"ONLY": "this", "PATH": os.environ["PATH"], "AIRFLOW_CTX_TRY_NUMBER": "99"},
        dag=dag,
    )
    kwargs = {} if MAPPING else {"provide_context": True}
    PythonOperator(task_id="python", python_callable=write_and_call_docker_by_hand, dag=dag, **kwargs)
    user = {"USER_KEY": "kept", "AIRFLOW_CTX_TASK_ID": "lie"}
    kwargs = {"labels": {"team": "kept"}} if MAPPING else {}
    DockerOperator(task_id="docker", image="docker:1", environment=user, dag=dag, **kwargs)
    kwargs = {"labels": ["team"], "private_environment": user} if MAPPING else {}
    OwnDocker(task_id="docker_subclass", image="docker_subclass:1", dag=dag, **kwargs)
    if DockerSwarmOperator is not None:
        DockerSwarmOperator(task_id="swarm", image="swarm:1", dag=dag)


def newer_tasks(dag):
    """Only where there are mapped tasks and triggers (2.3 and later)."""
    try:
        from airflow.sdk import task
    except ImportError:
        from airflow.decorators import task

    @task.docker(image="task_docker:1", dag=dag)
    def task_docker():
        return 1

    task_docker()
    BashOperator.partial(task_id="mapped_bash", dag=dag).expand(bash_command=[CHILD % "mapped_bash"] * 2)
    DockerOperator.partial(task_id="mapped_docker", image="mapped_docker:1", dag=dag).expand(
        environment=[{"N": "0"}, {"N": "1"}]
    )
    ExternalPythonOperator(
        task_id="external_python",
        python=sys.executable,
        python_callable=external,
        op_args=[OUT],
        inherit_env=False,
        expect_airflow=False,
        dag=dag,
    )
    Deferring(task_id="deferring", dag=dag)


def external(out):
    import os

    name = "external_python-" + os.environ.get("AIRFLOW_CTX_MAP_INDEX", "none")
    with open(os.path.join(out, name), "w") as f:
        f.write("\n".join("{}={}".format(*pair) for pair in os.environ.items()))


if BaseTrigger is not None:

    class AtOnce(BaseTrigger):
        def serialize(self):
            return (AtOnce.__module__ + ".AtOnce", {})

        async def run(self):
            yield TriggerEvent(True)

    class Deferring(BaseOperator):
        def execute(self, context):
            self.defer(trigger=AtOnce(), method_name="execute_complete")

        def execute_complete(self, context, event=None):
            write_child("deferring")


kwargs = {"schedule": None} if MAPPING else {"schedule_interval": None}
dag = DAG("probe", start_date=datetime(2020, 1, 1), **kwargs)
plain_tasks(dag)
if MAPPING:
    newer_tasks(dag)
