"""What a container of Airflow runs; loads on 2.x and 3.x. What sleeps has the digits of its run in how long."""

import datetime
import subprocess
import time

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    from airflow.operators.bash import BashOperator
    from airflow.operators.python import PythonOperator

N = "{{ run_id.rpartition('_')[2] }}"


def work(run_id):
    subprocess.Popen(["sleep", f"6105.{run_id.rpartition('_')[2]}"])
    time.sleep(3600)


with DAG(
    "contained",
    schedule=None,
    start_date=datetime.datetime(2024, 1, 1),
    catchup=False,
    default_args={"retries": 1, "retry_delay": datetime.timedelta(seconds=1)},
) as dag:
    BashOperator(
        task_id="bash",
        bash_command=f"sleep 6101.{N} & setsid nohup sleep 6102.{N} & env -i sleep 6103.{N} &"
        f" trap '' TERM; sleep 6104.{N}; wait",
    )
    PythonOperator(task_id="python", python_callable=work, op_kwargs={"run_id": "{{ run_id }}"})
