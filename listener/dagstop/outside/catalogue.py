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
    """The schema of Airflow's tables; the search_path is pinned from then on (see `pin`).

    Raises NotAirflowError where they are nowhere, or in several schemas off the search_path.
    """
    if found := ask(connection, "airflow_schema"):
        return pin(connection, str(found[0][0]))
    # Airflow's own setting sql_alchemy_schema needs no search_path
    schemas = [str(row[0]) for row in ask(connection, "airflow_schemas_anywhere")]
    if len(schemas) == 1:
        return pin(connection, schemas[0])
    server = ask(connection, "server")[0]
    if schemas:
        raise NotAirflowError(
            f"Database {server.database!r} holds Airflow's tables in several schemas "
            f"({', '.join(schemas)}): name the one with ?options=-csearch_path%3DSCHEMA "
            "at the end of the URL"
        )
    raise NotAirflowError(
        f"Database {server.database!r} is not Airflow's: no dag_run, task_instance and "
        f"alembic_version on its search_path ({server.search_path}); check the URL, or create "
        "Airflow's tables first"
    )


def pin(connection: Connection, schema: str = "") -> str:
    """Pin the transaction's search_path to pg_catalog; only our own files see Airflow's `schema` besides."""
    ask(connection, "pin", schema=schema)
    return schema


def revision(connection: Connection) -> str | None:
    """The revision of dagstop's schema; None where it has no version table, or an empty one."""
    if not ask(connection, "version_table")[0][0]:
        return None
    found = ask(connection, "revision")
    return str(found[0][0]) if found else None


def schema_exists(connection: Connection) -> bool:
    """Whether there is a schema dagstop, whole or not."""
    return bool(ask(connection, "schema_owner"))


def missing_objects(connection: Connection) -> frozenset[str]:
    """The tables, views and functions of this release that are not there."""
    return sql.objects() - {str(row[0]) for row in ask(connection, "objects")}


def belongs_to_another(connection: Connection) -> bool:
    """Whether functions of dagstop have another owner than Airflow's tables, and so perhaps more rights."""
    return bool(ask(connection, "belongs_to_another")[0][0])


def broken_triggers(connection: Connection, schema: str) -> tuple[str, ...]:
    """The triggers that are missing, disabled, outdated or attached elsewhere, as `table.trigger`.

    Needs all of dagstop's objects.
    """
    settings = {row.name: row.value for row in ask(connection, "trigger_settings")}
    expected = {"airflow_schema": schema, "triggers_checksum": sql.checksum(sql.TRIGGERS_FILE)}
    return tuple(
        str(row.name)
        for row in ask(connection, "trigger_health")
        if row.status != "installed" or settings != expected
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
