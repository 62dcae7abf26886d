"""What the watch knows, kept across a restart of the listener: labels by pid + start time + boot,
which containers the tasks' docker clients started, whose the tasks' private folders are, and when nobody
was told of forks.

One JSON file, replaced whole (rename(2)), readable by the listener's user only. Nothing in it is
believed if the boot differs, or if somebody else could have written it.
"""

from __future__ import annotations

import json
import os
import stat as modes
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from dagstop.airflow_names import parse_date
from dagstop.evidence.folders import remembered
from dagstop.evidence.gaps import Gap, gap_of
from dagstop.evidence.noted import Noted, noted
from dagstop.evidence.runners import checked, doubts, row_of, runner_of, undoubted
from dagstop.logs import event, log
from dagstop.model import Identity, Label, Process, Role

_NAME = "remembered.json"
_NUMBERS = frozenset({"map_index", "try_number", "job_id"})


class Known(NamedTuple):
    """What is known of one process: its label, and the runner that it descends from."""

    label: Label
    runner: Process | None = None
    doubts: dict[str, Any] | None = None  # what speaks against it


class Remembered(NamedTuple):
    """What an earlier listener on this boot knew."""

    processes: dict[Identity, Known]
    clients: list[Noted]
    folders: dict[str, Process]
    doubted: dict[Identity, Known]
    doubted_clients: list[Noted]  # strangers' too, who may have asked for the same name
    gaps: list[Gap]

    def everything(self) -> dict[Identity, Known]:
        return self.processes | self.doubted

    def all_clients(self) -> list[Noted]:
        return [*self.clients, *self.doubted_clients]


NOTHING = Remembered({}, [], {}, {}, [], [])


def save(
    directory: Path,
    boot_id: str,
    processes: Iterable[Process],
    clients: Iterable[Noted] = (),
    folders: Sequence[Any] = (),
    gaps: Iterable[Gap] = (),
) -> None:
    """Write what is known of all, the doubted ones apart. Raises OSError (a full disk, for one)."""
    rows: list[Any] = []
    doubted: list[Any] = []
    for process in processes:
        if process.label is not None and process.role in (Role.RUNNER, Role.OTHER):
            pid, start = process.identity.pid, process.identity.start
            row = [pid, start, process.label.facts(), row_of(process.runner)]
            if undoubted(process):
                rows.append(row)
            else:
                doubted.append([*row, doubts(process)])
    draft = directory / f".{_NAME}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        ties: dict[bool, list[Any]] = {True: [], False: []}
        for client in clients:
            ties[client.undoubted].append(client.facts())
        saved = {
            "boot_id": boot_id,
            "labels": rows,
            "clients": ties[True],
            "folders": folders,
            "gaps": [gap.facts() for gap in gaps],
            "doubted": {"labels": doubted, "clients": ties[False]},
        }
        json.dump(saved, handle)
    os.replace(draft, directory / _NAME)


def still_here(directory: Path, known_at: float) -> None:
    """Leave a sign of life, for a listener that comes after a SIGKILL: all that there was then is saved.

    known_at: seconds since 1970.
    """
    with suppress(OSError):
        os.utime(directory / _NAME, (known_at, known_at))


def last_sign(directory: Path) -> datetime | None:
    """When a listener left its last sign of life, or saved; None if there was none."""
    try:
        return datetime.fromtimestamp((directory / _NAME).stat().st_mtime, timezone.utc)
    except OSError:
        return None


def load(directory: Path, boot_id: str) -> Remembered:
    """What was saved on this boot; nothing if it cannot be trusted."""
    path = directory / _NAME
    try:
        with open(path, encoding="utf-8") as handle:
            owner = os.fstat(handle.fileno())
            if owner.st_uid != os.geteuid() or modes.S_IMODE(owner.st_mode) & 0o022:
                log.warning(event("memory ignored", file=path, why="others could have written it"))
                return NOTHING
            saved = json.load(handle)
        if saved["boot_id"] != boot_id:
            return NOTHING
        processes = dict(_known(*row) for row in saved["labels"])
        doubted = saved.get("doubted", {})
        folders = {
            str(path): remembered(pid, start, uid, _label(facts), runner_of(runner, _label))
            for path, pid, start, uid, facts, runner in saved.get("folders", ())
        }
        return Remembered(
            processes,
            _clients(saved.get("clients", ())),
            folders,
            dict(_known(*row) for row in doubted.get("labels", ())),
            _clients(doubted.get("clients", ())),
            [gap_of(*facts) for facts in saved.get("gaps", ())],
        )
    except FileNotFoundError:
        return NOTHING
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        log.warning(event("memory ignored", file=path, why=exc))
        return NOTHING


def _known(
    pid: Any, start: Any, facts: Any, runner: Any = None, against: Any = None
) -> tuple[Identity, Known]:
    """Raises KeyError, ValueError or TypeError for what `save` did not write."""
    if against is not None:
        checked(against)
    return Identity(int(pid), int(start)), Known(_label(facts), runner_of(runner, _label), against)


def _clients(saved: Iterable[dict[str, Any]]) -> list[Noted]:
    return [
        noted(
            facts,
            _label(facts["label"]) if facts["label"] is not None else None,
            runner_of(facts.get("runner"), _label),
        )
        for facts in saved
    ]


def _label(facts: dict[str, Any]) -> Label:
    """Raises ValueError or TypeError for what `save` did not write."""
    if not all(type(value) is (int if name in _NUMBERS else str) for name, value in facts.items()):
        raise ValueError("a label of another shape")
    date = facts.pop("logical_date", None)
    return replace(Label(**facts), logical_date=parse_date(date))
