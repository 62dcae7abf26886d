"""A pytest plugin that collects once and then tries each mutant in a fork: the tests that reach it, until one fails.

Each fork has a pid namespace of its own: a mutant of a killer may kill whatever it sees, and leaves nothing behind.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testbed import namespace

MEMORY = 4 << 30
LIVES, DIES, ENDLESS = "survived", "killed", "timed out"


@dataclass(frozen=True, slots=True)
class Trial:
    """One mutant, and how it is made."""

    name: str
    tests: Sequence[str]  # node ids, in the order in which they are to run
    seconds: float  # what these take without it, of the processor for Python
    around: Callable[[], AbstractContextManager[object]]  # in the parent, while it is tried
    inside: Callable[[], None]  # in the fork, before the first test
    killed_by: Callable[[str], None] = lambda _: None  # told the test that failed
    patience: Callable[[str], float] = lambda _: 0.0  # seconds by the clock for one test; 0: without end


class Judge:
    """Give it the trials once the tests are collected; `results` then has what became of each."""

    def __init__(
        self,
        trials: Callable[[pytest.Session], Iterator[Trial]],
        said: Callable[[str, str], None],
        at_once: int = 1,
    ) -> None:
        self._trials = trials
        self._said = said
        self._at_once = at_once
        self.results: dict[str, str] = {}

    def pytest_configure(self) -> None:
        """Not sooner: pytest wants to import hypothesis by itself."""
        hurried()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of the run of all tests."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        items = {item.nodeid: item for item in session.items}
        under_way: list[_Fork] = []
        for trial in self._trials(session):
            tests = [items[name] for name in trial.tests if name in items]
            if not tests:
                self._end(trial, LIVES)
                continue
            under_way.append(_Fork(session, tests, trial))
            while len(under_way) >= self._at_once:
                self._wait(under_way)
        while under_way:
            self._wait(under_way)
        return True

    def _wait(self, under_way: list[_Fork]) -> None:
        """Until one has ended, or its time has."""
        first = min(fork.until for fork in under_way)
        ended = select.select([fork.pidfd for fork in under_way], [], [], max(0, first - time.monotonic()))[0]
        for fork in list(under_way):
            if fork.pidfd in ended or fork.until <= time.monotonic():
                under_way.remove(fork)
                self._end(fork.trial, fork.outcome())

    def _end(self, trial: Trial, outcome: str) -> None:
        self.results[trial.name] = outcome
        self._said(trial.name, outcome)


class _Fork:
    """One mutant under trial."""

    def __init__(self, session: pytest.Session, items: list[pytest.Item], trial: Trial) -> None:
        self.trial = trial
        self._around = trial.around()
        self._around.__enter__()
        # a limit of processor time, since the machine may be busy; that of the clock is for what waits for ever
        self.until = time.monotonic() + 60 + 10 * trial.seconds
        self._folder = tempfile.mkdtemp(prefix="dagstop-mutant-")
        self._failed, told = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            code = 70
            try:
                silence = os.open(os.devnull, os.O_RDWR)
                for number in (1, 2):
                    os.dup2(silence, number)
                # pytest empties its folder when a process first asks for it: not that of others under way
                session.config._tmp_path_factory._basetemp = Path(self._folder)  # type: ignore[attr-defined]
                code = namespace.inside(lambda: _run(session, items, trial, told))
            finally:
                os._exit(code)
        os.close(told)
        self.pidfd = os.pidfd_open(self._child)

    def outcome(self) -> str:
        """What became of it; ends it if it has not."""
        if not select.select([self.pidfd], [], [], 0)[0]:
            os.kill(self._child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        os.close(self.pidfd)
        os.set_blocking(self._failed, False)
        with open(self._failed, "rb", buffering=0) as pipe:
            if name := pipe.read():  # None while what is left of the fork holds the other end
                self.trial.killed_by(name.decode())
        self._around.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)
        if code in (-signal.SIGKILL, *(128 + by for by in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL))):
            return ENDLESS
        return LIVES if code == 0 else DIES


def _run(session: pytest.Session, items: list[pytest.Item], trial: Trial, told: int) -> int:
    seconds = int(10 + 4 * trial.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    trial.inside()
    for item, following in zip(items, [*items[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_REAL, trial.patience(item.nodeid))
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            os.write(told, item.nodeid.encode())
            return 1
    return 0


class Clock:
    """A plugin for the run without mutants: how long each test took, and whether all passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_configure(self) -> None:
        """As for the mutants."""
        hurried()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)


def hurried() -> None:
    """Hypothesis without what serves people only: the same examples each time, none kept, none made smaller."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")
