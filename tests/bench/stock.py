"""How fast stock Airflow kills a bash group through its REST API, and dagstop on the same Airflow."""

from __future__ import annotations

import time

from dagstop.install import install
from tests.bench.stage import CROWD, SHAPE, Stage, wait_for_deaths
from tests.bench.table import Found, Row, median
from tests.support.listener import Listener
from tests.support.watch import DeathWatch
from tests.testbed import airflows, proc
from tests.testbed.airflow import Airflow

TURNS = 3
SETTLE = 8.0  # the supervisor has beaten and is in its stride
DAG = "bench"
_TEXT = """
import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("bench", start_date=datetime.datetime(2024, 1, 1), schedule=None, is_paused_upon_creation=False):
    BashOperator(task_id="a", bash_command="sleep {{ run_id }} & sleep {{ run_id }}.5 & wait")
"""


def run(stage: Stage) -> Found:
    """First with dagstop absent, then with it installed in the very same database."""
    found = Found("stock")
    stage.crowd.grow(CROWD)
    home = stage.folder / "stock"
    dags = home / "dags"
    dags.mkdir(parents=True)
    (dags / "bench.py").write_text(_TEXT)
    url = stage.server.create_database()
    with Airflow(SHAPE, airflows.build(SHAPE), home, url, dags=dags) as airflow:
        airflow.initialise()
        airflow.start()
        airflow.wait_ready([DAG])
        stock = [_stock(airflow, f"{6001 + number}") for number in range(TURNS)]
        install(url)
        listener = Listener(url, home, docker_url="unix:///nowhere")
        listener.start()
        try:
            ours = [_dagstop(airflow, f"{7001 + number}") for number in range(TURNS)]
        finally:
            listener.kill()
    row = Row("a real task's group dead", "stock", median(stock), median(ours), "ms", "<= 0.01 x")
    row.met = row.dagstop <= 0.01 * median(stock)
    row.note = f"stock Airflow {SHAPE}, from its API's answer on: {min(stock):.0f} to {max(stock):.0f} ms"
    found.rows.append(row)
    return found


def _stock(airflow: Airflow, run_id: str) -> float:
    """The clock starts at the answer, which is in stock's favour: its commit was earlier."""
    with DeathWatch(_group(airflow, run_id)) as watch:
        airflow.fail_run_by_ui(DAG, run_id)
        answered = time.monotonic()
        wait_for_deaths(watch)
        return (watch.last() - answered) * 1000


def _dagstop(airflow: Airflow, run_id: str) -> float:
    with DeathWatch(_group(airflow, run_id)) as watch:
        begun = airflow.fail_run_by_sql(DAG, run_id)
        wait_for_deaths(watch)
        return (watch.last() - begun) * 1000


def _group(airflow: Airflow, run_id: str) -> list[proc.Process]:
    """Start the run; its bash and both children, once they have been there for a while."""
    airflow.trigger(DAG, run_id)
    airflow.wait_for(lambda: bool(_sleepers(run_id)), "running")
    time.sleep(SETTLE)
    sessions = {sleeper.session for sleeper in _sleepers(run_id)}
    return [one for one in proc.everyone() if one.session in sessions]


def _sleepers(run_id: str) -> list[proc.Process]:
    wanted = (["sleep", run_id], ["sleep", f"{run_id}.5"])
    found = [one for one in proc.everyone() if list(one.command) in wanted]
    return found if len(found) == len(wanted) else []
