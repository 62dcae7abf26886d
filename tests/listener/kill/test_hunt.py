"""Who is signalled when: the time is given, and signals are only written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from dagstop.evidence.index import Index
from dagstop.evidence.verdicts import of_processes
from dagstop.kill import hunt as hunts
from dagstop.kill.endings import Ending, now
from dagstop.kill.hunt import Hunt
from dagstop.model import Identity, Process, Role
from tests.support.fake_proc import at, order, process, site

GRACE = 10.0


@dataclass
class Time:
    """A clock that only the test moves."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Pool:
    """As Endings, on no host at all."""

    time: Time
    known: dict[Identity, Ending] = field(default_factory=dict)
    sent: list[tuple[int, str, float]] = field(default_factory=list)

    def take(self, process: Process) -> Ending:
        return self.known.setdefault(process.identity, Ending(process, None))

    def hold(self, ending: Ending) -> None:
        ending.holders += 1

    def stop(self, ending: Ending, *, hard: bool) -> None:
        if (ending.killed is not None) if hard else bool(ending.signals):
            return
        name, moment = "SIGKILL" if hard else "SIGTERM", self.time.seconds
        ending.first_signal = ending.first_signal or moment
        ending.killed = moment if hard else None
        ending.signals.append((name, now()))
        self.sent.append((ending.process.pid, name, moment - 1000.0))


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    clock = Time()
    monkeypatch.setattr(hunts, "time", clock)
    yield clock


def look(hunt: Hunt, pool: Pool, *candidates: Process) -> None:
    hunt.escalate(pool)  # type: ignore[arg-type]
    living = [p for p in candidates if p.identity not in pool.known or pool.known[p.identity].alive]
    judged = of_processes(hunt.order, Index(living, lambda p: p.label), lambda _: at(-30), site())
    hunt.consider(judged, site(), pool, pool.time.seconds)  # type: ignore[arg-type]


def die(pool: Pool, process: Process) -> None:
    pool.known[process.identity].died_at = now()
    pool.known[process.identity].died = pool.time.seconds


def runner(pid: int, *argv: str, ppid: int = 1) -> Process:
    return process(
        identity=Identity(pid, pid), ppid=ppid, sid=600, argv=argv, role=Role.RUNNER, with_runner=True,
        line=frozenset({pid, ppid}),
    )  # fmt: skip


def child(pid: int, of: Process, *, session: int = 600) -> Process:
    return process(
        identity=Identity(pid, pid), ppid=of.pid, sid=session, with_runner=session == 600, line=of.line
    )


def test_there_is_one_grace_from_the_first_signal_on(time: Time) -> None:
    """What waits for its runner has no second one, whenever that dies."""
    pool, stopped = Pool(time), Hunt(order(), GRACE, started=time.seconds)
    above = runner(600, "airflow worker -- x")
    below = child(601, above)
    look(stopped, pool, above, below)
    assert pool.sent == [(600, "SIGTERM", 0.0)]
    time.seconds += 9.0
    die(pool, above)
    look(stopped, pool, above, below)
    assert pool.sent[1:] == [(601, "SIGTERM", 9.0)]
    assert stopped.next_at() <= 1010.0
    time.seconds = 1010.0
    look(stopped, pool, above, below)
    assert pool.sent[2:] == [(601, "SIGKILL", 10.0)]


SUDO = ("/usr/bin/sudo", "-E", "-H", "-u", "dataeng", "python", "-c", "from airflow.sdk import x")


def test_the_runner_behind_a_sudo_is_asked_at_once_and_once(time: Time) -> None:
    """3.x starts it again through sudo under run_as_user; its title comes later. Sudo would pass on another."""
    pool, stopped = Pool(time), Hunt(order(), GRACE, started=time.seconds)
    sudo = runner(600, *SUDO)
    monitor = runner(601, *SUDO, ppid=600)  # with a terminal of its own there are two of them
    real = child(602, monitor)
    look(stopped, pool, sudo, monitor, real)
    assert pool.sent == [(602, "SIGTERM", 0.0)]
    time.seconds = 1010.0
    look(stopped, pool, sudo, monitor, real)
    assert sorted(pool.sent[1:]) == [(pid, "SIGKILL", 10.0) for pid in (600, 601, 602)]


def test_a_sudo_with_no_child_is_asked_itself(time: Time) -> None:
    pool, stopped = Pool(time), Hunt(order(), GRACE, started=time.seconds)
    sudo = runner(600, *SUDO)
    look(stopped, pool, sudo)
    assert pool.sent == [(600, "SIGTERM", 0.0)]
    time.seconds = 1001.0  # it was about to fork
    real = child(601, sudo)
    look(stopped, pool, sudo, real)
    assert pool.sent[1:] == [(601, "SIGTERM", 1.0)]
    time.seconds = 1010.0
    look(stopped, pool, sudo, real)
    assert pool.sent[2:] == [(600, "SIGKILL", 10.0), (601, "SIGKILL", 10.0)]


def test_a_sudo_passes_nothing_on_to_a_child_that_is_spared(time: Time) -> None:
    pool, stopped = Pool(time), Hunt(order(), GRACE, started=time.seconds)
    sudo = runner(600, *SUDO)
    spared = replace(child(601, sudo), environ={"DAGSTOP_SPARE": "1"})
    look(stopped, pool, sudo, spared)
    assert pool.sent == [] and not stopped.finished
    time.seconds = 1010.0
    look(stopped, pool, sudo, spared)
    assert pool.sent == [(600, "SIGKILL", 10.0)]


def test_an_order_that_shares_a_process_has_a_grace_of_its_own(time: Time) -> None:
    pool = Pool(time)
    first, second = (
        Hunt(order(), GRACE, started=time.seconds),
        Hunt(order(id=2), GRACE, started=time.seconds + 8.0),
    )
    shared = child(601, runner(600), session=601)
    other = child(602, runner(600), session=602)
    look(first, pool, shared)
    time.seconds += 8.0
    look(second, pool, shared, other)
    time.seconds += 2.0
    look(first, pool, shared)
    look(second, pool, shared, other)
    assert pool.sent == [(601, "SIGTERM", 0.0), (602, "SIGTERM", 8.0), (601, "SIGKILL", 10.0)]
    time.seconds += 8.0
    look(second, pool, shared, other)
    assert pool.sent[3:] == [(602, "SIGKILL", 18.0)]
