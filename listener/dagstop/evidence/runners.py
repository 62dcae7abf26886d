"""The runner that something descends from, kept across a restart of the listener: with it that is spared."""

from __future__ import annotations

from typing import Any

from dagstop.evidence.match import asks_to_be_spared
from dagstop.model import Identity, Label, Process, Role


def undoubted(process: Process) -> bool:
    """False for what is spared whatever the order: a later listener could not see why."""
    contrary = process.contrary is not None or asks_to_be_spared(process)
    return not contrary and process.unread.keys() <= {"environ"}


def row_of(runner: Process | None) -> list[Any] | None:
    """What is saved of it."""
    if runner is None or runner.label is None:
        return None
    pid, start = runner.identity.pid, runner.identity.start
    return [pid, start, runner.label.facts(), runner.trusted, sorted(runner.line)]


def runner_of(row: Any, label: Label) -> Process:
    """The reverse of `row_of`. Raises ValueError or TypeError for what that did not write."""
    pid, start, _, trusted, line = row
    return Process(
        identity=Identity(int(pid), int(start)),
        ppid=0,
        pgid=0,
        sid=0,
        state="X",
        uid=-1,
        argv=(),
        environ={},
        role=Role.RUNNER,
        title=label,
        label=label,
        trusted=bool(trusted),
        line=frozenset(int(number) for number in line),
    )
