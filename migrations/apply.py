"""Runs dagstop's SQL files, in a migration or outside of one."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Connection

from dagstop import sql


def apply(name: str) -> None:
    """Run `sql/<name>.sql` in the migration under way, or print it in offline mode."""
    context = op.get_context()
    if context.as_sql:
        # printed as it stands: Alembic's own way would double every % and read `:word` as a parameter
        context.impl.static_output(sql.script(name))
        return
    assert context.connection is not None
    run(context.connection, sql.script(name))


def run(connection: Connection, script: str) -> None:
    """Run statements in the connection's transaction; % and :word in them mean themselves.

    They find Airflow's tables, whose schema `catalogue.pin` has noted; Alembic's own statements do not.
    """
    script = f"{_WITH_AIRFLOW}\n{script}\n{_WITHOUT}"
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


_WITH_AIRFLOW = """
select set_config('search_path', concat_ws(', ', 'pg_catalog, pg_temp',
    quote_ident(nullif(current_setting('dagstop.airflow_schema', true), ''))), true);
"""
_WITHOUT = "select set_config('search_path', 'pg_catalog, pg_temp', true);"
