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
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from dagstop.model import Identity, Process
from dagstop.outside.procfs import TICKS_PER_SECOND, ProcFS

_DEAD = frozenset({"Z", "X", "?"})  # a zombie is dead: it only waits for its parent

NOT_SIGNALLED = "ended before it was signalled"
"""What a report says of what was to die and did so first: by its parent's end or its task's `on_kill`."""

Sent = tuple[str, datetime]
"""The name of a signal, and when it was sent by the host's clock."""


def now() -> datetime:
    """The host's clock, aware; a report moves it to the database's clock."""
    return datetime.now(timezone.utc)


@dataclass(slots=True)
class Quarry:
    """A process under at least one order. Two orders share it, so that it is signalled once."""

    process: Process
    pidfd: int | None
    signals: list[Sent] = field(default_factory=list)
    first_signal: float | None = None  # monotonic seconds
    first_tick: int | None = None  # the same moment on the scale of `Identity.start`
    killed: float | None = None  # when SIGKILL was sent, monotonic seconds
    died_at: datetime | None = None
    died: float | None = None  # the same moment in monotonic seconds
    holders: int = 0  # how many orders hunt it
    refused: str | None = None  # why a signal could not be sent; an outcome of its own
    before_first: Callable[[str], None] | None = None  # told the first signal's name before it is sent

    @property
    def identity(self) -> Identity:
        return self.process.identity

    @property
    def alive(self) -> bool:
        return self.died_at is None


class Quarries:
    """All quarries of this listener, by identity; owns their pidfds."""

    def __init__(self, proc: ProcFS, *, dry_run: bool = False) -> None:
        self._proc = proc
        self._dry_run = dry_run
        self._by_identity: dict[Identity, Quarry] = {}
        self._by_pidfd: dict[int, Quarry] = {}
        self._polled: dict[Identity, Quarry] = {}  # those without a pidfd
        self._poll = select.epoll()

    def fileno(self) -> int:
        """Readable when at least one process with a pidfd has died."""
        return self._poll.fileno()

    def take(self, process: Process) -> Quarry | None:
        """The quarry for a process that was looked at a moment ago; None if it is dead by now."""
        known = self._by_identity.get(process.identity)
        if known is not None:
            return known if known.alive else None
        pidfd = self._open(process.pid)
        if not self._is(process.identity) or (pidfd is not None and _ended(pidfd)):
            if pidfd is not None:
                os.close(pidfd)
            return None
        quarry = Quarry(process, pidfd)
        if pidfd is None and self.state(quarry) in _DEAD:
            return None
        self._by_identity[process.identity] = quarry
        if pidfd is None:
            self._polled[process.identity] = quarry
        else:
            self._by_pidfd[pidfd] = quarry
            self._poll.register(pidfd, select.EPOLLIN)
        return quarry

    def stop(self, quarry: Quarry, *, hard: bool) -> None:
        """SIGTERM, or SIGKILL if `hard` or if SIGTERM is ignored (SigIgn): waiting would be idle."""
        if hard:
            if quarry.killed is None:
                quarry.killed = time.monotonic()
                self._send(quarry, signal.SIGKILL)
            return
        if quarry.signals:  # a handler that cleans up may well ignore a second SIGTERM: it has its grace
            if quarry.killed is None and quarry.process.state == "T":
                self._send(quarry, signal.SIGCONT)  # stopped since
            return
        masks = self._proc.signal_masks(quarry.process.pid)
        if masks is not None and masks.ignores_sigterm:
            self.stop(quarry, hard=True)
            return
        self._send(quarry, signal.SIGTERM)
        if masks is not None and masks.stopped:  # a stopped process sees SIGTERM only then
            self._send(quarry, signal.SIGCONT)

    def resume(self, quarry: Quarry, sent: list[Sent]) -> None:
        """Take over what a listener before this one sent, or was about to send when it was cut off.

        Who handles SIGTERM may be cleaning up, and its grace goes on. Another one that lives got no signal.
        """
        quarry.signals = list(sent)
        age = (now() - min(at for _, at in sent)).total_seconds()
        quarry.first_signal = time.monotonic() - max(0.0, age)
        quarry.first_tick = self._proc.now_ticks() - int(max(0.0, age) * TICKS_PER_SECOND)
        masks = self._proc.signal_masks(quarry.process.pid)
        ignores = masks is not None and masks.ignores_sigterm
        if ignores or any(name == "SIGKILL" for name, _ in sent):
            self.stop(quarry, hard=True)
        elif masks is not None and not masks.handles_sigterm:
            self._send(quarry, signal.SIGTERM)
            if masks.stopped:
                self._send(quarry, signal.SIGCONT)

    def _send(self, quarry: Quarry, number: signal.Signals) -> None:
        if quarry.first_signal is None:
            quarry.first_signal, quarry.first_tick = time.monotonic(), self._proc.now_ticks()
        if self._dry_run:
            quarry.died_at = now()
            return
        if quarry.before_first is not None:
            quarry.before_first(number.name)
            quarry.before_first = None
        try:
            if quarry.pidfd is not None:
                signal.pidfd_send_signal(quarry.pidfd, number)
            elif self._is(quarry.identity):
                os.kill(quarry.process.pid, number)
            else:
                self._dead(quarry)
                return
        except ProcessLookupError:
            self._dead(quarry)
            return
        except PermissionError:
            quarry.refused = "EPERM: the listener may not signal it; run it as root or with CAP_KILL"
            return
        quarry.signals.append((number.name, now()))

    def reap(self) -> list[Quarry]:
        """Those that died since the last call, each with the moment it was seen dead."""
        dead: list[Quarry] = []
        for pidfd, _ in self._poll.poll(0) if self._by_pidfd else ():
            quarry = self._by_pidfd[pidfd]
            self._dead(quarry)
            dead.append(quarry)
        for quarry in list(self._polled.values()):
            if self.state(quarry) in _DEAD:
                self._dead(quarry)
                dead.append(quarry)
        return dead

    def hold(self, quarry: Quarry) -> None:
        """One more order hunts it."""
        quarry.holders += 1

    def release(self, quarry: Quarry) -> None:
        """One order hunts it no more; it is forgotten with the last one."""
        quarry.holders -= 1
        if quarry.holders <= 0:
            self._close(quarry)
            self._by_identity.pop(quarry.identity, None)

    def state(self, quarry: Quarry) -> str:
        """Its state letter now, for the words of an unkillable one."""
        stat = self._proc.stat(quarry.process.pid)
        return stat.state if stat is not None and stat.start == quarry.identity.start else "?"

    def _dead(self, quarry: Quarry) -> None:
        if quarry.died_at is None:
            quarry.died_at, quarry.died = now(), time.monotonic()
        self._close(quarry)
        if not quarry.holders:  # it died while it was given time to end by itself
            self._by_identity.pop(quarry.identity, None)

    def _close(self, quarry: Quarry) -> None:
        self._polled.pop(quarry.identity, None)
        if quarry.pidfd is not None:
            self._by_pidfd.pop(quarry.pidfd, None)
            self._poll.unregister(quarry.pidfd)
            os.close(quarry.pidfd)
            quarry.pidfd = None

    def _is(self, identity: Identity) -> bool:
        """True if the pid is still this very process."""
        stat = self._proc.stat(identity.pid)
        return stat is not None and stat.start == identity.start and stat.state not in {"X", "x"}

    def _open(self, pid: int) -> int | None:
        if not hasattr(os, "pidfd_open"):
            return None
        try:
            return os.pidfd_open(pid)
        except OSError:
            # gone (the start time tells), no such call (Linux before 5.3), no descriptor left
            return None


def spared_reason(reason: str, sent: list[Sent] | None) -> str:
    """Why it is spared, and what it had got by then."""
    return f"{reason}; it had got {', '.join(name for name, _ in sent)}" if sent else reason


def _ended(pidfd: int) -> bool:
    """True if every thread of the process has ended (a zombie included)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))
