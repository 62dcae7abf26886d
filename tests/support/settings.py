"""A setting of dagstop, written by SQL."""

from __future__ import annotations

from tests.support.airflow_tables import AirflowDatabase


def set_setting(db: AirflowDatabase, name: str, value: str) -> None:
    """Set it as `dagstop config NAME VALUE` does, and as a DBA may."""
    db.rows(
        "insert into dagstop.setting (name, value, comment) values (%s, %s, '')"
        " on conflict (name) do update set value = excluded.value",
        (name, value),
    )
