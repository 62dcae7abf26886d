"""Runs dagstop's SQL files, in a migration or outside of one."""

from __future__ import annotations

from alembic import context, op
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from dagstop import sql


def apply_all_at_head(revision: str) -> None:
    """Run all files of an install, if `revision` is the last one.

    The files say what there has to be, and make it of whatever earlier release is there. So an upgrade
    runs them once, however many revisions it passes.
    """
    if revision == ScriptDirectory.from_config(context.config).get_current_head():
        for name in sql.INSTALL_FILES:
            apply(name)


def apply(name: str) -> None:
    """Run `sql/<name>.sql` in the migration under way."""
    connection = op.get_context().connection
    assert connection is not None
    run(connection, sql.script(name))


def run(connection: Connection, script: str) -> None:
    """Run statements in the connection's transaction; % and :word in them mean themselves.

    They find Airflow's tables, in the schema that 00_pin.sql has noted; Alembic's own statements do not.
    """
    run_as_it_is(connection, f"{_WITH_AIRFLOW}\n{script}\n{WITHOUT_AIRFLOW}")


def run_as_it_is(connection: Connection, script: str) -> None:
    """The same under whatever search_path there is."""
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


_WITH_AIRFLOW = """
select pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog, pg_temp',
    pg_catalog.quote_ident(nullif(pg_catalog.current_setting('dagstop.airflow_schema', true), ''))), true);
"""
WITHOUT_AIRFLOW = "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);"
