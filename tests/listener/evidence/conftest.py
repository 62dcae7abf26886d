"""A fake /proc and a watch on it. Properties run the same examples each time, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagstop.evidence.watch import Watch
from tests.support.fake_proc import FakeEvents, FakeProc, watch_of


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


@pytest.fixture
def events(proc: FakeProc) -> FakeEvents:
    return FakeEvents(proc)


@pytest.fixture
def watch(proc: FakeProc) -> Watch:
    return watch_of(proc)
