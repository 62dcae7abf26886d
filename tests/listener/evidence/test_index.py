"""The index finds what may concern an order without looking at everything."""

from __future__ import annotations

import pytest

from dagstop.evidence.index import Index
from dagstop.model import Label
from tests.support.fake_proc import DATE, UUID, order, row

LABELS = {
    "run": Label(dag_id="d", run_id="r"),
    "date": Label(dag_id="d", logical_date=DATE),
    "both": Label(dag_id="d", run_id="r", logical_date=DATE),
    "uuid": Label(ti_id=UUID),
    "other run": Label(dag_id="d", run_id="s"),
    "other dag": Label(dag_id="e", run_id="r", logical_date=DATE),
    "no run": Label(dag_id="d", task_id="t"),
    "none": None,
}


def found(**more: object) -> list[str]:
    return list(Index(LABELS, LABELS.__getitem__).of(order(**more)))


def test_by_run_and_by_date_each_once() -> None:
    assert sorted(found()) == ["both", "date", "run"]


def test_by_run_alone() -> None:
    assert sorted(found(logical_date=None)) == ["both", "run"]


def test_an_order_of_a_run_without_a_name_is_not_of_all_that_name_none() -> None:
    """Airflow 1.10 has such runs."""
    assert sorted(found(run_id=None)) == ["both", "date"]


@pytest.mark.parametrize("rows", ["targets", "present"])
def test_by_uuid(rows: str) -> None:
    assert found(dag_id="x", **{rows: (row(ti_id=UUID),)}) == ["uuid"]


def test_by_a_run_id_that_is_a_date() -> None:
    assert sorted(found(run_id=DATE.isoformat(), logical_date=None)) == ["both", "date"]
