"""Forks of a runner that lost their parent and never exec'd: Python daemons, pools of workers.

They bear the runner's title, which names the try. Another Airflow may have the same ids, job id included;
but an exec lays out a process's memory at random, and only forks share it: one title in one layout is one
runner's.
"""

from __future__ import annotations

from dagstop.host.procfs import Layout, ProcFS
from dagstop.model import Label, Process

MOST = 5000


class Forks:
    """Runners by memory layout and title, also when they are gone."""

    def __init__(self, proc: ProcFS) -> None:
        self._proc = proc
        self._runners: dict[tuple[Layout, Label], Process] = {}

    def note(self, runner: Process) -> None:
        """A labelled runner; the first one seen is the one that the others were forked from."""
        if (key := self._key(runner)) is not None:
            self._runners.setdefault(key, runner)
            if len(self._runners) > MOST:
                del self._runners[next(iter(self._runners))]

    def runner_of(self, fork: Process) -> Process | None:
        """The labelled runner that this one was forked from."""
        key = self._key(fork)
        runner = self._runners.get(key) if key is not None else None
        if runner is None or runner.identity == fork.identity or runner.identity.start > fork.identity.start:
            return None
        return runner

    def _key(self, process: Process) -> tuple[Layout, Label] | None:
        layout = self._proc.layout(process.pid)
        return (layout, process.title) if layout is not None and process.title is not None else None
