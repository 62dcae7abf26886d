"""How long a connection waits before it is made again; nothing here connects or sleeps."""

from __future__ import annotations

from typing import Any

import pytest

from dagstop.database import kept_connection
from dagstop.database.kept_connection import SLOWEST_RETRY, KeptConnection


class Connection:
    def close(self) -> None:
        """Nothing was opened."""


def test_the_wait_grows_with_each_failure_and_is_short_again_after_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proven = [False] * 8 + [True, False]  # did the connection do what it is for before it failed?
    waits: list[float] = []

    def serve(connection: Any) -> None:
        if proven.pop(0):
            kept.well()
        raise OSError("lost")

    kept = KeptConnection("test", "postgresql://h/d", "test", serve)
    monkeypatch.setattr(kept_connection, "connect", lambda url, name: Connection())
    monkeypatch.setattr("dagstop.database.kept_connection.random.uniform", lambda low, high: high)
    monkeypatch.setattr(kept, "_pause", waits.append)
    while proven:
        kept._try()
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, SLOWEST_RETRY, SLOWEST_RETRY, SLOWEST_RETRY, 0.2, 0.4]
