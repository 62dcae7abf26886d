"""What speaks against a process, and the runner that it descends from, kept across a restart of the listener.

Both are seen while parents live. A later listener that had forgotten them would kill what is to be spared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagstop.evidence.match import ELSEWHERE, asks_to_be_spared
from dagstop.model import Identity, Label, Process, Role


def undoubted(process: Process) -> bool:
    """False for what is spared whatever the order: it, or the runner that it descends from."""
    if process.contrary is not None or asks_to_be_spared(process) or not process.trusted:
        return False
    if process.place is not None:  # whose its container is may have changed by the next start
        return False
    runner = process.runner
    above = runner is None or (runner.contrary is None and not asks_to_be_spared(runner) and _read(runner))
    return above and _read(process)


def _read(process: Process) -> bool:
    """True if all that it rests on could be read; its environment others may stand in for."""
    return process.unread.keys() <= {"environ"}


def doubts(process: Process) -> dict[str, Any]:
    """What speaks against it, ready for JSON."""
    return {
        "trusted": process.trusted,
        # a later listener finds its container again, or spares it
        "contrary": process.contrary or (ELSEWHERE if process.place is not None else None),
        "spare": asks_to_be_spared(process),
        "uid": process.uid,
        "vouchers": sorted(process.vouchers),
        "inner": sorted(process.inner),
    }


def checked(facts: Any) -> dict[str, Any]:
    """What `doubts` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    contrary, uid = facts["contrary"], facts["uid"]
    if not (contrary is None or isinstance(contrary, str)) or type(uid) is not int:
        raise ValueError("doubts of another shape")
    return {
        "trusted": bool(facts["trusted"]),
        "contrary": contrary,
        "spare": bool(facts["spare"]),
        "uid": uid,
        # an earlier release kept none
        "vouchers": frozenset(int(number) for number in facts.get("vouchers", ())),
        "inner": frozenset(int(number) for number in facts.get("inner", ())),
    }


def doubt(process: Process, facts: Any) -> None:
    """The reverse of `doubts`; raises as `checked` does."""
    known = checked(facts)
    process.trusted, process.contrary, process.uid = known["trusted"], known["contrary"], known["uid"]
    process.kin_spared = known["spare"]
    process.vouchers, process.inner = known["vouchers"], known["inner"]


_DEEPEST = 8
"""Runners above each other that are kept."""


def row_of(runner: Process | None, depth: int = _DEEPEST) -> list[Any] | None:
    """What is saved of it."""
    if runner is None or runner.label is None or depth == 0:
        return None
    pid, start = runner.identity.pid, runner.identity.start
    unread = {name: why for name, why in runner.unread.items() if name != "environ"}
    above = row_of(runner.runner, depth - 1)
    known = [pid, start, runner.label.facts(), runner.trusted, sorted(runner.line)]
    return [*known, doubts(runner), unread, above]


def runner_of(row: Any, read_label: Callable[[Any], Label], depth: int = _DEEPEST) -> Process | None:
    """The reverse of `row_of`. Raises ValueError, TypeError or KeyError for what that did not write."""
    if row is None or depth == 0:
        return None
    pid, start, facts, trusted, line, *more = row
    label = read_label(facts)
    runner = Process(
        identity=Identity(int(pid), int(start)),
        role=Role.RUNNER,
        title=label,
        label=label,
        trusted=bool(trusted),
        line=frozenset(int(number) for number in line),
    )
    if more:  # an earlier release kept no doubted one
        against, unread, above = more
        doubt(runner, against)
        runner.unread = {str(name): str(why) for name, why in dict(unread).items()}
        runner.runner = runner_of(above, read_label, depth - 1)
    return runner
