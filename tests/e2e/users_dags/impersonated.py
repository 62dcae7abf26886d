"""Tasks that run as another user than Airflow; loads on 2.x and 3.x.

What is Python leaves a file of its name and pid in `marks`; what sleeps has the digits of its run in how
long it does.
"""

import datetime
import multiprocessing
import os
import time

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    from airflow.operators.bash import BashOperator
    from airflow.operators.python import PythonOperator

N = "{{ run_id.rpartition('_')[2] }}"
MARKS = os.path.join(os.environ["AIRFLOW_HOME"], "marks")


def mark(name):
    with open(os.path.join(MARKS, f"{name}-{os.getpid()}"), "a") as file:
        file.write("once\n")


def work(name):
    mark(name)
    time.sleep(3600)


def pool(run_id):
    number = run_id.rpartition("_")[2]
    with multiprocessing.Pool(2) as workers:
        workers.map(work, [f"pool-{number}", f"pool-{number}"], chunksize=1)


def daemon(run_id):
    number = run_id.rpartition("_")[2]
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work(f"daemon-{number}")
        os._exit(0)
    os.wait()
    work(f"leaves-{number}")


class Cleans(PythonOperator):
    """Its clean-up takes a while, and may be asked for once only."""

    def on_kill(self):
        mark(f"asked-{self.op_args[0]}")
        time.sleep(2)
        mark(f"cleaned-{self.op_args[0]}")
        os._exit(1)


with DAG("impersonated", start_date=datetime.datetime(2024, 1, 1), schedule=None, catchup=False):
    user = os.environ["DAGSTOP_TESTBED_TASK_USER"]
    PythonOperator(task_id="pool", python_callable=pool, run_as_user=user, retries=2)
    PythonOperator(task_id="daemon", python_callable=daemon, run_as_user=user)
    Cleans(task_id="cleans", python_callable=work, op_args=[f"cleans-{N}"], run_as_user=user)
    BashOperator(
        task_id="deaf",
        bash_command=f"trap '' TERM; sleep 6071.{N} & setsid nohup sleep 6072.{N} > /dev/null 2>&1 & sleep 6073.{N}; true",
        run_as_user=user,
    )
