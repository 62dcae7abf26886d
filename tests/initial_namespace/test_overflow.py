"""What does not fit into the kernel's queue is missed, and everything is looked at once."""

from __future__ import annotations

import os
import socket

import pytest

from dagstop.evidence.watch import Watch
from dagstop.host.process_events import ProcessEvents, Untold
from dagstop.host.procfs import ProcFS

pytestmark = pytest.mark.initial_namespace
_SO_RCVBUFFORCE = 33


def test_a_full_queue_is_followed_by_one_look_at_everything(
    initial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not initial:
        with pytest.raises(Untold):
            ProcessEvents()
        return
    events = ProcessEvents()
    watch = Watch(ProcFS(), trusted_uids=frozenset, own_pid=os.getpid(), events=events)
    watch.look()
    looks: list[bool] = []
    look = watch.look
    monkeypatch.setattr(watch, "look", lambda: looks.append(True) or look())
    events._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1)  # the kernel makes some 2 kB of it
    for _ in range(200):
        with pytest.raises(OSError):
            os.posix_spawn("/dev/null/none", ["none"], {})  # it forks, and has nothing to execute
    events._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    for _ in range(3):
        watch.tick()
    assert looks == [True] and events.gaps == 1 and events.lost > 0
    assert [gap.why for gap in watch.gaps.all] == ["events of the kernel were lost"]
    events.close()
