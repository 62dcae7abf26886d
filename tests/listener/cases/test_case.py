"""Which process is signalled when: time is given to the case, and signals are only recorded."""

from __future__ import annotations

from dataclasses import replace

from dagstop.model import Identity, Process, Role
from tests.support.case_host import CaseHost
from tests.support.fake_proc import order, process


def runner(pid: int, *argv: str, ppid: int = 1) -> Process:
    return process(
        identity=Identity(pid, pid), ppid=ppid, sid=600, argv=argv, role=Role.RUNNER, with_runner=True,
        line=frozenset({pid, ppid}),
    )  # fmt: skip


def child(pid: int, of: Process, *, session: int = 600) -> Process:
    return process(
        identity=Identity(pid, pid), ppid=of.pid, sid=session, with_runner=session == 600, line=of.line
    )


def test_there_is_one_grace_from_the_first_signal_on() -> None:
    """What waits for its runner has no second one, whenever that dies."""
    host = CaseHost()
    case = host.case()
    above = runner(600, "airflow worker -- x")
    below = child(601, above)
    host.look(case, above, below)
    assert host.sent == [(600, "SIGTERM", 0.0)]
    host.seconds += 9.0
    host.die(above, case)
    host.look(case, above, below)
    assert host.sent[1:] == [(601, "SIGTERM", 9.0)]
    assert case.next_look <= 1010.0
    host.seconds = 1010.0
    host.look(case, above, below)
    assert host.sent[2:] == [(601, "SIGKILL", 10.0)]


SUDO = ("/usr/bin/sudo", "-E", "-H", "-u", "dataeng", "python", "-c", "from airflow.sdk import x")


def test_the_runner_behind_a_sudo_is_asked_at_once_and_once() -> None:
    """3.x starts it again through sudo under run_as_user; its title comes later. Sudo would pass on another."""
    host = CaseHost()
    case = host.case()
    sudo = runner(600, *SUDO)
    monitor = runner(601, *SUDO, ppid=600)  # with a terminal of its own there are two of them
    real = child(602, monitor)
    host.look(case, sudo, monitor, real)
    host.seconds = 1005.0
    host.look(case, sudo, monitor, real)
    assert host.sent == [(602, "SIGTERM", 0.0)]
    host.seconds = 1010.0
    host.look(case, sudo, monitor, real)
    assert sorted(host.sent[1:]) == [(pid, "SIGKILL", 10.0) for pid in (600, 601, 602)]


def test_a_sudo_with_no_child_is_asked_itself() -> None:
    host = CaseHost()
    case = host.case()
    sudo = runner(600, *SUDO)
    host.look(case, sudo)
    assert host.sent == [(600, "SIGTERM", 0.0)]
    host.seconds = 1001.0  # it was about to fork
    real = child(601, sudo)
    host.look(case, sudo, real)
    assert host.sent[1:] == [(601, "SIGTERM", 1.0)]
    host.seconds = 1010.0
    host.look(case, sudo, real)
    assert host.sent[2:] == [(600, "SIGKILL", 10.0), (601, "SIGKILL", 10.0)]


def test_a_sudo_whose_child_is_dead_is_asked_itself() -> None:
    host = CaseHost(brief=frozenset({601}))
    case = host.case()
    sudo = runner(600, *SUDO)
    host.look(case, sudo, replace(child(601, sudo), state="Z"))
    assert host.sent == [(600, "SIGTERM", 0.0)]


def test_a_sudo_passes_nothing_on_to_a_child_that_is_spared() -> None:
    host = CaseHost()
    case = host.case()
    sudo = runner(600, *SUDO)
    spared = replace(child(601, sudo), environ={"DAGSTOP_SPARE": "1"})
    host.look(case, sudo, spared)
    host.ask(case)
    host.report(case)
    assert host.sent == [] and host.reports == []
    host.seconds = 1010.0
    host.look(case, sudo, spared)
    assert host.sent == [(600, "SIGKILL", 10.0)]


def test_an_order_that_shares_a_process_has_a_grace_of_its_own() -> None:
    host = CaseHost()
    first = host.case()
    shared = child(601, runner(600), session=601)
    other = child(602, runner(600), session=602)
    host.look(first, shared)
    host.seconds += 8.0
    second = host.case(order(id=2))
    host.look(second, shared, other)
    host.seconds += 2.0
    host.look(first, shared)
    host.look(second, shared, other)
    assert host.sent == [(601, "SIGTERM", 0.0), (602, "SIGTERM", 8.0), (601, "SIGKILL", 10.0)]
    host.seconds += 8.0
    host.look(second, shared, other)
    assert host.sent[3:] == [(602, "SIGKILL", 18.0)]


def test_a_fork_of_a_runner_is_asked_with_it() -> None:
    """A Python pool: each handles SIGTERM as the runner does, and none of them has a runner to wait for."""
    host = CaseHost()
    case = host.case()
    above = runner(600, "airflow task runner: d t r 7")
    fork = replace(runner(601, "airflow task runner: d t r 7", ppid=600), line=frozenset({600, 601}))
    host.look(case, above)
    host.look(case, above, fork)
    assert host.sent == [(600, "SIGTERM", 0.0), (601, "SIGTERM", 0.0)]


def test_only_a_runner_is_waited_for() -> None:
    """A runner that a task started has that task's process above it: what the runner left waits for neither."""
    host = CaseHost()
    case = host.case()
    bash = process(identity=Identity(590, 590), sid=590)
    above = runner(600, "airflow task runner: d t r 7", ppid=590)
    below = child(601, above)
    host.look(case, bash, above)
    host.die(above, case)
    host.look(case, bash, below)
    assert host.sent[2:] == [(601, "SIGTERM", 0.0)]
