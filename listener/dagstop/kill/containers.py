"""Stop, then kill, the containers of one order, in a thread; say what was seen, not what was sent.

An init that is proven to be the container's is signalled directly: the engine starts a program for each
signal, which takes it some 10 ms. Where that cannot be seen, the engine is told to do it.

A container whose init has no handler for SIGTERM (SigCgt of its host pid) ignores the signal, as
pid 1 does (pid_namespaces(7)): it is killed at once instead of after the grace period. Of an init that
is not proven nobody knows: it gets SIGTERM and the grace period.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dagstop.evidence.verdicts import start_of_init
from dagstop.host import descriptors
from dagstop.host.containers import Container
from dagstop.host.engine import ContainerRefused, Engine, EngineUnreachable
from dagstop.host.procfs import ProcFS
from dagstop.kill.endings import NOT_SIGNALLED, now
from dagstop.model import Verdict

ASKED_EVERY = 0.2
"""Seconds between two questions to the engine about a container that is ending."""


class Pace:
    """The time by which a container is waited for; a test has one of its own."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


@dataclass(slots=True)
class ContainerEnd:
    """How one container ended."""

    container: Container
    verdict: Verdict
    signals: list[tuple[str, datetime]] = field(default_factory=list)
    died_at: datetime | None = None
    refused: str | None = None
    let_live: str | None = None  # why it is not to be stopped after all
    problem: str | None = None  # the engine died before it had ended: to be looked at again
    noticed: str | None = None  # if it was found gone later


def end_container(
    engine: Engine,
    container: Container,
    verdict: Verdict,
    proc: ProcFS,
    *,
    grace: float,
    patience: float = 20.0,
    before_first: Callable[[str], None] = lambda name: None,
    hands_off: Callable[[], str | None] = lambda: None,
    pace: Pace = Pace(),  # noqa: B008
) -> ContainerEnd:
    """Block until the container is seen dead, or until `patience` seconds after SIGKILL.

    before_first: told the first signal's name before it is sent. hands_off: why it is not to be stopped any
    more, asked until SIGKILL; `let_live` says so then. Raises EngineUnreachable if the engine
    dies before that; afterwards `problem` says so. Either way it is to be tried again.
    """
    init = _init(proc, container)
    if (
        init is None
    ):  # gone, started again since it was learned, or not to be seen from here: the engine knows
        seen = now()
        fresh = engine.inspect(container.id)
        if fresh is None:
            return ContainerEnd(container, verdict, died_at=seen, noticed=NOT_SIGNALLED)
        container, init = fresh, _init(proc, fresh)
    end = ContainerEnd(container, verdict)
    pidfd, start = (init.pidfd, init.start) if init is not None else (None, None)
    try:
        if container.restart_policy not in {"", "no"}:
            _never_restart(engine, container)
        masks = proc.signal_masks(container.pid) if start is not None else None
        polite = masks is None or masks.handles_sigterm
        if polite:
            before_first("SIGTERM")
            _signal(engine, end, signal.SIGTERM, pidfd)
            _thaw(engine, container)
            _wait(engine, end, proc, start, grace, pace, lambda: hands_off() is not None)
        if end.died_at is None and (why := hands_off()) is not None:
            end.let_live = why
        elif end.died_at is None:
            if not end.signals:
                before_first("SIGKILL")
            _signal(engine, end, signal.SIGKILL, pidfd)
            _thaw(engine, container)
            _wait(engine, end, proc, start, patience, pace)
    except ContainerRefused as exc:
        end.refused = str(exc)
    except EngineUnreachable as exc:
        if not end.signals:
            raise
        end.problem = str(exc)
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return end


class Init(NamedTuple):
    """The proven init of a container."""

    pidfd: int
    start: int


def _init(proc: ProcFS, container: Container) -> Init | None:
    """The container's init, its pidfd opened before it was seen to be the container's."""
    if not container.pid or (pidfd := descriptors.of_process(container.pid)) is None:
        return None
    start = start_of_init(proc, container)
    if start is not None:
        return Init(pidfd, start)
    os.close(pidfd)
    return None


def _signal(engine: Engine, end: ContainerEnd, number: signal.Signals, pidfd: int | None) -> None:
    try:
        if pidfd is None:
            raise PermissionError
        signal.pidfd_send_signal(pidfd, number)
    except OSError:  # not to be seen, not ours to signal, or gone: the engine knows
        engine.signal(end.container, number.name)
    end.signals.append((number.name, now()))


def _never_restart(engine: Engine, container: Container) -> None:
    """One that is just ending cannot be told so: what the engine starts again is seen and killed."""
    with suppress(ContainerRefused):
        engine.never_restart(container)


def _thaw(engine: Engine, container: Container) -> None:
    """On cgroup v1 a frozen process dies only once thawed; some engines thaw it with the kill."""
    seen = engine.inspect(container.id) if container.paused else None
    if seen is not None and seen.paused:
        with suppress(ContainerRefused):
            engine.unpause(container)


def _wait(
    engine: Engine,
    end: ContainerEnd,
    proc: ProcFS,
    start: int | None,
    seconds: float,
    pace: Pace,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Look until the container is dead: at its init every few ms, at the engine every ASKED_EVERY s.

    By a restart policy that it was given since it was learned it starts again: that is killed at once.
    """
    until = pace.now() + seconds
    asked, pid = 0.0, end.container.pid
    while pace.now() < until and not enough():
        gone = False
        if start is not None:
            stat = proc.stat(end.container.pid)
            gone = stat is None or stat.start != start or stat.state in {"Z", "X"}
        if gone or pace.now() >= asked + ASKED_EVERY:
            seen = now()
            found = engine.inspect(end.container.id)
            if found is None:
                end.died_at = seen
                if pid != end.container.pid:
                    _never_restart(engine, end.container)
                return
            if found.pid != pid:
                with suppress(ContainerRefused):  # it is between two lives: the next look tells
                    _signal(engine, end, signal.SIGKILL, None)  # by the engine, which ends its restarts too
                start, pid = None, found.pid
            asked = pace.now()
        pace.sleep(0.002 if start is not None and not gone else 0.02)
