"""What must live on beside dagstop: what people run again, what fails by itself, many short tasks, a backfill.

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
    time.sleep(3)  # longer than a kill takes, were it one
    mark(context, "callback_done")


def dag(name, schedule=None, **more):
    which = "schedule" if hasattr(BashOperator, "partial") else "schedule_interval"
    more.setdefault("start_date", datetime.datetime(2024, 1, 1))
    more.setdefault("max_active_runs", 200)
    return DAG(name, catchup=False, user_defined_macros={"number": number}, **dict(more, **{which: schedule}))


# Airflow itself ends the second only: the first is left to dagstop
long_command = "setsid nohup sleep 6031." + N + " > /dev/null 2>&1 & sleep 6030." + N
again = dag("again")
BashOperator(task_id="long", bash_command=long_command, dag=again)

# of which one task is tried again while its run goes on
retried = dag("retried")
soon = datetime.timedelta(seconds=1)
BashOperator(task_id="long", bash_command=long_command, retries=0, retry_delay=soon, dag=retried)
BashOperator(task_id="other", bash_command="sleep 6032." + N, dag=retried)

breaks = dag("breaks")
mail = {"email": "ops@example.org", "email_on_failure": True, "email_on_retry": False}
BashOperator(task_id="breaks", bash_command="exit 1", on_failure_callback=slow_callback, dag=breaks, **mail)

short = dag("short")
for letter in "ab":
    first = BashOperator(task_id=letter + "1", bash_command="sleep 0.2", dag=short)
    BashOperator(task_id=letter + "2", bash_command="sleep 0.2", dag=short).set_upstream(first)

# over long ago: nothing but a backfill runs it
backfilled = dag("backfilled", schedule="@daily", end_date=datetime.datetime(2024, 1, 5))
until_go = "sleep 6033." + N + " & until [ -e " + MARKS + "/go ]; do sleep 1; done; kill $!"
BashOperator(task_id="waits", bash_command=until_go, dag=backfilled)
