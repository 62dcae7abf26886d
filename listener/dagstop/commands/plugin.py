"""`dagstop plugin`."""

from __future__ import annotations

import click

from dagstop.plugin import text


@click.command()
def plugin() -> None:
    """Print the plugin that links Airflow's pages to `dagstop page`.

    Save it as $AIRFLOW_HOME/plugins/dagstop_plugin.py on the host of Airflow's web server (3.x: API
    server), set DAGSTOP_PAGE_URL there to the page's address, and restart that server.
    """
    click.echo(text(), nl=False)
