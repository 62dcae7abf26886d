"""RUNS runs at once for a Celery worker in a container, and one for a pod, in a queue that no worker reads.

What sleeps has the day and hour of its run in how long.
"""

import datetime
import os
import subprocess
import time

from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator
from airflow.providers.docker.operators.docker import DockerOperator

FIRST = datetime.datetime(2024, 1, 1)
RUNS = int(os.environ["DAGSTOP_TESTBED_RUNS"])
HOUR = "{{ logical_date.strftime('%Y%m%d%H') }}"


def bash(first):
    one, two, three, four = (f"sleep {first + number}.{HOUR}" for number in range(4))
    return f"{one} & setsid nohup {two} > /dev/null 2>&1 & env -i {three} & trap '' TERM; {four}; wait"


def work(hour):
    subprocess.Popen(["sleep", f"6105.{hour}"])
    time.sleep(3600)


with DAG(
    "contained",
    schedule="@daily",
    start_date=FIRST,
    end_date=FIRST + datetime.timedelta(days=RUNS - 1),
    max_active_runs=RUNS + 1,
    catchup=True,
    default_args={"retries": 1, "retry_delay": datetime.timedelta(seconds=1)},
):
    BashOperator(task_id="bash", bash_command=bash(6101))
    PythonOperator(task_id="python", python_callable=work, op_kwargs={"hour": HOUR})
    DockerOperator(
        task_id="docker",
        image="dagstop-test",
        command=f"sleep 6106.{HOUR}",
        network_mode="none",
        auto_remove="force",
        mount_tmp_dir=False,
    )

with DAG("pod", schedule="@once", start_date=FIRST):
    BashOperator(task_id="bash", bash_command=bash(6201), queue="pods", retries=1)
