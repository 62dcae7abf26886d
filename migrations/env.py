"""Alembic's entry point: dagstop's own chain, with its version table in dagstop's own schema.

Called from dagstop.install only, which hands over an open connection (or asks for the SQL as text), so
Airflow's `alembic_version` is never read or written.
"""

from __future__ import annotations

from typing import Any

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
    settings: dict[str, Any] = {
        "version_table": VERSION_TABLE,
        "version_table_schema": VERSION_SCHEMA,
        "transactional_ddl": True,
    }
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", **settings)
    else:
        connection = context.config.attributes["connection"]
        run(connection, CREATE_SCHEMA)
        context.configure(connection=connection, **settings)
    with context.begin_transaction():
        if context.is_offline_mode() and context.config.attributes.get("create_schema"):
            context.get_context().impl.static_output(CREATE_SCHEMA + "\n")
        context.run_migrations()


migrate()
