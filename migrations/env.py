"""Alembic's entry point: dagstop's own chain, with its version table in dagstop's own schema.

Called from dagstop.install only, which hands over an open connection, so Airflow's `alembic_version` is
never read or written.
"""

from __future__ import annotations

from alembic import context

from dagstop.migrations.apply import run

VERSION_TABLE = "alembic_version"
VERSION_SCHEMA = "dagstop"
# not "if not exists", which asks for the right to create one even where there is one
CREATE_SCHEMA = f"""do $$ begin
    if to_regnamespace('{VERSION_SCHEMA}') is null then
        create schema {VERSION_SCHEMA};
    end if;
end $$;"""


def migrate() -> None:
    """Run the revisions that Alembic was asked for."""
    connection = context.config.attributes["connection"]
    run(connection, CREATE_SCHEMA)
    context.configure(
        connection=connection,
        version_table=VERSION_TABLE,
        version_table_schema=VERSION_SCHEMA,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


migrate()
