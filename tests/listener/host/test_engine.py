"""A Docker engine that does not answer is named in one plain line; one that answers in part serves."""

from __future__ import annotations

import gc
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

from dagstop.host.engine import Engine, EngineUnreachable


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


class NoEvents:
    """A client of an engine that answers all but the question for its events."""

    base_url = "http://engine"

    def __init__(self, answer: requests.Response | None) -> None:
        self.answer = answer

    def get(self, url: str, **_: object) -> requests.Response:
        if self.answer is None:
            raise requests.ReadTimeout(url)
        return self.answer


@pytest.mark.parametrize(
    "status,text", [(None, ""), (403, "forbidden"), (200, "no JSON"), (200, "[]"), (200, "")]
)
def test_an_engine_that_does_not_say_what_ended_is_no_trouble(status: int | None, text: str) -> None:
    answer = None
    if status is not None:
        answer = requests.Response()
        answer.status_code, answer._content = status, text.encode()
    engine = Engine("tcp://127.0.0.1:9")
    engine._client = NoEvents(answer)  # type: ignore[assignment]
    assert engine.ended(datetime.now(timezone.utc)) == []
    assert engine._client is not None  # what others ask meanwhile is not cut off


@pytest.mark.parametrize(("url", "current"), [("unix:///here", True), ("tcp://127.0.0.1:9", False)])
def test_only_a_local_engine_is_believed_that_nothing_changed(url: str, current: bool) -> None:
    """A stream that a network lost looks like one that has nothing to tell."""
    engine = Engine(url)
    engine._changed_at, engine._listed_at = 1.0, 2.0
    assert engine.current is current
    engine._changed_at = 3.0
    assert not engine.current
