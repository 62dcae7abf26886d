"""Marks that choose the Postgres server and the shape of Airflow's tables, for tests that need not run on all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testbed.postgres import binaries

one_server = pytest.mark.parametrize("server", [max(binaries())], indirect=True)
shape_1_10 = pytest.mark.parametrize("shape", ["1.10.0"], indirect=True)
shape_2 = pytest.mark.parametrize("shape", ["2.11.2"], indirect=True)
shape_3 = pytest.mark.parametrize("shape", ["3.3.2"], indirect=True)


def on_one(function: Any) -> Any:
    """One server and one shape are enough: what differs between them is tested in tests/sql."""
    return one_server(shape_2(function))
