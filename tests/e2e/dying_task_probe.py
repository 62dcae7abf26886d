"""Runs inside a real Airflow (2.0 on): a task dies whose process holds a copy of its run from when it began.

Between Airflow's last look at the run and its write, another session marks the run failed. Prints what came of it.
"""

import json
from inspect import signature

from airflow.models import DagRun, TaskInstance
from airflow.settings import Session, engine
from airflow.utils import timezone
from marking_probe import NAME, make_run
from sqlalchemy import text


def main():
    dag = make_run(Session())
    session = Session()
    schedule()
    ti = the_task(session)
    assert ti.dag_run  # only some releases load it with the row
    ti.task = dag.get_task("running")
    session.expunge_all()
    session.close()
    schedule()
    if looks_again():
        look = DagRun.refresh_from_db

        def look_a_moment_too_early(self, *arguments, **named):
            look(self, *arguments, **named)
            fail_the_run()

        DagRun.refresh_from_db = look_a_moment_too_early
    else:
        fail_the_run()
    ti.handle_failure("died", test_mode=False)
    ti = the_task(Session())
    print("ANSWER " + json.dumps({"run": str(ti.dag_run.state), "task": str(ti.state)}))


def looks_again():
    """Since 2.10.5 it looks at the run once more before it writes."""
    save = getattr(TaskInstance, "save_to_db", None)
    return save is not None and "refresh_dag" in signature(save).parameters


def the_task(session):
    return session.query(TaskInstance).filter_by(dag_id=NAME, task_id="running").one()


def schedule():
    """A scheduler looks at the run."""
    session = Session()
    session.query(DagRun).filter_by(dag_id=NAME).one().last_scheduling_decision = timezone.utcnow()
    session.commit()
    session.close()


def fail_the_run():
    with engine.connect() as connection, connection.begin():
        connection.execute(text("update dag_run set state = 'failed' where dag_id = :dag"), {"dag": NAME})


main()
