"""Which process is signalled when: time is given to the case, and signals are only recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagstop.cases.case import LOOK_AGAIN, Case, Seen, View
from dagstop.model import Decision, Identity, Process, Role, Verdict
from tests.support.case_host import START, CaseHost
from tests.support.fake_proc import at, order, process, site

KILLED = Verdict(Decision.KILL, "of the stopped run")


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


def alone(pid: int = 601, **more: object) -> Process:
    """It leads a session of its own, as what a BashOperator starts does."""
    return process(identity=Identity(pid, pid), sid=pid, **more)


def shown(host: CaseHost, case: Case, *seen: Seen) -> None:
    """A look at processes that were read and judged a moment ago, whatever became of them since."""
    host.do(case.look(View(seen, site(), host.clock, host.seconds), host.seconds))


def test_the_runner_is_asked_first_then_who_leads_a_session_then_parents_before_children() -> None:
    """A bash whose last child dies first ends well, and Airflow would write `success`."""
    host = CaseHost()
    below, above = (process(identity=Identity(pid, pid), sid=602) for pid in (603, 601))
    host.look(host.case(), below, alone(604), above, alone(602), replace(runner(605), sid=605))
    assert [pid for pid, _, _ in host.sent] == [605, 602, 604, 601, 603]


def test_what_may_not_do_anything_more_is_killed_at_once() -> None:
    host, one = CaseHost(), alone()
    case = host.case()
    shown(host, case, Seen(one, replace(KILLED, at_once=True), host._ending(one)))
    assert host.sent == [(601, "SIGKILL", 0.0)]


def test_what_left_the_session_of_its_runner_does_not_wait_for_it() -> None:
    host = CaseHost()
    case = host.case()
    above = runner(600, "airflow task runner: d t r 7")
    host.look(case, above)
    host.look(case, above, child(601, above, session=601))
    assert host.sent == [(600, "SIGTERM", 0.0), (601, "SIGTERM", 0.0)]


def test_a_runner_that_shares_its_session_is_no_others_runner() -> None:
    """One executor forked both, and leads the session."""
    host = CaseHost()
    case = host.case()
    dead, living = runner(600, "airflow worker -- x"), runner(610, "airflow worker -- y")
    below = child(601, dead)
    host.look(case, dead, living)
    host.die(dead, case)
    host.look(case, living, below)
    assert host.sent[2:] == [(601, "SIGTERM", 0.0)]


def test_a_sudo_waits_for_its_child_from_the_first_signal_on() -> None:
    host = CaseHost()
    case = host.case()
    sudo = runner(600, *SUDO)
    real = child(601, sudo)
    host.look(case)
    host.seconds = START + 5
    host.look(case, sudo, real)
    host.seconds = START + 12
    host.look(case, sudo, real)
    assert host.sent == [(601, "SIGTERM", 5.0)]


def test_a_sudo_waits_for_no_child_that_was_seen_dead_since_it_was_read() -> None:
    host = CaseHost()
    case = host.case()
    sudo = runner(600, *SUDO)
    real = child(601, sudo)
    host.look(case, sudo, real)
    host.die(real, case)
    shown(host, case, *(Seen(one, KILLED, host._ending(one)) for one in (sudo, real)))
    assert host.sent[1:] == [(600, "SIGTERM", 0.0)]


def test_what_is_started_by_one_that_was_killed_is_no_clean_up() -> None:
    host, one = CaseHost(), alone()
    case = host.case()
    killed = Seen(one, replace(KILLED, at_once=True), host._ending(one))
    shown(host, case, killed)
    host.seconds += 1
    late = process(identity=Identity(700, int(host.seconds * 100)), ppid=601, sid=601)
    shown(host, case, killed, Seen(late, KILLED, host._ending(late)))
    assert host.sent[1:] == [(700, "SIGTERM", 1.0)]


def test_two_that_name_each_other_as_parent_are_signalled() -> None:
    """Their pids were given out again between two reads."""
    host, one = CaseHost(), alone()
    case = host.case()
    host.look(case, one)
    circle = [alone(pid, ppid=ppid) for pid, ppid in ((602, 603), (603, 602))]
    host.look(case, one, *circle)
    assert [pid for pid, _, _ in host.sent] == [601, 602, 603]


def test_what_outlived_its_grace_is_killed_before_the_host_is_looked_at_again() -> None:
    """What got its first signal late has no grace of its own."""
    host, one, late = CaseHost(), alone(601), alone(602)
    case = host.case()
    host.look(case, one)
    host.seconds = START + 5
    host.look(case, one, late)
    assert case.escalate(START + 9.9) == []
    host.seconds = START + 10
    host.do(case.escalate(host.seconds))
    assert host.sent[2:] == [(601, "SIGKILL", 10.0), (602, "SIGKILL", 10.0)]


def test_the_next_look_after_a_sigkill_comes_at_the_usual_time() -> None:
    host, one = CaseHost(), alone()
    case = host.case()
    host.look(case, one)
    host.seconds += 11
    host.look(case, one)
    assert host.sent[-1] == (601, "SIGKILL", 11.0) and case.next_look == host.seconds + LOOK_AGAIN
    assert case.escalate(host.seconds) == []


def test_what_could_not_be_signalled_at_first_is_in_the_journal_when_it_is() -> None:
    """The host failed between the look and the signal."""
    host, one = CaseHost(), alone()
    case = host.case()
    case.look(View((Seen(one, KILLED, host._ending(one)),), site(), host.clock, host.seconds), host.seconds)
    host.look(case, one)
    assert (host.sent, host.journal) == ([(601, "SIGTERM", 0.0)], [(601, ["SIGTERM"])])


def test_what_another_order_signalled_is_in_the_journal_once_for_this_one() -> None:
    """Though it is killed in the same look."""
    host, one = CaseHost(), alone()
    host.look(host.case(), one)
    case = host.case(order(id=2))
    shown(host, case, Seen(one, replace(KILLED, at_once=True), host._ending(one)))
    assert host.journal[1:] == [(601, ["SIGTERM"])]
    assert [name for _, name, _ in host.sent] == ["SIGTERM", "SIGKILL"]


def test_what_another_order_has_signalled_is_not_resumed() -> None:
    """An earlier listener signalled it for this order; the grace that it was given since counts."""
    host, one = CaseHost(), alone()
    host.look(host.case(), one)
    case = host.case(order(id=2))
    case.sent_before[one.identity] = [("SIGTERM", at(-6)), ("SIGCONT", at(-6))]
    host.look(case, one)
    assert [name for name, _ in host.endings[one.identity].signals] == ["SIGTERM"]
    assert case.first_signal == START


@pytest.mark.parametrize(("sent_at", "first"), [(0.0, START), (5.0, START), (-0.5, START - 0.5)])
def test_a_grace_that_goes_on_began_with_its_signal_and_never_later_than_now(
    sent_at: float, first: float
) -> None:
    """The clock of the host may have been set back since."""
    host, one = CaseHost(), alone()
    case = host.case()
    case.sent_before[one.identity] = [("SIGTERM", at(sent_at))]
    host.look(case, one)
    assert case.first_signal == first


def test_what_was_spared_and_is_not_any_more_is_not_named() -> None:
    host, one = CaseHost(), alone()
    case = host.case(order(hands_off="observe only"))
    host.look(case, one)
    assert list(case.spared) == [one.identity]
    case.order = order()
    host.look(case, one)
    assert case.spared == {} and host.sent == [(601, "SIGTERM", 0.0)]


def test_what_died_of_its_signal_is_reported_though_it_would_be_spared_now() -> None:
    """It was read before it died, and what was read since speaks for it."""
    host, one = CaseHost(), alone()
    case = host.case()
    host.look(case, one)
    host.die(one, case)
    shown(host, case, Seen(one, Verdict(Decision.SPARE, "cleared"), None))
    assert [ending.process for ending, _ in case.facts().processes] == [one]


def test_a_report_has_what_was_signalled_and_why_by_the_last_look() -> None:
    host, one = CaseHost(), alone()
    case = host.case()
    for verdict in (KILLED, replace(KILLED, reason="of a task that was cleared")):
        shown(host, case, Seen(one, verdict, host._ending(one)))
    assert case.facts().processes == [(host.endings[one.identity], verdict)]
