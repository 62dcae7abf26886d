"""What people type in bash tasks to start containers; the DAG of tests/e2e/test_docker_typed.py.

Each container and exec is told from the others by how long it sleeps; the digits of the run are a part of
it where a run's line differs from that of the others, as one with `{{ ds }}` does.
"""

import datetime

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:
    from airflow.operators.bash import BashOperator

N = "{{ number(run_id) }}"
RUN = "docker run --network none "
SLEEP = " dagstop-test sleep "


def number(run_id):
    return "".join(c for c in run_id if c.isdigit())


dag = DAG(
    "typed",
    start_date=datetime.datetime(2024, 1, 1),
    schedule=None,
    catchup=False,
    user_defined_macros={"number": number},
)
BashOperator(task_id="attached", bash_command=RUN + SLEEP + "6081." + N, dag=dag)
lines = [
    RUN + "--rm" + SLEEP + "6082." + N,
    RUN + "-d" + SLEEP + "6083." + N,
    RUN + "-d --name typed-" + N + SLEEP + "6084." + N,
    RUN + "-d --cidfile $PWD/cid" + SLEEP + "6085." + N,
    "docker exec busy sleep 6086." + N,
    "docker exec -d busy sleep 6087." + N,
    "docker start $(docker create --network none" + SLEEP + "6088." + N + ")",
    # the same in each run
    RUN + "-d" + SLEEP + "6089",
    RUN + SLEEP + "6090",
    "sleep 6091." + N,
]
BashOperator(task_id="lines", bash_command=" & ".join(lines) + " & wait", dag=dag)
