"""What a listener, or whoever runs a command, can do on this host: proven by trying, not by its user."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dagstop.host.procfs import ProcFS
from dagstop.model import Process


def unseen(processes: Iterable[Process], proc: ProcFS, task_users: Collection[int]) -> list[str]:
    """Why processes of the users as whom tasks run may be the run's and go unseen; one phrase for each user.

    Only what the watch was refused counts. A program that made itself undumpable (proc(5): its files belong
    to root then) is refused to its own user too, and does not belong to a task.
    """
    refused: dict[int, list[str]] = {}
    for process in processes:
        if "environ" not in process.unread or not process.argv or process.label is not None:
            continue  # an empty command line: a kernel thread, or one that ends
        uid = proc.uid(process.pid)
        if uid in task_users and proc.owner(process.pid) == uid:
            refused.setdefault(uid, []).append(process.unread["environ"])
    hidden = sorted(set(task_users) - {os.geteuid()}) if proc.hides_others() else []
    unshown = [
        f"processes of uid {uid}: /proc hides them (hidepid), and CAP_SYS_PTRACE is missing" for uid in hidden
    ]
    return unshown + [
        f"{len(whys)} process{'' if len(whys) == 1 else 'es'} of uid {uid}: {whys[0]}"
        for uid, whys in sorted(refused.items())
    ]


@dataclass(slots=True)
class Trial:
    """How many processes of one user were tried; how many may be read, placed and signalled."""

    tried: int = 0
    read: int = 0
    placed: int = 0  # their pid namespace was seen
    signalled: int = 0  # by signal 0, which only asks whether one might

    def add(self, other: Trial) -> None:
        """Count those of another trial, too."""
        self.tried += other.tried
        self.read += other.read
        self.placed += other.placed
        self.signalled += other.signalled

    @property
    def good(self) -> bool:
        return self.tried == self.read == self.placed == self.signalled


_MOST = 20
"""Processes of one user that are tried."""


def tried(proc: ProcFS) -> dict[int, Trial]:
    """By uid: what can be done with the processes of this host, the kernel's threads and our own left out."""
    trials: dict[int, Trial] = {}
    for pid in proc.pids():
        if pid == os.getpid() or not proc.argv(pid):
            continue
        uid = proc.uid(pid)
        trial = trials.setdefault(uid, Trial())
        if trial.tried >= _MOST or proc.owner(pid) != uid:
            continue
        one = Trial(
            1,
            proc.environ(pid) is not None,
            proc.pid_namespace(pid)[0] is not None,
            _may_signal(pid),
        )
        if proc.stat(pid) is None:
            continue  # it ended meanwhile
        trial.add(one)
    return {uid: trial for uid, trial in trials.items() if trial.tried}


def _may_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass  # it ended meanwhile
    return True
