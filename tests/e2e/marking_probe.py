"""Runs inside a real Airflow (Python 3.6 on): fails a run as the web server does, and prints what Airflow answers.

Its one argument is the DAG's id. It prints the names of the altered task instances and, since Airflow 3,
of the killed ones, then the state of each.
"""

import json
import sys

import airflow
from airflow.models import TaskInstance
from airflow.settings import Session
from airflow.utils import timezone

NAME = sys.argv[1]
GENERATION = int(airflow.__version__.split(".")[0])
DATE = timezone.datetime(2024, 1, 1)
STATES = {"running": "running", "queued": "queued", "none": None, "done": "success"}

if GENERATION == 3:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
elif GENERATION == 2:
    from airflow import DAG
    from airflow.operators.empty import EmptyOperator
else:
    from airflow import DAG
    from airflow.operators.dummy_operator import DummyOperator as EmptyOperator
try:
    from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
except ImportError:
    from airflow.api.common.experimental.mark_tasks import set_dag_run_state_to_failed


def make_run(session):
    """A running run of four tasks; its DAG."""
    dag = DAG(
        NAME, start_date=DATE, **({"schedule_interval": None} if GENERATION == 1 else {"schedule": None})
    )
    for task in STATES:
        EmptyOperator(task_id=task, dag=dag)
    dates = {"execution_date": DATE}
    model = {"dag_id": NAME}
    if GENERATION == 3:
        from airflow.models.dagbundle import DagBundleModel

        session.merge(DagBundleModel(name="b"))
        session.commit()
        model.update(bundle_name="b", fileloc="x")
    if GENERATION > 1:
        from airflow.models.dag import DagModel
        from airflow.utils.types import DagRunType

        session.merge(DagModel(**model))
        session.commit()
        dates.update(data_interval=(DATE, DATE), run_type=DagRunType.MANUAL)
    if GENERATION == 3:
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.serialization.serialized_objects import LazyDeserializedDAG
        from airflow.utils.types import DagRunTriggeredByType

        SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name="b", session=session)
        session.commit()
        dag = SerializedDagModel.get_dag(NAME, session=session)
        dates.update(
            logical_date=dates.pop("execution_date"), run_after=DATE, triggered_by=DagRunTriggeredByType.TEST
        )
    run = dag.create_dagrun(run_id="run", state="running", session=session, **dates)
    session.commit()
    for ti in run.get_task_instances(session=session):
        ti.state = STATES[ti.task_id]
        session.merge(ti)
    session.commit()
    session.close()
    return dag


def main():
    dag = make_run(Session())
    session = Session()
    run = {"execution_date": DATE} if GENERATION == 1 else {"run_id": "run"}
    answer = set_dag_run_state_to_failed(dag=dag, commit=True, session=session, **run)
    session.commit()
    altered, killed = answer if isinstance(answer, tuple) else (answer, [])
    said = {
        "altered": sorted(ti.task_id for ti in altered),
        "killed": sorted(ti.task_id for ti in killed),
        "states": {
            ti.task_id: None if ti.state is None else str(ti.state)
            for ti in Session().query(TaskInstance).filter(TaskInstance.dag_id == NAME)
        },
    }
    print("ANSWER " + json.dumps(said))


if __name__ == "__main__":
    main()
