"""A Docker engine that does not answer is named in one plain line."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from dagstop.outside.engine import Engine, EngineUnreachable


def said(url: str) -> str:
    with pytest.raises(EngineUnreachable) as caught:
        Engine(url).version()
    said = str(caught.value)
    del caught
    gc.collect()  # the SDK leaves the socket of a client that it could not make to the collector
    return said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_why_there_is_no_answer(tmp_path: Path) -> None:
    away = f"unix://{tmp_path}/docker.sock"
    assert said(away) == f"Docker engine at {away}: No such file or directory"
    assert said("tcp://127.0.0.1:9") == "Docker engine at tcp://127.0.0.1:9: Connection refused"
