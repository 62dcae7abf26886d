"""The policy in every Airflow that dagstop serves: what children and containers were given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.real_airflow import probe, problems
from tests.testbed import airflows


@pytest.mark.e2e
@pytest.mark.parametrize("version", airflows.RECIPES)
def test_every_child_and_container_is_tagged(version: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    python = airflows.build(version) / "bin" / "python"
    assert problems(probe(python, home)) == []
