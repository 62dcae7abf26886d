"""A pytest plugin that collects once and then tries each mutant in a fork: the tests that reach it, until one fails.

Each fork has a pid namespace of its own: a mutant of a killer may kill whatever it sees, and leaves nothing behind.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests.testbed import namespace

MEMORY = 4 << 30
LIVES, DIES, ENDLESS = "survived", "killed", "timed out"


@dataclass(frozen=True, slots=True)
class Trial:
    """One mutant, and how it is made."""

    name: str
    tests: Sequence[str]  # node ids, in the order in which they are to run
    seconds: float  # what these take without it
    around: Callable[[], AbstractContextManager[object]]  # in the parent, while it is tried
    inside: Callable[[], None]  # in the fork, before the first test
    killed_by: Callable[[str], None] = lambda _: None  # told the test that failed


class Judge:
    """Give it the trials once the tests are collected; `results` then has what became of each."""

    def __init__(
        self, trials: Callable[[pytest.Session], Iterator[Trial]], said: Callable[[str, str], None]
    ) -> None:
        self._trials = trials
        self._said = said
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
        for trial in self._trials(session):
            with trial.around():
                outcome = _tried(session, [items[name] for name in trial.tests if name in items], trial)
            self.results[trial.name] = outcome
            self._said(trial.name, outcome)
        return True


def _tried(session: pytest.Session, items: list[pytest.Item], trial: Trial) -> str:
    if not items:
        return LIVES
    failed, told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(failed)
            silence = os.open(os.devnull, os.O_RDWR)
            for number in (1, 2):
                os.dup2(silence, number)
            code = namespace.inside(lambda: _run(session, items, trial, told))
        finally:
            os._exit(code)
    os.close(told)
    ended = os.pidfd_open(child)
    try:
        # a limit of processor time, since the machine may be busy; that of the clock is for what waits for ever
        waited = select.select([ended], [], [], 60 + 10 * trial.seconds)
    finally:
        os.close(ended)
    if not waited[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.set_blocking(failed, False)
    with open(failed, encoding="utf-8") as pipe:
        if name := pipe.read():
            trial.killed_by(name)
    if code in (-signal.SIGKILL, 128 + signal.SIGXCPU, 128 + signal.SIGKILL):
        return ENDLESS
    return LIVES if code == 0 else DIES


def _run(session: pytest.Session, items: list[pytest.Item], trial: Trial, told: int) -> int:
    seconds = int(10 + 4 * trial.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    trial.inside()
    for item, following in zip(items, [*items[1:], None], strict=True):
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
