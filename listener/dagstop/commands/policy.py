"""`dagstop policy`."""

from __future__ import annotations

import click

from dagstop.policy import text


@click.command()
def policy() -> None:
    """Print the cluster policy, which tags containers.

    It tags containers and child processes with their task. Save it as
    $AIRFLOW_HOME/config/airflow_local_settings.py (Airflow 1.10.0 and 1.10.1: anywhere on PYTHONPATH), or
    beside it and import it from there. No DAG is edited.
    """
    click.echo(text(), nl=False)
