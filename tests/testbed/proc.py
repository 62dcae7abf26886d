"""What the testbed reads from `/proc`: which processes live and descend from which; and how to end them."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Process:
    """One process. Its identity is `pid` and `start` (clock ticks since boot, field 22 of stat)."""

    pid: int
    start: int
    ppid: int
    session: int
    state: str
    command: tuple[str, ...]
    executable: str

    @property
    def identity(self) -> tuple[int, int]:
        """(pid, start): equal only for the very same process."""
        return self.pid, self.start

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        now = read(self.pid)
        return now is not None and now.start == self.start and now.state != "Z"


def read(pid: int) -> Process | None:
    """The process `pid`, or None where there is none (any more)."""
    root = Path(f"/proc/{pid}")
    try:
        fields = (root / "stat").read_text().rpartition(") ")[2].split()
        command = (root / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
        executable = os.readlink(root / "exe") if fields[0] not in "ZX" else ""
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return Process(
        pid=pid,
        start=int(fields[19]),
        ppid=int(fields[1]),
        session=int(fields[3]),
        state=fields[0],
        command=tuple(command.split("\0")),
        executable=executable,
    )


def everyone() -> list[Process]:
    """Every process that can be read."""
    found = (read(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def descendants(
    roots: Collection[int], sessions: Collection[int] = (), among: Iterable[Process] | None = None
) -> list[Process]:
    """`roots`, the members of `sessions`, and everything that descends from either."""
    processes = list(everyone() if among is None else among)
    family = {p.pid for p in processes if p.pid in roots or p.session in sessions}
    while True:
        more = {p.pid for p in processes if p.ppid in family} - family
        if not more:
            return [p for p in processes if p.pid in family]
        family |= more


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signal each of `processes` that is still the same one."""
    for process in processes:
        if process.alive():
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                pass


def kill(processes: Iterable[Process]) -> None:
    """SIGKILL them, children before their parents.

    Where a parent of a stopped process ends first, the kernel may send SIGHUP to the whole process group of that
    one (setpgid(2), orphaned process groups), and it takes what is meant to be left.
    """
    send(sorted(processes, key=lambda process: (process.start, process.pid), reverse=True), signal.SIGKILL)


def find(*words: str) -> list[Process]:
    """Living processes that have each of `words` somewhere in their command line."""
    return [
        p
        for p in everyone()
        if p.state != "Z" and all(any(word in part for part in p.command) for word in words)
    ]
