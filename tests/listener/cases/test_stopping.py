"""What a case asks for is done: each action for itself, the journal before the signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from dagstop.cases.actions import Entry, Hold, Signal
from dagstop.cases.case import Case, Phase
from dagstop.cases.stopping import Stopping
from dagstop.config import ListenerConfig
from dagstop.evidence.clock import Clock
from dagstop.evidence.places import Places
from dagstop.kill.endings import Ending
from dagstop.model import Decision, Identity, Verdict
from tests.support.fake_proc import HOME, URL, FakeProc, order, process, watch_of


class Recorder:
    """In place of Endings and of Notes: writes down what is done, in order. Pid 601 cannot be signalled."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []

    def hold(self, ending: Ending) -> None:
        self.done.append(("hold", ending.process.pid))

    def stop(self, ending: Ending, *, hard: bool, before: Callable[[str], None] | None) -> None:
        if ending.process.pid == 601:
            raise MemoryError("no page left")
        if before is not None:
            before("SIGTERM")
        self.done.append(("signal", ending.process.pid))

    def process(self, _order: Any, one: Any, _verdict: Any, _sent: Any) -> None:
        self.done.append(("journal", one.pid))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def stopping(tmp_path: Any, recorder: Recorder) -> Stopping:
    proc = FakeProc(tmp_path)
    some = cast(Any, recorder)
    config = ListenerConfig(URL, (HOME,))
    return Stopping(config, proc, Clock(proc), watch_of(proc), some, some, some, some, some, Places(proc, ()))


def test_one_process_that_cannot_be_signalled_keeps_no_other_from_its_signal(
    stopping: Stopping, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    case = Case(order(), 10.0, 1000.0, False, phase=Phase.CLEAR)
    verdict = Verdict(Decision.KILL, "of the stopped run")
    actions: list[Any] = []
    for pid in (601, 602):
        ending = Ending(process(identity=Identity(pid, pid)), None)
        actions += [Hold(ending), Signal(ending, hard=False, entry=Entry(ending.process, verdict))]
    stopping._guarded(case, stopping._do, case, actions)
    assert recorder.done == [("hold", 601), ("hold", 602), ("journal", 602), ("signal", 602)]
    assert (case.trouble, case.phase) == ("MemoryError: no page left", Phase.STOPPING)
    assert caplog.text.count("order failed") == 1
    stopping._guarded(case, stopping._do, case, actions)
    assert caplog.text.count("order failed") == 1  # the same again is not said again
