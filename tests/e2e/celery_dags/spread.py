"""One run on two workers: each task has the queue of its host, and sleeps with the digits of its run."""

import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

N = "{{ run_id.rpartition('_')[2] }}"

with DAG("spread", start_date=datetime.datetime(2024, 1, 1), schedule=None, catchup=False):
    for number in (1, 2):
        BashOperator(
            task_id=f"on_w{number}",
            queue=f"w{number}",
            bash_command=f"setsid nohup sleep 608{number}.{N} > /dev/null 2>&1 & trap '' TERM; sleep 609{number}.{N}; true",
            retries=2,
        )
