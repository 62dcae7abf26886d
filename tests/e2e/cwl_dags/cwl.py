"""The workflow beside this file, as CWL-Airflow of either generation makes a DAG of it."""

import os

import airflow  # noqa: F401  (Airflow reads only files that name it and a DAG)

WORKFLOW = os.path.join(os.path.dirname(os.path.abspath(__file__)), "two_steps.cwl")

try:
    from cwl_airflow.extensions.cwldag import CWLDAG

    dag = CWLDAG(workflow=WORKFLOW, dag_id="cwl")
except ImportError:
    from cwl_airflow_parser import CWLDAG, CWLJobDispatcher, CWLJobGatherer

    dag = CWLDAG(cwl_workflow=WORKFLOW, dag_id="cwl")
    dag.create()
    dag.add(CWLJobDispatcher(dag=dag), to="top")
    dag.add(CWLJobGatherer(dag=dag), to="bottom")
