"""Every descendant of what the testbed started, also after its parents died; and how to end them all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from tests.testbed import proc

GONE_SECONDS = 10.0


class StillAliveError(RuntimeError):
    """A process is still alive after SIGKILL."""


class Family:
    """The descendants of `roots` (pids of session leaders), remembered from look to look."""

    def __init__(self) -> None:
        self._roots: set[int] = set()
        self._seen: dict[tuple[int, int], proc.Process] = {}

    def adopt(self, pid: int) -> None:
        """Count `pid`, its session and all its descendants in."""
        self._roots.add(pid)
        self.members()

    def members(self) -> list[proc.Process]:
        """Everyone alive now. Call it before an accident that takes parents away."""
        everyone = proc.everyone()
        alive = {p.identity for p in everyone}
        old = [p for identity, p in self._seen.items() if identity in alive]
        sessions = (self._roots | {p.session for p in old}) - {os.getsid(0)}
        found = proc.descendants({p.pid for p in old}, sessions, everyone)
        self._seen = {p.identity: p for p in found}
        return [p for p in found if p.state != "Z" and p.pid != os.getpid()]

    def kill(self, wanted: Callable[[proc.Process], bool] = lambda _: True) -> list[proc.Process]:
        """SIGKILL the members that are `wanted`, and give them once they are dead."""
        killed: dict[tuple[int, int], proc.Process] = {}
        while batch := [p for p in self.members() if wanted(p)]:
            # stopped first: one that sees another die would write states or start successors
            while fresh := [p for p in batch if p.identity not in killed]:
                proc.send(fresh, signal.SIGSTOP)
                killed.update({p.identity: p for p in fresh})
                batch = [p for p in self.members() if wanted(p)]
            proc.kill(killed.values())
            _wait_gone(list(killed.values()))
        return sorted(killed.values())


def _wait_gone(processes: Sequence[proc.Process]) -> None:
    end = time.monotonic() + GONE_SECONDS
    while left := [p for p in processes if p.alive() or _ending(p.pid)]:
        if time.monotonic() > end:
            raise StillAliveError(f"still alive: {left}")
        time.sleep(0.01)


def _ending(pid: int) -> bool:
    """Whether threads of a killed process are still on their way out: it is a zombie before that."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False
