"""One order from its first look to its last report: time, deaths and engines' answers are given in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dagstop.cases.case import CALM, GIVE_UP, LOOK_AGAIN, Case, Phase, Seen, View
from dagstop.evidence.place import Place
from dagstop.evidence.site import Site
from dagstop.host.containers import Container
from dagstop.kill.containers import ContainerEnd
from dagstop.model import Decision, Identity, Label, Process, Role, Verdict
from dagstop.report.findings import Findings
from tests.support.case_host import START, CaseHost
from tests.support.fake_proc import HOME, at, order, process, row, site

KILLED = Verdict(Decision.KILL, "of the stopped run")


def bash(pid: int = 601, **more: Any) -> Process:
    """What an operator started, in a session of its own."""
    return process(identity=Identity(pid, pid), sid=pid, **more)


def runner(pid: int = 600, label: Label | None = None) -> Process:
    return process(
        label, identity=Identity(pid, pid), sid=pid, role=Role.RUNNER, with_runner=True,
        line=frozenset({pid}),
    )  # fmt: skip


def container(number: int = 1) -> Container:
    return Container(f"{number:064x}", f"c{number}", "image", 0, at(-60), False, "no", {})


def ended(number: int = 1, **more: object) -> ContainerEnd:
    facts: dict[str, object] = {"signals": [("SIGTERM", at(0))], "died_at": at(1)}
    return ContainerEnd(container(number), KILLED, **(facts | more))  # type: ignore[arg-type]


def round_of(host: CaseHost, case: Case, *processes: Process, everything: bool = True) -> None:
    host.look(case, *processes, everything=everything)
    host.ask(case)
    host.report(case)


def test_it_ends_with_a_look_at_everything_that_came_a_while_after_the_last_death() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    assert (case.phase, case.due_at) == (Phase.STOPPING, 0.0)
    round_of(host, case, one, everything=False)
    assert (host.sent, case.phase) == ([(601, "SIGTERM", 0.0)], Phase.STOPPING)
    host.seconds += 1
    host.die(one, case)
    assert case.due_at == 0.0  # did it leave something behind?
    round_of(host, case, everything=False)
    assert case.phase is Phase.NOTHING_NEW
    assert case.next_look == host.seconds + CALM
    round_of(host, case)  # its other order is due, say: too early to be the last look
    assert case.phase is Phase.LAST_QUERY
    assert case.next_look == host.seconds + CALM
    host.seconds += CALM
    round_of(host, case)
    assert case.phase is Phase.DONE
    assert host.reports == [False, True]  # the first signals once, and the end once


def test_where_nothing_is_the_first_look_at_everything_is_the_last() -> None:
    host = CaseHost()
    case = host.case()
    round_of(host, case, everything=False)
    assert (case.phase, host.reports) == (Phase.NOTHING_NEW, [])
    round_of(host, case)
    assert (case.phase, host.reports) == (Phase.DONE, [True])


def test_a_look_in_which_something_ended_by_itself_is_not_the_last() -> None:
    """It may have forked after the look had passed: a process that hops from pid to pid does."""
    host, hop = CaseHost(brief=frozenset({601})), bash(601)
    case = host.case()
    round_of(host, case, hop)
    assert (case.phase, host.sent, host.reports) == (Phase.STOPPING, [], [])
    round_of(host, case, bash(602))
    assert host.sent == [(602, "SIGTERM", 0.0)]


def test_a_zombie_that_nobody_waits_for_holds_up_no_report() -> None:
    host, zombie = CaseHost(brief=frozenset({601})), bash(601, state="Z")
    case = host.case()
    round_of(host, case, zombie)
    assert case.phase is Phase.DONE


def test_what_is_dead_when_it_is_judged_holds_up_no_report() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    round_of(host, case, one)
    host.die(one, case)
    host.seconds += CALM
    read_before = Seen(one, KILLED, host.endings[one.identity])
    host.do(case.look(View((read_before,), site(), host.clock, host.seconds), host.seconds))
    assert case.phase is Phase.CLEAR


def test_a_case_that_waits_for_its_engines_is_not_looked_after_without_a_pause() -> None:
    host, one = CaseHost(engine=True), bash()
    case = host.case()
    round_of(host, case, one)
    host.answer(case)
    host.die(one, case)
    host.seconds += CALM
    round_of(host, case)
    assert case.phase is Phase.LAST_QUERY and case.next_look == host.seconds + LOOK_AGAIN


def test_the_last_look_comes_a_while_after_the_last_of_several_deaths() -> None:
    host, one, other = CaseHost(), bash(601), bash(602)
    case = host.case()
    round_of(host, case, one, other)
    host.die(one, case)
    host.seconds += CALM
    host.die(other, case)
    round_of(host, case)
    assert case.phase is Phase.LAST_QUERY and case.next_look == host.seconds + CALM


def test_what_a_dying_process_left_behind_is_stopped_too() -> None:
    host, one, late = CaseHost(), bash(), bash(602)
    case = host.case()
    round_of(host, case, one)
    host.die(one, case)
    host.seconds += CALM
    round_of(host, case, late)
    assert case.phase is Phase.STOPPING
    assert [sent[:2] for sent in host.sent[1:]] == [(602, "SIGTERM")]


def test_the_engines_have_the_last_word_and_are_asked_after_the_last_death() -> None:
    host, one = CaseHost(engine=True), bash()
    case = host.case()
    host.look(case, one)
    early = host.ask(case)
    assert early is not None and host.ask(case) is None  # one query at a time
    host.die(one, case)
    host.seconds += CALM
    round_of(host, case)
    assert case.phase is Phase.CLEAR and case.query is early
    host.answer(case)
    host.report(case)
    assert True not in host.reports  # that was asked while a process lived
    assert case.next_look == 0.0
    host.look(case)
    assert host.ask(case) is not None and case.phase is Phase.LAST_QUERY
    host.report(case)
    assert True not in host.reports  # it is not answered yet
    host.answer(case)
    host.report(case)
    assert host.reports[-1] is True


def test_a_death_while_the_engines_are_asked_makes_that_query_not_the_last() -> None:
    host, one, late = CaseHost(engine=True), bash(), bash(602)
    case = host.case()
    host.look(case, one)
    host.die(one, case)
    host.seconds += CALM
    host.look(case)
    host.ask(case)
    assert case.phase is Phase.LAST_QUERY
    host.look(case, late)
    assert case.phase is Phase.STOPPING
    host.die(late, case)
    host.answer(case)
    host.report(case)
    assert True not in host.reports


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_container_that_was_ended_may_have_been_started_again(dry_run: bool) -> None:
    host = CaseHost(engine=True)
    case = host.case(dry_run=dry_run)
    round_of(host, case)
    host.answer(case, ends=[ended()])
    host.report(case)
    assert host.reports == ([True] if dry_run else [])  # in a dry run it is still there next time
    if not dry_run:
        round_of(host, case)
        host.answer(case)
        host.report(case)
        assert host.reports == [True]
    assert list(case.ends) == [container().id]


def test_a_container_that_cannot_be_stopped_is_not_asked_for_for_ever() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case, ends=[ended(1, died_at=None, refused="read-only engine"), ended(2)])
    assert case.known() == () and case.named() == (container(1).id, container(2).id)
    host.report(case)
    assert host.reports == [True]


def test_an_engine_that_does_not_answer_is_reported_once_and_asked_until_it_does() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    for _ in range(3):
        round_of(host, case)
        host.answer(case, problem="connection refused")
        host.report(case)
    assert (host.warnings, host.reports) == (["connection refused"], [False])
    assert case.facts().problem == "connection refused"
    round_of(host, case)
    host.answer(case)
    host.report(case)
    assert host.reports == [False, False, True] and case.facts().problem is None


def test_while_an_engine_is_away_no_look_may_be_the_last() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case, problem="connection refused")
    assert case.may_be_last(host.seconds)
    round_of(host, case)
    assert case.query is not None and not case.may_be_last(host.seconds)
    host.look(case, everything=False)
    host.answer(case)
    assert case.may_be_last(host.seconds)
    round_of(host, case)
    host.answer(case)
    host.report(case)
    assert host.reports[-1] is True


def test_a_container_signalled_before_its_engine_died_is_asked_for_without_an_engine() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case, ends=[ended(died_at=None, problem="it died")], problem="it died")
    host.engine = False
    host.look(case)
    query = host.ask(case)
    assert query is not None and query.known == (container().id,)
    host.answer(case, gone={container().id: at(5)})
    host.report(case)
    assert host.reports[-1] is True
    (end,) = case.ends.values()
    assert (end.died_at, end.noticed) == (at(5), "gone when the engine was back")
    assert case.known() == ()


@pytest.mark.parametrize("how", ["refused", "in state D"])
def test_what_cannot_be_killed_is_given_up(how: str) -> None:
    host, one = CaseHost(masked=frozenset({601} if how == "refused" else ())), bash()
    case = host.case()
    round_of(host, case, one)
    if how == "in state D":
        host.seconds += 10
        round_of(host, case, one)
        assert host.sent[-1] == (601, "SIGKILL", 10.0)
        host.seconds += GIVE_UP - 0.1
        round_of(host, case, one)
        assert True not in host.reports
        host.seconds += 0.1
    round_of(host, case, one)
    assert case.phase is Phase.DONE and host.reports[-1] is True


def test_a_case_of_which_nothing_is_known_needs_no_look_at_everything_yet() -> None:
    """Signals come first; a look at everything costs time that they would wait for."""
    host, one = CaseHost(), bash()
    case = host.case()
    assert not case.may_be_last(host.seconds)
    round_of(host, case, one, everything=False)
    assert not case.may_be_last(host.seconds)
    host.die(one, case)
    round_of(host, case, everything=False)
    assert case.may_be_last(host.seconds)


@pytest.mark.parametrize(("age", "left"), [(3.0, 7.0), (0.5, 9.5), (-2.0, 10.0)])
def test_the_settling_time_began_with_the_order(age: float, left: float) -> None:
    """By the database's clock alone; one that was set back gives no more than the whole of it."""
    case = CaseHost().case(order(created_at=at(0), db_now=at(age), settle_seconds=10.0))
    assert case.settled_at == START + left


def test_a_zombie_in_doubt_holds_up_no_report_and_is_not_named() -> None:
    host = CaseHost()
    case = host.case()
    round_of(host, case, bash(state="Z", above_ends=True, contrary="what it runs under is ending"))
    assert (host.reports, case.spared) == ([True], {})


def test_what_is_gone_when_it_is_judged_holds_up_no_dry_run() -> None:
    host = CaseHost(brief=frozenset({601}))
    case = host.case(dry_run=True)
    round_of(host, case, bash())
    assert host.reports == [True]


def test_a_process_without_words_is_signalled_as_any_other() -> None:
    """It may be in an exec, or have freed its memory by now."""
    host = CaseHost()
    host.look(host.case(), bash(argv=()))
    assert host.sent == [(601, "SIGTERM", 0.0)]


def test_a_place_that_is_not_known_any_more_holds_up_no_report() -> None:
    host = CaseHost()
    case = host.case()
    round_of(host, case, bash(place=Identity(5, 5), contrary="its container has ended"))
    assert host.reports == [True] and host.sent == []


def test_a_death_that_a_look_comes_after_needs_no_look_of_its_own() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    host.look(case, one)
    case.begin_round(host.seconds)
    host.die(one, case)
    host.do(case.look(View((), site(), host.clock, host.seconds), host.seconds))
    case.plan(host.seconds, closely=True)
    assert case.due_at == host.seconds + CALM


def test_while_one_is_waited_for_the_next_look_comes_at_the_usual_time() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    host.look(case, one)
    host.die(one, case)
    host.look(case, bash(602, above_ends=True, contrary="what it runs under is ending"))
    assert (case.phase, case.next_look) == (Phase.STOPPING, host.seconds + LOOK_AGAIN)


def test_beside_what_cannot_be_killed_a_death_hurries_nothing() -> None:
    host, stuck, one = CaseHost(masked=frozenset({601})), bash(601), bash(602)
    case = host.case()
    host.look(case, stuck, one)
    host.die(one, case)
    host.look(case, stuck)
    assert (case.phase, case.next_look) == (Phase.CLEAR, host.seconds + LOOK_AGAIN)


def test_a_container_that_is_not_spared_any_more_is_not_named() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case, spared=[(container(1), Verdict(Decision.SPARE, "in doubt"))])
    assert list(case.spared_containers) == [container(1).id]
    host.look(case)
    host.ask(case)
    host.answer(case)
    assert case.spared_containers == {}


def test_what_cannot_be_killed_ends_no_settling_time() -> None:
    host, above, below = CaseHost(masked=frozenset({601})), runner(), bash()
    case = host.case(order(kind="task", task_id="t", map_index=-1, self_reported=True, settle_seconds=5.0))
    for _ in range(2):
        round_of(host, case, above, below)
    assert case.phase is Phase.STOPPING
    host.seconds = START + 5.0
    host.look(case, above, below)
    assert host.sent == [(600, "SIGTERM", 5.0)]


def test_what_cannot_be_killed_ends_no_grace() -> None:
    host, one, other = CaseHost(masked=frozenset({601})), bash(601), bash(602)
    case = host.case()
    for _ in range(3):
        round_of(host, case, one, other)
    assert case.phase is Phase.STOPPING and True not in host.reports


def test_what_was_given_up_and_dies_after_all_is_not_the_end() -> None:
    host, one = CaseHost(engine=True, masked=frozenset({601})), bash()
    case = host.case()
    round_of(host, case, one)
    host.answer(case)
    round_of(host, case, one)
    assert case.phase is Phase.LAST_QUERY
    host.die(one, case)
    assert case.phase is Phase.STOPPING and case.due_at == 0.0


def test_a_look_that_failed_is_not_the_last() -> None:
    host = CaseHost()
    case = host.case()
    host.look(case)
    host.ask(case)
    case.failed("KeyError: k", host.seconds)
    host.report(case)
    assert host.reports == [] and case.next_look <= host.seconds + 1.0
    assert case.facts().problem == "KeyError: k"
    round_of(host, case)
    assert host.reports == [True] and case.facts().problem is None


def test_a_round_in_which_something_failed_is_not_the_last() -> None:
    """SIGKILL could not be sent, say, and then the look went well."""
    host = CaseHost()
    case = host.case()
    host.look(case)
    case.failed("KeyError: k", host.seconds)
    host.do(case.look(View((), site(), host.clock, host.seconds), host.seconds))
    host.ask(case)
    host.report(case)
    assert host.reports == []


def test_the_engines_are_asked_again_after_a_round_that_failed() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    assert case.phase is Phase.LAST_QUERY
    case.failed("KeyError: k", host.seconds)
    host.answer(case)
    host.look(case)
    assert host.ask(case) is not None


def test_it_is_not_due_again_without_a_pause_whatever_fails() -> None:
    host = CaseHost()
    case = host.case()
    case.next_glance = 0.0
    case.begin_round(host.seconds)
    assert case.due_at > host.seconds
    case.next_look = host.seconds
    case.begin_round(host.seconds)
    assert case.due_at > host.seconds
    case.next_look = host.seconds + 60
    case.failed("KeyError: k", host.seconds)
    assert host.seconds < case.due_at <= host.seconds + 10


def test_a_death_of_another_orders_process_is_no_concern_of_it() -> None:
    host = CaseHost()
    case = host.case()
    host.look(case)
    case.died({Identity(601, 601)})
    assert case.phase is Phase.CLEAR and case.due_at > host.seconds


def test_what_a_container_got_before_its_engine_died_is_not_forgotten() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    for signal, died in (("SIGTERM", None), ("SIGKILL", at(5))):
        round_of(host, case)
        host.answer(
            case, ends=[ended(signals=[(signal, at(1))], died_at=died, problem=None if died else "x")]
        )
    (end,) = case.ends.values()
    assert [name for name, _ in end.signals] == ["SIGTERM", "SIGKILL"]


def test_sigkill_comes_after_one_grace_and_the_next_look_with_it() -> None:
    host, one = CaseHost(), bash()
    case = host.case(grace=3.0)
    host.look(case, one)
    assert case.next_look == host.seconds + LOOK_AGAIN
    host.seconds = START + 2.9
    host.look(case, one)
    assert case.next_look == START + 3.0
    assert host.sent == [(601, "SIGTERM", 0.0)]
    host.seconds = START + 3.0
    host.look(case, one)
    assert host.sent[1:] == [(601, "SIGKILL", 3.0)]


def test_a_sigkill_that_falls_due_during_a_look_waits_for_no_other_look() -> None:
    host, one = CaseHost(), bash()
    case = host.case(grace=3.0)
    host.look(case, one)
    host.seconds = START + 2.9
    host.look(case, one)
    case.plan(START + 3.1, closely=True)  # it took so long
    assert case.next_look == START + 3.0


def test_what_was_seen_of_the_run_is_not_missed_in_its_report() -> None:
    """What is to die, dead by then or not, and the supervisors of our Airflow; not what is in doubt."""
    host = CaseHost(brief=frozenset({602}))
    case = host.case()
    named = {name: Label(dag_id="d", run_id="r", task_id=name, airflow_home=HOME) for name in "abcd"}
    other = Label(dag_id="d", run_id="r", task_id="e", airflow_home="/srv/b")
    supervisors = [
        process(label, identity=Identity(pid, pid), role=Role.SUPERVISOR)
        for pid, label in ((603, named["c"]), (604, other))
    ]
    doubtful = bash(605, label=named["d"], trusted=False)
    host.look(case, bash(601, label=named["a"]), bash(602, label=named["b"]), *supervisors, doubtful)
    assert case.seen == {named["a"], named["b"], named["c"]}


def test_what_could_not_be_sent_begins_no_grace() -> None:
    """The host failed in between: it is signalled by the next look."""
    host, one = CaseHost(), bash()
    case = host.case()
    view = View((Seen(one, KILLED, host._ending(one)),), site(), host.clock, host.seconds)
    case.look(view, host.seconds)
    assert case.next_at(host.seconds) == host.seconds + LOOK_AGAIN
    assert case.escalate(host.seconds + 100) == []


def test_a_case_is_known_by_its_order() -> None:
    host = CaseHost()
    assert [host.case(order(id=number)).id for number in (5, None)] == [5, 0]


def test_what_dies_in_a_container_with_a_home_of_its_own_was_seen() -> None:
    """The homes of this host are other paths."""
    host = CaseHost()
    case = host.case()
    inside = bash(label=Label(dag_id="d", run_id="r", task_id="t", airflow_home="/srv/inside"))
    view = View((Seen(inside, KILLED, host._ending(inside)),), site(), host.clock, host.seconds)
    case.look(view, host.seconds)
    assert case.seen == {inside.label}


def test_each_first_signal_is_in_the_journal_once() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    for _ in range(3):
        host.look(case, one)
        host.seconds += 10
    assert host.journal == [(601, ["SIGTERM"])]
    assert [name for _, name, _ in host.sent] == ["SIGTERM", "SIGKILL"]
    other = host.case(order(id=2))
    host.look(other, one)
    assert host.journal[1:] == [(601, ["SIGTERM", "SIGKILL"])]  # what it had got by then


def test_a_runner_that_reports_its_own_failure_has_the_settling_time() -> None:
    """What its operator started has ended, if the operator failed by itself: what lives dies at once."""
    host, above, below = CaseHost(), runner(), bash()
    asked = order(kind="task", task_id="t", map_index=-1, self_reported=True, settle_seconds=10.0)
    case = host.case(asked)
    host.look(case, above, below)
    assert host.sent == [(601, "SIGTERM", 0.0)]
    host.die(below, case)
    host.seconds = START + 8.9  # the row was read a second after it was written
    round_of(host, case, above)
    assert len(host.sent) == 1 and case.phase is Phase.STOPPING
    host.seconds = START + 9.0
    host.look(case, above)
    assert host.sent[1:] == [(600, "SIGTERM", 9.0)]


@pytest.mark.parametrize("index", [0, 1, None])
def test_each_map_index_settles_by_its_own_row(index: int | None) -> None:
    """One ran when its run was failed, the other had failed by itself before, and may still report it."""
    host = CaseHost()
    label = Label(dag_id="d", run_id="r", task_id="t", map_index=index, airflow_home=HOME)
    rows = (row(map_index=0, state="running"), row(map_index=1, state="failed"))
    case = host.case(order(targets=rows, present=tuple(replace(one, state="failed") for one in rows)))
    host.look(case, runner(label=label))
    assert host.sent == ([] if index != 0 else [(600, "SIGTERM", 0.0)])


def test_what_is_started_to_clean_up_has_its_starters_grace() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    host.look(case, one)
    cleanup = process(identity=Identity(700, int(START * 100)), ppid=601, sid=601)
    before = process(identity=Identity(701, int(START * 100) - 1), ppid=601, sid=601)
    host.seconds += 1
    host.look(case, one, cleanup, before)
    assert host.sent[1:] == [(701, "SIGTERM", 1.0)]
    host.seconds = START + 10
    host.look(case, one, cleanup, before)
    assert sorted(host.sent[2:]) == [(pid, "SIGKILL", 10.0) for pid in (601, 700, 701)]


def test_a_clean_up_goes_on_after_a_restart_of_the_listener() -> None:
    """The grace began with the signal of the listener before; nobody gets a second SIGTERM."""
    host, one = CaseHost(), bash()
    case = host.case()
    case.sent_before[one.identity] = [("SIGTERM", at(-6)), ("SIGTERM", at(-1))]
    host.look(case, one)
    assert (host.sent, host.journal) == ([], [(601, ["SIGTERM", "SIGTERM"])])
    assert case.first_signal == START - 6
    host.seconds = START + 4
    host.look(case, one)
    assert host.sent == [(601, "SIGKILL", 4.0)]


def test_what_is_to_be_left_alone_after_its_sigterm_gets_no_sigkill() -> None:
    host, one = CaseHost(), bash()
    case = host.case()
    host.look(case, one)
    case.order = replace(case.order, hands_off="observe only")
    host.seconds += 5
    host.look(case, one)
    assert host.endings[one.identity].holders == 0
    ((_, verdict),) = case.spared.values()
    assert verdict.reason.endswith("; it had got SIGTERM")
    host.seconds += 10
    round_of(host, case, one)
    assert host.sent == [(601, "SIGTERM", 0.0)] and host.reports[-1] is True


def test_what_runs_under_one_that_is_ending_is_asked_for_again() -> None:
    host = CaseHost()
    case = host.case()
    doubtful = bash(above_ends=True, contrary="what it runs under is ending")
    host.look(case, doubtful, everything=False)
    assert case.phase is Phase.STOPPING
    round_of(host, case, doubtful)
    assert (case.phase, host.reports) == (Phase.STOPPING, [])
    host.seconds += GIVE_UP
    round_of(host, case, doubtful)
    assert (host.sent, host.reports) == ([], [True])


def test_an_answer_of_the_engines_hurries_nobody_who_waits() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case, bash(above_ends=True, contrary="what it runs under is ending"))
    host.answer(case)
    assert (case.phase, case.next_look) == (Phase.STOPPING, host.seconds + LOOK_AGAIN)


def test_a_dry_run_shows_what_would_die_at_the_first_look() -> None:
    host, above = CaseHost(), runner()
    below = process(identity=Identity(601, 601), ppid=600, sid=600, with_runner=True, line=above.line)
    case = host.case(dry_run=True)
    host.look(case, above, below)
    assert [pid for pid, _, _ in host.sent] == [600, 601]


def test_a_dry_run_is_over_with_its_next_look() -> None:
    """What would have died counts as dead, and nobody saw it die."""
    host, one = CaseHost(), bash()
    case = host.case(dry_run=True)
    host.look(case, one)
    host.endings[one.identity].died_at = host.clock
    round_of(host, case)
    assert host.reports[-1] is True


def test_who_only_watches_a_container_ends_with_it() -> None:
    host, watcher = CaseHost(engine=True), bash(argv=("docker", "stats", "c1", "c2"))
    case = host.case()
    round_of(host, case, watcher)
    host.answer(case, ends=[ended(2)])
    assert host.sent == [(601, "SIGTERM", 0.0)]
    host.look(case, watcher)
    host.ask(case)
    host.answer(case, ends=[ended(1)])
    assert host.sent[1:] == [(601, "SIGKILL", 0.0)]


@pytest.mark.parametrize(
    ("named", "gone"),
    [
        ("c1", True),
        (f"{1:064x}"[:12], True),
        (f"{1:064x}"[:11], False),
        ("c", False),
        ("another-web-server", False),
    ],
)
def test_what_is_watched_is_named_as_docker_names_it(named: str, gone: bool) -> None:
    """By its name, or by the beginning of its id that the docker CLI shows."""
    host, watcher = CaseHost(engine=True), bash(argv=("docker", "logs", "-f", named))
    case = host.case()
    round_of(host, case, watcher)
    host.answer(case, ends=[ended(1)])
    assert (host.sent[1:] == [(601, "SIGKILL", 0.0)]) is gone


def test_a_container_that_is_spared_now_is_no_failed_kill() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case, ends=[ended(1, died_at=None, problem="x"), ended(2)])
    host.look(case)
    host.ask(case)
    spared = Verdict(Decision.SPARE, "a row read since speaks for it")
    host.answer(case, spared=[(container(1), spared), (container(2), spared)])
    assert list(case.ends) == [container(2).id], "what was seen dead is said"
    assert list(case.spared_containers) == [container(1).id, container(2).id]


def test_what_an_earlier_listener_signalled_is_asked_for_by_name() -> None:
    host = CaseHost()
    case = host.case()
    given_up = {"id": "ghi", "died_at": None, "alive": "the engine refused"}
    case.earlier = Findings(
        containers=[{"id": "abc", "died_at": None}, {"id": "def", "died_at": "then"}, given_up]
    )
    host.look(case)
    query = host.ask(case)  # though no engine is there
    assert query is not None and (query.known, query.named) == (("abc",), ("abc", "def", "ghi"))
    host.answer(case, gone={"abc": at(3)})
    assert case.earlier.containers[0]["noticed"] == "gone when the listener came back"


def test_a_container_that_is_let_live_is_spared_and_its_signals_said() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case, ends=[ended(died_at=None, let_live="observe only"), ended(2)])
    assert list(case.ends) == [container(2).id]
    host.look(case)
    assert host.ask(case) is not None, "the other one may have been started again"
    host.answer(case, spared=[(container(), Verdict(Decision.SPARE, "observe only"))])
    ((_, verdict),) = case.spared_containers.values()
    assert verdict.reason.endswith("; it had got SIGTERM")


def in_place(*, unlisted: bool) -> tuple[Process, Site]:
    """What is spared in a container that an Airflow lives in."""
    init = Identity(5, 5)
    place = Place(init, unlisted=unlisted)
    return bash(place=init), site(places={init: place})


@pytest.mark.parametrize("unlisted", [True, False])
def test_what_lives_in_a_container_that_no_engine_has_listed_yet_is_asked_for_again(unlisted: bool) -> None:
    host = CaseHost()
    case = host.case()
    one, seen_in = in_place(unlisted=unlisted)
    seen = Seen(one, Verdict(Decision.SPARE, "whose its container is cannot be said"), None)
    host.do(case.look(View((seen,), seen_in, host.clock, host.seconds), host.seconds))
    assert case.site is seen_in
    assert case.phase is (Phase.STOPPING if unlisted else Phase.CLEAR)


def test_while_another_one_lives_a_death_is_not_looked_into() -> None:
    host, one, other = CaseHost(), bash(601), bash(602)
    case = host.case()
    host.look(case, one, other)
    host.die(one, case)
    assert case.due_at == host.seconds + LOOK_AGAIN


def test_after_the_last_query_the_engines_are_not_asked_once_more() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case)
    assert case.phase is Phase.LAST_QUERY and host.ask(case) is None


def test_an_engine_that_answers_is_not_said_to_be_away() -> None:
    host = CaseHost(engine=True)
    case = host.case()
    round_of(host, case)
    host.answer(case)
    assert (host.warnings, host.reports) == ([], [])


def test_beside_what_cannot_be_killed_the_engines_are_asked_with_the_next_look() -> None:
    host, one = CaseHost(engine=True, masked=frozenset({601})), bash()
    case = host.case()
    round_of(host, case, one)
    host.answer(case, problem="connection refused")
    round_of(host, case, one)
    host.answer(case, problem="connection refused")
    assert (case.phase, case.next_look) == (Phase.CLEAR, host.seconds + LOOK_AGAIN)


def test_an_engine_that_is_slow_to_answer_holds_up_no_look_at_everything() -> None:
    host, one = CaseHost(engine=True), bash()
    case = host.case()
    round_of(host, case, one)
    host.die(one, case)
    host.look(case, everything=False)
    assert case.query is not None and case.may_be_last(host.seconds)


def test_what_cannot_be_killed_needs_a_look_at_everything() -> None:
    """Else it would be waited for without an end."""
    host, one = CaseHost(masked=frozenset({601})), bash()
    case = host.case()
    host.look(case, one, everything=False)
    assert case.phase is Phase.STOPPING and case.may_be_last(host.seconds)


def test_the_end_of_a_container_ends_no_grace_but_a_watchers() -> None:
    host, one = CaseHost(engine=True), bash()
    case = host.case()
    round_of(host, case, one)
    host.answer(case, ends=[ended(1)])
    assert host.sent == [(601, "SIGTERM", 0.0)]


def test_who_watches_a_container_that_lives_has_its_grace() -> None:
    host, watcher = CaseHost(engine=True), bash(argv=("docker", "stats", "c1"))
    case = host.case()
    round_of(host, case, watcher)
    host.answer(case, ends=[ended(1, died_at=None, problem="it does not end")])
    assert host.sent == [(601, "SIGTERM", 0.0)]


def test_its_row_is_read_again_a_while_after_it_was_opened() -> None:
    host = CaseHost()
    assert host.case().read_at == host.seconds


@pytest.mark.parametrize("quiet", [False, True])
def test_the_engines_are_told_whether_what_has_ended_already_is_news(quiet: bool) -> None:
    host = CaseHost(engine=True)
    case = host.case()
    if quiet:
        case.quiet = True  # others closed it before this listener was there
    host.look(case)
    query = host.ask(case)
    assert query is not None and query.quiet is quiet
