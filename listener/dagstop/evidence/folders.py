"""Private folders of bash tasks: whose working directory lies in one is of that task.

Airflow makes each bash task a folder with a random name, `airflowtmp...`, in which it starts bash. A daemon
that gave up its session, parents and environment still works there, also once the folder is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dagstop.evidence.runners import row_of, undoubted
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Label, Process

KEPT = 6000
"""Clock ticks for which a folder is remembered that is deleted and has nobody in it."""
MOST = 2000


class Folders:
    """Folder -> the process that led a session in it and was labelled by other evidence."""

    def __init__(self, proc: ProcFS, processes: Mapping[int, Process]) -> None:
        self._proc = proc
        self._processes = processes
        self._leaders: dict[str, Process | None] = {}  # None: of more than one task
        self._inside: dict[str, tuple[set[Identity], int]] = {}  # and until when somebody was there, in ticks

    def note(self, leader: Process, now: int) -> bool:
        """A labelled session leader, bash as a rule. True if its folder was not known."""
        folder = self._proc.task_folder(leader.pid)
        if folder is None:
            return False
        known = self._leaders.setdefault(folder, leader)
        self._enter(folder, leader, now)
        if known is not None and known.label is not None and leader.label is not None:
            if known.label.contradicts(leader.label):
                self._leaders[folder] = None
        return known is leader

    def leader_of(self, process: Process, now: int) -> tuple[Process | None, str]:
        """Whose folder a process is in, and the folder. Not for a person's shell: that has a terminal."""
        folder = self._proc.task_folder(process.pid) if self._leaders else None
        leader = self._leaders.get(folder) if folder is not None else None
        if folder is None or leader is None or leader.identity == process.identity:
            return None, ""
        if process.identity.start < leader.identity.start or self._proc.has_terminal(process.pid):
            return None, ""
        self._enter(folder, process, now)
        return leader, folder

    def _enter(self, folder: str, process: Process, now: int) -> None:
        inside, _ = self._inside.get(folder, (set(), now))
        inside.add(process.identity)
        self._inside[folder] = inside, now

    def forget_the_old(self, now: int) -> None:
        for folder, (inside, until) in list(self._inside.items()):
            alive = {i for i in inside if (p := self._processes.get(i.pid)) is not None and p.identity == i}
            if alive or (until < now - KEPT and os.path.isdir(folder)):
                self._inside[folder] = alive, now
            elif until < now - KEPT:
                del self._inside[folder], self._leaders[folder]
        for folder in list(self._leaders)[:-MOST]:
            del self._inside[folder], self._leaders[folder]

    def facts(self) -> list[list[Any]]:
        """For `memory`: only what is sure."""
        return [
            [
                *(folder, leader.pid, leader.identity.start, leader.uid),
                *(leader.label.facts(), row_of(leader.runner)),
            ]
            for folder, leader in self._leaders.items()
            if leader is not None and leader.label is not None and undoubted(leader)
        ]

    def restore(self, leaders: Mapping[str, Process], now: int) -> None:
        """Take up what an earlier listener on this boot remembered."""
        for folder, leader in leaders.items():
            self._leaders.setdefault(folder, leader)
            self._enter(folder, leader, now)


def remembered(pid: int, start: int, uid: int, label: Label, runner: Process | None) -> Process:
    """The leader of `facts`, which need not live any more."""
    return Process(
        identity=Identity(int(pid), int(start)),
        uid=int(uid),
        label=label,
        trusted=True,
        runner=runner,
    )
