"""Stage 2: rows of dagstop.open_orders -> StopOrder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagstop.airflow_names import parse_date
from dagstop.model import StopOrder, Target


def read_order(row: Mapping[str, Any]) -> StopOrder:
    """One row of dagstop.open_orders or dagstop.would_be_order (sql/queries.sql)."""
    return StopOrder(
        id=row["id"],
        kind=row["kind"],
        dag_id=row["dag_id"],
        run_id=row["run_id"],
        logical_date=row["logical_date"],
        task_id=row["task_id"],
        map_index=row["map_index"],
        self_reported=bool(row["self_reported"]),
        created_at=row["created_at"],
        db_now=row["db_now"],
        settle_seconds=float(row["settle_seconds"]),
        targets=tuple(_target(item, "state_before") for item in row["targets"] or ()),
        present=tuple(_target(item, "state") for item in row["present"] or ()),
        begun=row.get("begun"),
        hands_off=row.get("hands_off"),
        grace_seconds=None if row.get("grace_seconds") is None else float(row["grace_seconds"]),
        state_after=row.get("state_after") or "failed",
        closed_at=row.get("closed_at"),
        finished_spared=row.get("finished_tasks") == "spare",
        asked_by={name: row.get(name) for name in ("session_user_name", "application_name")},
    )


def _target(item: Mapping[str, Any], state: str) -> Target:
    index = item.get("map_index")
    return Target(
        task_id=item["task_id"],
        map_index=-1 if index is None else index,
        try_number=item.get("try_number"),
        job_id=item.get("job_id"),
        ti_id=item.get("ti_id"),
        hostname=item.get("hostname"),
        pid=item.get("pid"),
        state=item.get(state),
        started_at=parse_date(item.get("started_at")),
        released_at=parse_date(item.get("released_at")),
    )
