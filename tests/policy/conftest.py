"""The policy file as a module, and the promise that no test of it leaves a variable behind."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator

import pytest

from tests.policy.operators import HOME, TAGS, load


def environ() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}


@pytest.fixture(autouse=True)
def environ_stays() -> Iterator[None]:
    before = environ()
    yield
    assert environ() == before


@pytest.fixture
def module(environ_stays: None, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A new copy of the policy, in a process that carries no tag yet."""
    for name in [*TAGS, "AIRFLOW_CTX_LOGICAL_DATE", "SUDO_USER"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", HOME)
    return load()
