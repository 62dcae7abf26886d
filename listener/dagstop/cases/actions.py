"""What a case asks for: it decides, and Stopping does it, in this order. All of it is data."""

from __future__ import annotations

from dataclasses import dataclass

from dagstop.kill.endings import Ending, Sent
from dagstop.model import Process, Verdict


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says of a process: who it is, and why it is to die."""

    process: Process
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Hold:
    """The process is part of the case from now on."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Release:
    """It is not part of the case any more."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on where a listener before this one was cut off: these signals it sent, or was about to send."""

    ending: Ending
    sent: tuple[Sent, ...]


@dataclass(frozen=True, slots=True)
class Journal:
    """Write down the signals that the process got before it was part of the case."""

    ending: Ending
    entry: Entry


@dataclass(frozen=True, slots=True)
class Signal:
    """SIGTERM, or SIGKILL if `hard` or if the process ignores SIGTERM."""

    ending: Ending
    hard: bool
    entry: Entry | None = None  # with its first signal: to be written to the journal before that


@dataclass(frozen=True, slots=True)
class EngineAway:
    """Say once that an engine does not answer, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """Write the report: as far as the case has come, or the last one, with an outcome."""

    final: bool


Action = Hold | Release | Resume | Journal | Signal | EngineAway | Report
