"""What must live on beside dagstop: tasks that run again, and one that fails by itself.

As in `matrix.py`, each process carries the digits of its run in how long it sleeps.
"""

import datetime
import os
import time

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:
    try:
        from airflow.operators.bash import BashOperator
    except ImportError:
        from airflow.operators.bash_operator import BashOperator

N = "{{ number(run_id) }}"
MARKS = os.path.join(os.environ["AIRFLOW_HOME"], "marks")


def number(run_id):
    return "".join(c for c in run_id if c.isdigit())


def mark(context, what):
    try:
        os.makedirs(MARKS)
    except OSError:  # another task made it
        pass
    open(os.path.join(MARKS, number(context["dag_run"].run_id) + "-" + what), "a").close()


def slow_callback(context):
    mark(context, "callback_begun")
    time.sleep(4)  # longer than a kill takes, were it one
    mark(context, "callback_done")


arguments = {
    "start_date": datetime.datetime(2024, 1, 1),
    "catchup": False,
    "user_defined_macros": {"number": number},
}
schedule = "schedule" if hasattr(BashOperator, "partial") else "schedule_interval"
again = DAG("again", **dict(arguments, **{schedule: None}))
breaks = DAG("breaks", **dict(arguments, **{schedule: None}))
# Airflow itself ends the second only: the first is left to dagstop
command = "setsid nohup sleep 6031." + N + " > /dev/null 2>&1 & sleep 6030." + N
BashOperator(task_id="long", bash_command=command, dag=again)
BashOperator(task_id="breaks", bash_command="exit 1", on_failure_callback=slow_callback, dag=breaks)
