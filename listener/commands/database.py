"""`dagstop install` and `dagstop uninstall`."""

from __future__ import annotations

import click

from dagstop.commands.common import database_option, url_of
from dagstop.outside.database_url import redact


@click.command()
@database_option
@click.option("--sql", "as_sql", is_flag=True, help="Print the script for a DBA; change nothing.")
def install(database_url: str | None, as_sql: bool) -> None:
    """Put triggers, tables and functions into Airflow's database.

    All of it lives in a schema of its own, `dagstop`, but for four triggers on dag_run and
    task_instance. Run it again at any time: it changes nothing where all is in place, and heals
    what an upgrade of Airflow has dropped.
    """
    from dagstop import install as installing

    if as_sql:
        click.echo(installing.install_script())
        return
    url = url_of(database_url)
    done = installing.install(url)
    where = redact(url)
    if not done.changed:
        click.echo(f"dagstop {done.revision} is already installed in {where}; nothing changed")
        return
    click.echo(f"dagstop {done.revision} is installed in {where}, Airflow schema {done.airflow_schema}")
    if done.triggers:
        click.echo(f"attached: {', '.join(done.triggers)}")
    click.echo("next: `dagstop listen` on every host that runs tasks, then `dagstop check`")


@click.command()
@database_option
@click.option("--sql", "as_sql", is_flag=True, help="Print the script for a DBA; change nothing.")
def uninstall(database_url: str | None, as_sql: bool) -> None:
    """Take everything of dagstop's out of the database, its history included."""
    from dagstop import install as installing

    if as_sql:
        click.echo(installing.uninstall_script())
        return
    url = url_of(database_url)
    found = installing.uninstall(url)
    said = "is gone from" if found else "was not installed in"
    click.echo(f"dagstop {said} {redact(url)}")
