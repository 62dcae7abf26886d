"""One process that is to die: its pidfd, the signals it got, and the moment it was seen dead.

A pid is signalled only through a handle that was opened first and compared with the start time
after: pidfd_open(2) and pidfd_send_signal(2), Linux 5.3. On older kernels the start time is
compared right before kill(2), and deaths are seen by polling.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from dagstop.host import descriptors
from dagstop.host.procfs import TICKS_PER_SECOND, ProcFS
from dagstop.model import Identity, Process

_DEAD = frozenset("ZXx?")  # a zombie is dead: it only waits for its parent

NOT_SIGNALLED = "ended before it was signalled"
"""What a report says of what was to die and did so first: by its parent's end or its task's `on_kill`."""

Sent = tuple[str, datetime]
"""The name of a signal, and when it was sent by the host's clock."""


def now() -> datetime:
    """The host's clock, aware; a report moves it to the database's clock."""
    return datetime.now(timezone.utc)


@dataclass(slots=True)
class Ending:
    """A process under at least one order. Two orders share it, so that it is signalled once."""

    process: Process
    pidfd: int | None
    signals: list[Sent] = field(default_factory=list)
    first_signal: float | None = None  # monotonic seconds
    first_tick: int | None = None  # the same moment on the scale of `Identity.start`
    killed: float | None = None  # when SIGKILL was sent, monotonic seconds
    died_at: datetime | None = None
    died: float | None = None  # the same moment in monotonic seconds
    holders: int = 0  # how many cases it is part of
    refused: str | None = None  # why a signal could not be sent; an outcome of its own

    @property
    def identity(self) -> Identity:
        return self.process.identity

    @property
    def alive(self) -> bool:
        return self.died_at is None


class Endings:
    """All processes that this listener is ending, by identity; owns their pidfds."""

    def __init__(self, proc: ProcFS, *, dry_run: bool = False) -> None:
        self._proc = proc
        self._dry_run = dry_run
        self._by_identity: dict[Identity, Ending] = {}
        self._by_pidfd: dict[int, Ending] = {}
        self._polled: dict[Identity, Ending] = {}  # those without a pidfd
        self._poll = select.epoll()

    def fileno(self) -> int:
        """Readable when at least one process with a pidfd has died."""
        return self._poll.fileno()

    def take(self, process: Process) -> Ending | None:
        """The ending of a process that was looked at a moment ago; None if it is dead by now."""
        known = self._by_identity.get(process.identity)
        if known is not None:
            return known if known.alive else None
        pidfd = descriptors.of_process(process.pid)
        if not self._is(process.identity) or (pidfd is not None and _ended(pidfd)):
            if pidfd is not None:
                os.close(pidfd)
            return None
        ending = Ending(process, pidfd)
        if pidfd is None and self.state(ending) in _DEAD:
            return None
        self._by_identity[process.identity] = ending
        if pidfd is None:
            self._polled[process.identity] = ending
        else:
            self._by_pidfd[pidfd] = ending
            self._poll.register(pidfd, select.EPOLLIN)
        return ending

    def stop(self, ending: Ending, *, hard: bool, before: Callable[[str], None] | None = None) -> None:
        """SIGTERM, or SIGKILL if `hard` or if SIGTERM is ignored (SigIgn): waiting would be idle.

        before: told the name of the signal before that is sent.
        """
        if hard:
            if ending.killed is None:
                ending.killed = time.monotonic()
                self._send(ending, signal.SIGKILL, before)
            return
        if ending.signals:  # a handler that cleans up may well ignore a second SIGTERM: it has its grace
            if ending.killed is None and ending.process.state == "T":
                self._send(ending, signal.SIGCONT)  # stopped since
            return
        masks = self._proc.signal_masks(ending.process.pid)
        if masks is not None and masks.ignores_sigterm:
            self.stop(ending, hard=True, before=before)
            return
        self._send(ending, signal.SIGTERM, before)
        if masks is not None and masks.stopped:  # a stopped process sees SIGTERM only then
            self._send(ending, signal.SIGCONT)

    def resume(self, ending: Ending, sent: Sequence[Sent]) -> None:
        """Take over what a listener before this one sent, or was about to send when it was cut off.

        Who handles SIGTERM may be cleaning up, and its grace goes on. Another one that lives got no signal.
        """
        ending.signals = list(sent)
        age = (now() - min(at for _, at in sent)).total_seconds()
        ending.first_signal = time.monotonic() - max(0.0, age)
        ending.first_tick = self._proc.now_ticks() - int(max(0.0, age) * TICKS_PER_SECOND)
        masks = self._proc.signal_masks(ending.process.pid)
        ignores = masks is not None and masks.ignores_sigterm
        if ignores or any(name == "SIGKILL" for name, _ in sent):
            self.stop(ending, hard=True)
        elif masks is not None and not masks.handles_sigterm:
            self._send(ending, signal.SIGTERM)
            if masks.stopped:
                self._send(ending, signal.SIGCONT)

    def _send(
        self, ending: Ending, number: signal.Signals, before: Callable[[str], None] | None = None
    ) -> None:
        if ending.first_signal is None:
            ending.first_signal, ending.first_tick = time.monotonic(), self._proc.now_ticks()
        if self._dry_run:
            ending.died_at = now()
            return
        if before is not None:
            before(number.name)
        try:
            if ending.pidfd is not None:
                signal.pidfd_send_signal(ending.pidfd, number)
            elif self._is(ending.identity):
                os.kill(ending.process.pid, number)
            else:
                self._dead(ending)
                return
        except ProcessLookupError:
            self._dead(ending)
            return
        except PermissionError:
            ending.refused = "EPERM: the listener may not signal it; run it as root or with CAP_KILL"
            return
        ending.signals.append((number.name, now()))

    def reap(self) -> list[Ending]:
        """Those that died since the last call, each with the moment it was seen dead."""
        dead: list[Ending] = []
        for pidfd, _ in self._poll.poll(0) if self._by_pidfd else ():
            ending = self._by_pidfd[pidfd]
            self._dead(ending)
            dead.append(ending)
        for ending in list(self._polled.values()):
            if self.state(ending) in _DEAD:
                self._dead(ending)
                dead.append(ending)
        return dead

    def hold(self, ending: Ending) -> None:
        """It is part of one more case."""
        ending.holders += 1

    def release(self, ending: Ending) -> None:
        """It is part of one case less; it is forgotten with the last one."""
        ending.holders -= 1
        if ending.holders <= 0:
            self._close(ending)
            self._by_identity.pop(ending.identity, None)

    def state(self, ending: Ending) -> str:
        """Its state letter now, for the words of an unkillable one."""
        stat = self._proc.stat(ending.process.pid)
        return stat.state if stat is not None and stat.start == ending.identity.start else "?"

    def _dead(self, ending: Ending) -> None:
        if ending.died_at is None:
            ending.died_at, ending.died = now(), time.monotonic()
        self._close(ending)
        if not ending.holders:  # it died while it was given time to end by itself
            self._by_identity.pop(ending.identity, None)

    def _close(self, ending: Ending) -> None:
        self._polled.pop(ending.identity, None)
        if ending.pidfd is not None:
            self._by_pidfd.pop(ending.pidfd, None)
            self._poll.unregister(ending.pidfd)
            os.close(ending.pidfd)
            ending.pidfd = None

    def _is(self, identity: Identity) -> bool:
        """True if the pid is still this very process."""
        stat = self._proc.stat(identity.pid)
        return stat is not None and stat.start == identity.start and stat.state not in {"X", "x"}


def spared_reason(reason: str, sent: Sequence[Sent] | None) -> str:
    """Why it is spared, and what it had got by then."""
    return f"{reason}; it had got {', '.join(name for name, _ in sent)}" if sent else reason


def _ended(pidfd: int) -> bool:
    """True if every thread of the process has ended (a zombie included)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))
