"""`dagstop install` and `dagstop uninstall`."""

from __future__ import annotations

import click

import dagstop
from dagstop.commands.common import database_option, url_of
from dagstop.database.url import redact

sql_option = click.option(
    "--sql", "as_sql", envvar="DAGSTOP_SQL", is_flag=True, help="Print the script for a DBA; change nothing."
)


@click.command()
@database_option
@sql_option
@click.option("--heal", is_flag=True, help="Only attach lost triggers again; do not install or upgrade.")
@click.option(
    "--published",
    is_flag=True,
    help="Go on although a publication FOR ALL TABLES would include dagstop's tables.",
)
def install(database_url: str | None, as_sql: bool, heal: bool, published: bool) -> None:
    """Put triggers, tables and functions into Airflow's database.

    Upgrades those of an earlier release. Everything is in its own schema, `dagstop`, except for the
    triggers on dag_run and task_instance. You can run it again at any time. It changes nothing if
    everything is in place, and restores what an upgrade of Airflow, a restore or a DROP has removed:
    triggers, tables, functions, owners, grants. The script of --sql is the same for a first install and
    for an upgrade. Open orders, settings and grants are kept.
    """
    from dagstop import install as installing

    if as_sql and heal:
        raise click.UsageError("--sql and --heal exclude each other: the script heals too")
    if as_sql:
        click.echo(installing.install_script(published=published))
        return
    url = url_of(database_url)
    done = installing.heal(url) if heal else installing.install(url, published=published)
    where, release = redact(url), f"dagstop {dagstop.__version__} (schema {done.revision})"
    if not done.changed:
        click.echo(f"{release} is already installed in {where}; nothing changed")
        return
    if done.healed:
        click.echo(f"repaired in {where}: {', '.join(done.healed)}")
        return
    if done.before not in (None, done.revision):
        click.echo(f"upgraded from schema {done.before} to {release} in {where}")
        click.echo(
            "next: upgrade and restart the listeners, one by one; the old ones keep working until then"
        )
        return
    click.echo(f"{release} is installed in {where}, Airflow schema {done.airflow_schema}")
    click.echo("next: `dagstop listen` on every host that runs tasks, then `dagstop check`")


@click.command()
@database_option
@sql_option
@click.option("--cascade", is_flag=True, help="Also drop objects of others that depend on dagstop's.")
def uninstall(database_url: str | None, as_sql: bool, cascade: bool) -> None:
    """Remove dagstop from the database, with its history.

    If views or other objects of yours depend on dagstop's, it names them and changes nothing.
    """
    from dagstop import install as installing

    if as_sql:
        click.echo(installing.uninstall_script(cascade=cascade))
        return
    url = url_of(database_url)
    found = installing.uninstall(url, cascade=cascade)
    said = "is gone from" if found else "was not installed in"
    click.echo(f"dagstop {said} {redact(url)}")
