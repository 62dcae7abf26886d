"""One DAG with every kind of task that is to be stopped; loads on every Airflow from 1.10.0 to 3.x.

Each process carries its run in its command line, as the fraction of how long it sleeps: the digits
of the run id (`sleep 6001.4711`). `tests/e2e/kinds.py` says which number is what.
"""

import datetime
import os
import time

from airflow import DAG

try:
    from airflow.sdk import task as task_decorator
except ImportError:
    try:
        from airflow.decorators import task as task_decorator
    except ImportError:
        task_decorator = None
try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    try:
        from airflow.operators.bash import BashOperator
        from airflow.operators.python import PythonOperator
    except ImportError:
        from airflow.operators.bash_operator import BashOperator
        from airflow.operators.python_operator import PythonOperator
try:
    from airflow.providers.docker.operators.docker import DockerOperator
except ImportError:
    from airflow.operators.docker_operator import DockerOperator

N = "{{ number(run_id) }}"
ENGINE = os.environ["DAGSTOP_TESTBED_DOCKER_URL"]
MARKS = os.path.join(os.environ["AIRFLOW_HOME"], "marks")
NEW = task_decorator is not None and hasattr(BashOperator, "partial")
# the tasks that a test wants; all if it names none
ONLY = set(filter(None, os.environ.get("DAGSTOP_TESTBED_TASKS", "").split(",")))


def number(run_id):
    return "".join(c for c in run_id if c.isdigit())


arguments = {
    "start_date": datetime.datetime(2024, 1, 1),
    "catchup": False,
    "dagrun_timeout": datetime.timedelta(days=7),
    "user_defined_macros": {"number": number},
}
# 1.10 applies dagrun_timeout to scheduled runs only
schedule = "@once" if os.environ.get("DAGSTOP_TESTBED_SCHEDULED") and not NEW else None
arguments["schedule" if NEW else "schedule_interval"] = schedule
dag = DAG("matrix", **arguments)


def wanted(task_id):
    return not ONLY or task_id in ONLY


def bash(task_id, command, **more):
    if wanted(task_id):
        return BashOperator(task_id=task_id, bash_command=command, dag=dag, **more)


def sleep(how_long):
    return "sleep " + how_long + "." + N


tree = bash("tree", sleep("6001") + " & " + sleep("6002") + " & wait")
bash(
    "ignores_term",
    "trap '' TERM; bash -c 'trap \"\" TERM; while :; do " + sleep("6003") + "; done'; sleep 60",
)
bash(
    "daemons",
    "setsid nohup " + sleep("6004") + " > /dev/null 2>&1 &"
    # its parent lives long enough for the listener to have seen it: what is gone by then leaves no trace
    " (setsid bash -c 'env -i " + sleep("6012") + " > /dev/null 2>&1 & sleep 20' &) ; " + sleep("6005"),
)
bash("retries_left", sleep("6006"), retries=2, retry_delay=datetime.timedelta(seconds=2))
BashOperator(task_id="already_done", bash_command="true", dag=dag)
BashOperator(task_id="never_started", bash_command="true", dag=dag).set_upstream(tree)


def loop():
    while True:
        time.sleep(1)


def mark(run_id, what):
    try:
        os.makedirs(MARKS)
    except OSError:  # another task made it
        pass
    open(os.path.join(MARKS, number(run_id) + "-" + what), "a").close()


class Marking(PythonOperator):
    """Leaves a mark when it is killed, and ends then with an error, as BashOperator does."""

    killed = False

    def execute(self, context):
        self.run_id = context["dag_run"].run_id
        mark(self.run_id, "begun")
        while not self.killed:
            time.sleep(0.1)
        raise RuntimeError("killed")

    def on_kill(self):
        mark(self.run_id, "on_kill")
        self.killed = True


def on_failure(context):
    mark(context["dag_run"].run_id, "on_failure_callback")


PythonOperator(task_id="python", python_callable=loop, dag=dag)
Marking(task_id="marks", python_callable=loop, on_failure_callback=on_failure, dag=dag)


def docker(task_id, command, **more):
    if not wanted(task_id):
        return None
    more.setdefault("auto_remove", "never" if NEW else False)
    if NEW:
        more["mount_tmp_dir"] = False
    where = {"image": "dagstop-test", "docker_url": ENGINE, "network_mode": "none", "dag": dag}
    return DockerOperator(task_id=task_id, command=command, **where, **more)


def shell(script):
    return repr(["sh", "-c", script])  # 1.10 takes a list only as a string


docker("container", sleep("6007"), auto_remove="force" if NEW else True)
# the tests give it a restart policy
docker("container_handles", shell('trap "exit 0" TERM; while :; do ' + sleep("6016") + " & wait; done"))
# the tests pause it
docker("container_paused", shell('trap "" TERM; while :; do ' + sleep("6017") + "; done"))

client = "docker -H " + ENGINE + " run --network none "
tags = "DAG_ID TASK_ID DAG_RUN_ID EXECUTION_DATE LOGICAL_DATE TRY_NUMBER MAP_INDEX".split()
passed = "".join("-e AIRFLOW_CTX_" + name + " " for name in tags)
bash(
    "docker_run",
    client + "--cidfile $PWD/cid dagstop-test " + sleep("6020") + " & "
    + client + "--name matrix_" + N + " dagstop-test " + sleep("6021") + " & "
    + client + "-d " + passed + "-e AIRFLOW_HOME dagstop-test " + sleep("6022") + "; wait",
)  # fmt: skip

if NEW and not ONLY:
    from docker.types import Mount

    BashOperator.partial(task_id="mapped", dag=dag).expand(bash_command=[sleep("6013"), sleep("6014")])
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stand_in")

    @task_decorator.docker(
        image="dagstop-test",
        docker_url=ENGINE,
        network_mode="none",
        mount_tmp_dir=False,
        environment={"NUMBER": N},
        mounts=[Mount(target="/bin/bash", source=script, type="bind", read_only=True)],
        dag=dag,
    )
    def task_docker():
        return None

    task_docker()
