"""One DAG of tasks that are hard to stop; loads on every Airflow from 1.10.0 to 3.x.

A run id ends in `_` and digits. Each process carries them in its command line as the fraction of
how long it sleeps (`sleep 6001.4711`), so a test finds it without looking at environments.
"""

import datetime
import os

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:
    try:
        from airflow.operators.bash import BashOperator
    except ImportError:
        from airflow.operators.bash_operator import BashOperator

NUMBER = '{{ run_id.rsplit("_", 1)[1] }}'

try:
    dag = DAG("stubborn", start_date=datetime.datetime(2024, 1, 1), schedule=None, catchup=False)
except Exception:  # before 2.4; each generation has an exception of its own for it
    dag = DAG("stubborn", start_date=datetime.datetime(2024, 1, 1), schedule_interval=None, catchup=False)


def bash(task_id, command, **arguments):
    return BashOperator(task_id=task_id, bash_command=command, dag=dag, **arguments)


tree = bash("tree", "sleep 6001." + NUMBER + " & sleep 6002." + NUMBER + " & wait")
bash(
    "ignores_term",
    'bash -c \'trap "" TERM; while true; do sleep 6003.' + NUMBER + "; done' ; sleep 60",
)
bash(
    "daemonised",
    "setsid nohup sleep 6004." + NUMBER + " > /dev/null 2>&1 & sleep 6005." + NUMBER,
)
bash(
    "retries_left",
    "sleep 6006." + NUMBER,
    retries=2,
    retry_delay=datetime.timedelta(seconds=2),
)
bash("already_done", "true")
bash("never_started", "true").set_upstream(tree)

docker_url = os.environ.get("DAGSTOP_TESTBED_DOCKER_URL")
if docker_url:
    try:
        from airflow.providers.docker.operators.docker import DockerOperator

        own = {"mount_tmp_dir": False}
    except ImportError:
        from airflow.operators.docker_operator import DockerOperator

        own = {}
    DockerOperator(
        task_id="container",
        image="dagstop-test",
        command="sleep 6007." + NUMBER,
        docker_url=docker_url,
        network_mode="none",
        dag=dag,
        **own,
    )
