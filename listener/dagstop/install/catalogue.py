"""What an install asks of the database: which Airflow is there, what of dagstop, and what it may do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from dagstop import sql
from dagstop.errors import MissingRightError, NotAirflowError, ServerError

OLDEST_SERVER = 120000  # PostgreSQL 12


def ask(connection: Connection, name: str, **parameters: Any) -> list[Row[Any]]:
    """The rows of a named query of catalogue.sql."""
    return list(connection.exec_driver_sql(sql.queries("catalogue")[name], parameters).all())


def require_server(connection: Connection) -> None:
    """Raise ServerError where the server is too old, or a replica."""
    server = ask(connection, "server")[0]
    if server.number < OLDEST_SERVER:
        raise ServerError(f"This server is PostgreSQL {server.name}: dagstop needs 12 or later")
    if server.replica:
        raise ServerError("This server is a standby, which cannot be written to: connect to the primary")


def airflow_schema(connection: Connection) -> str:
    """The schema of Airflow's tables; our own files find them there from then on.

    Raises NotAirflowError where they are nowhere, or in several schemas off the search_path.
    """
    noted = ask(connection, "airflow_schema")[0]
    if noted.found:
        return str(noted.found)
    # Airflow's own setting sql_alchemy_schema needs no search_path
    schemas = [str(row[0]) for row in ask(connection, "airflow_schemas_anywhere")]
    if len(schemas) == 1:
        ask(connection, "set_airflow_schema", schema=schemas[0])
        return schemas[0]
    database = ask(connection, "server")[0].database
    if schemas:
        raise NotAirflowError(
            f"Database {database!r} holds Airflow's tables in several schemas "
            f"({', '.join(schemas)}): name the one with ?options=-csearch_path%3DSCHEMA "
            "at the end of the URL"
        )
    raise NotAirflowError(
        f"Database {database!r} is not Airflow's: no dag_run, task_instance and "
        f"alembic_version on its search_path ({noted.search_path}); check the URL, or create "
        "Airflow's tables first"
    )


def revision(connection: Connection) -> str | None:
    """The revision of dagstop's schema; None where it has no version table, or an empty one."""
    if not ask(connection, "version_table")[0][0]:
        return None
    found = ask(connection, "revision")
    return str(found[0][0]) if found else None


def schema_exists(connection: Connection) -> bool:
    """Whether there is a schema dagstop, whole or not."""
    return bool(ask(connection, "schema_owner"))


def lacking(connection: Connection, schema: str) -> tuple[Row[Any], ...]:
    """What is not as an install leaves it, triggers on Airflow's tables aside: `kind` and `what`.

    The role only if this session may create one.
    """
    found = ask(connection, "lacking", schema=schema, **sql.whole())
    may_create = ask(connection, "may_create_roles")[0][0]
    return tuple(row for row in found if may_create or row.kind != "role")


def broken_triggers(connection: Connection, schema: str) -> tuple[str, ...]:
    """The triggers that are missing, disabled, outdated or attached elsewhere, as `table.trigger`.

    Needs dagstop's table of settings.
    """
    settings = {row.name: row.value for row in ask(connection, "trigger_settings")}
    noted = settings == {"airflow_schema": schema, "triggers_checksum": sql.checksum(sql.TRIGGERS_FILE)}
    found = {
        (row.on_table, row.name): (row.function, row.comment)
        for row in ask(connection, "triggers", schema=schema)
        if row.enabled
    }
    return tuple(
        f"{table}.{name}"
        for (table, name), wanted in sql.triggers().items()
        if not noted or found.get((table, name)) != wanted
    )


def require_install_rights(connection: Connection, schema: str) -> None:
    """Raise MissingRightError, before anything is locked, that says which right is missing on what."""
    role = ask(connection, "server")[0].role
    for table in ask(connection, "table_owners"):
        if not table.owned:
            raise MissingRightError(
                f"Role {role!r} does not own table {schema}.{table.name}: "
                f"run this as its owner {table.owner!r}, or as a superuser"
            )
    if schema_exists(connection):
        require_schema_rights(connection)
    elif not ask(connection, "may_create_schema")[0][0]:
        database = ask(connection, "server")[0].database
        raise MissingRightError(
            f"Role {role!r} may not create a schema: have a superuser run "
            f'GRANT CREATE ON DATABASE "{database}" TO "{role}"'
        )


def require_schema_rights(connection: Connection) -> None:
    """Raise MissingRightError where schema dagstop belongs to somebody else."""
    for schema in ask(connection, "schema_owner"):
        if not schema.owned:
            role = ask(connection, "server")[0].role
            raise MissingRightError(
                f"Role {role!r} does not own schema dagstop: "
                f"run this as its owner {schema.owner!r}, or as a superuser"
            )
