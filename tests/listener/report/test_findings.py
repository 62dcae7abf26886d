"""What a report says of what it names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from dagstop.evidence.watch import Watch
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.kill.containers import ContainerEnd
from dagstop.kill.endings import Ending, Endings
from dagstop.model import Decision, Identity, Label, Outcome, Process, Role, Target, Verdict, Whose
from dagstop.report.findings import (
    CaseFacts,
    Findings,
    begun_here,
    findings,
    is_superseded,
    missing,
    resumed,
    summary,
)
from dagstop.report.words import not_told
from tests.support.fake_proc import HOME, KEY, UUID, at, order, process, row


def test_what_died_before_its_signal_says_so() -> None:
    proc = ProcFS()
    pool = Endings(proc)
    watch = Watch(proc, trusted_uids=frozenset, own_pid=os.getpid())
    child = subprocess.Popen(["sleep", "7603"])
    ending = pool.take(watch.look()[child.pid])
    assert ending is not None
    verdict = Verdict(Decision.KILL, "of the stopped run", ("environment",))
    child.kill()
    child.wait()
    pool.stop(ending, hard=False)
    result = findings(
        CaseFacts(order(), [(ending, verdict)]), pool, lambda moment: moment, lambda process: at(-10), ()
    )
    (item,) = result.processes
    assert item["signals"] == [] and item["died_at"] is not None
    assert item["noticed"] == "ended before it was signalled"
    assert result.last_death_at is not None and result.first_signal_at is None


def item(
    pid: int, *, died: float | None = None, signals: Sequence[tuple[str, float]] = (), **more: Any
) -> dict[str, Any]:
    """A process as a report holds it."""
    facts = {
        "pid": pid,
        "start": pid + 1000,
        "command": "sleep 1",
        "signals": [[n, at(s).isoformat()] for n, s in signals],
    }
    return {**facts, "died_at": None if died is None else at(died).isoformat(), **more}


def box(
    ident: str, *, died: float | None = None, signals: Sequence[tuple[str, float]] = (), **more: Any
) -> dict[str, Any]:
    """A container as a report holds it."""
    facts = {"id": ident, "name": f"name-{ident}", "signals": [[n, at(s).isoformat()] for n, s in signals]}
    return {**facts, "died_at": None if died is None else at(died).isoformat(), **more}


ALIVE, DEAD = item(600), item(601, died=1)
BAD_TO_GOOD: list[tuple[dict[str, Any], Outcome]] = [
    ({"processes": [ALIVE, DEAD]}, Outcome.UNKILLABLE),
    ({"spared": [{"pid": 7}]}, Outcome.SPARED),
    ({"could_not_look": ["uid 7"]}, Outcome.COULD_NOT_LOOK),
    ({"problem": "the engine does not answer"}, Outcome.COULD_NOT_LOOK),
    ({"not_found": ["t"]}, Outcome.NOT_FOUND),
    ({"containers": [box("c", died=1)]}, Outcome.STOPPED),
    ({"spared": [{"pid": 7, "whose": Whose.LATER_TRY.value}]}, Outcome.SUPERSEDED),
    ({}, Outcome.NOTHING_FOUND),
]


@pytest.mark.parametrize("number", range(len(BAD_TO_GOOD)))
def test_the_outcome_is_the_worst_that_is_true(number: int) -> None:
    facts, outcome = BAD_TO_GOOD[number]
    assert Findings(**facts).outcome(superseded=False) is outcome
    assert Findings(**{**dict(good(number)), **facts}).outcome(superseded=False) is outcome


def good(number: int) -> Iterator[tuple[str, Any]]:
    """All that is better than that."""
    for facts, _ in BAD_TO_GOOD[number + 1 :]:
        yield from facts.items()


def test_a_process_that_died_is_stopped_and_a_container_that_lives_is_not() -> None:
    assert Findings(processes=[DEAD]).outcome(superseded=True) is Outcome.STOPPED
    assert Findings(processes=[DEAD], containers=[box("c")]).outcome(superseded=True) is Outcome.UNKILLABLE
    assert Findings().outcome(superseded=True) is Outcome.SUPERSEDED


@pytest.mark.parametrize("whose", [Whose.ANOTHER, Whose.FINISHED, Whose.AIRFLOW])
def test_what_is_certainly_not_the_runs_is_no_outcome(whose: Whose) -> None:
    assert (
        Findings(spared=[{"pid": 7, "whose": whose.value}]).outcome(superseded=False) is Outcome.NOTHING_FOUND
    )


def test_the_detail_has_the_lists_that_are_always_read_and_of_the_others_what_there_is() -> None:
    assert Findings().detail() == {"processes": [], "containers": [], "spared": []}
    full = Findings(
        [DEAD], [box("c")], [{"pid": 7}], ["t"], ["e"], ["u"],
        not_told=[{"from": "a"}], containers_untied=["w"], execs_untied=["y"], containers_untold=["n"],
        execs_untold=["x"], problem="away\n",
    )  # fmt: skip
    assert full.detail() == {
        "processes": [DEAD], "containers": [box("c")], "spared": [{"pid": 7}], "not_found": ["t"],
        "ended_by_itself": ["e"], "could_not_look": ["u"], "not_told": [{"from": "a"}], "containers_untied": ["w"],
        "execs_untied": ["y"], "containers_untold": ["n"], "execs_untold": ["x"], "problem": "away\\n",
    }  # fmt: skip


def test_a_later_case_adds_to_what_an_earlier_one_found() -> None:
    earlier = Findings(
        [item(600), item(601, died=1), item(602)], [box("a", signals=[("SIGTERM", 1)]), box("b"), box("d", died=1)],
        [{"pid": 9}], ["t", "u"], ["x"], first_signal_at=at(1), last_death_at=at(2),
    )  # fmt: skip
    later = Findings(
        [item(600, died=5), item(700, died=5)], [box("a", died=4, signals=[("SIGKILL", 3)]), box("e", died=4)],
        [{"pid": 601}, {"pid": 602}, {"container": "name-b"}, {"container": "name-d"}], ["u", "v"], ["t", "y"],
        ["uid 7"], not_told=[{"from": "a"}], containers_untied=["w"], execs_untied=["y"],
        containers_untold=["n"], execs_untold=["x"], problem="away",
        first_signal_at=at(3), last_death_at=at(5),
    )  # fmt: skip
    both = later.merged(earlier)
    # 602 and b live and are spared now, which says it all; 601 and d are dead, whoever has their number now
    assert both.processes == [item(600, died=5), item(601, died=1), item(700, died=5)]
    both_signals = [("SIGTERM", 1.0), ("SIGKILL", 3.0)]
    assert both.containers == [box("a", died=4, signals=both_signals), box("d", died=1), box("e", died=4)]
    assert both.spared == later.spared
    assert (both.not_found, both.ended_by_itself) == (["u"], ["t"])
    assert (both.could_not_look, both.problem) == (["uid 7"], "away")
    assert (both.containers_untied, both.execs_untied) == (["w"], ["y"])
    assert (both.not_told, both.containers_untold, both.execs_untold) == ([{"from": "a"}], ["n"], ["x"])
    assert (both.first_signal_at, both.last_death_at) == (at(1), at(5))
    nothing = Findings().merged(earlier)
    assert (nothing.first_signal_at, nothing.last_death_at) == (at(1), at(2))
    assert later.merged(Findings()).first_signal_at == at(3)


def test_what_an_earlier_listener_left_is_held_against_the_host() -> None:
    found = Findings([item(600, alive="still there"), item(601), item(602, died=1)], last_death_at=at(1))
    found.see(lambda identity: identity == Identity(601, 1601), at(9))
    gone: Any = {"noticed": "gone when the listener came back"}
    assert found.processes == [item(600, died=9, **gone), item(601), item(602, died=1)]
    assert found.last_death_at == at(9)
    found = Findings([item(601)], last_death_at=at(1))
    found.see(lambda identity: True, at(9))
    assert found.last_death_at == at(1)


def test_a_container_that_an_earlier_listener_left_is_seen_gone_once() -> None:
    found = Findings(containers=[box("a"), box("b"), box("c", died=1)])
    found.see_container_gone("a", at(9))
    found.see_container_gone("c", at(10))
    gone: Any = {"noticed": "gone when the listener came back"}
    assert found.containers == [box("a", died=9, **gone), box("b"), box("c", died=1)]
    assert found.last_death_at == at(9)


def test_the_signals_of_a_report_are_those_of_its_processes() -> None:
    found = Findings([item(600, signals=[("SIGTERM", 1), ("SIGKILL", 11)]), item(601)])
    assert found.sent() == {
        Identity(600, 1600): [("SIGTERM", at(1)), ("SIGKILL", at(11))], Identity(601, 1601): [],
    }  # fmt: skip


def test_when_the_order_began_here_is_when_its_first_process_or_task_did() -> None:
    began = Findings(
        [item(600, started_at=at(-20).isoformat()), item(601, started_at=at(-30).isoformat()), DEAD]
    )
    asked = order(
        targets=(row(started_at=at(-50)), row(started_at=at(-99), hostname="other"), row(started_at=None))
    )
    assert began.begun() == [at(-20), at(-30)]
    assert begun_here(asked, began, {"worker"}) == at(-50)
    assert begun_here(order(targets=()), began, {"worker"}) == at(-30)
    assert begun_here(order(targets=()), Findings([DEAD]), {"worker"}) is None


def test_nothing_is_resumed_where_nothing_was_done() -> None:
    assert resumed(order(), [], {"worker"}) is None
    assert resumed(order(begun={"processes": [], "not_found": ["t"]}), [], {"worker"}) is None


def test_a_report_and_the_journal_say_what_was_done_the_report_last() -> None:
    noted = [item(600, signals=[("SIGTERM", 1)]), item(602, signals=[("SIGTERM", 3)])]
    told = {
        "processes": [item(600, died=2, signals=[("SIGTERM", 1)])],
        "containers": [box("a", died=4, signals=[("SIGTERM", 2)]), box("b")],
    }
    found = resumed(order(begun=told), noted, {"worker"})
    assert found is not None
    assert found.processes == [told["processes"][0], noted[1]]
    assert found.containers == told["containers"]
    assert (found.first_signal_at, found.last_death_at) == (at(1), at(4))
    assert found.processes[0] is not told["processes"][0], "the order is not changed"
    begun = resumed(order(), [item(600)], {"worker"})
    assert begun is not None and (begun.first_signal_at, begun.last_death_at) == (None, None)


def test_what_is_not_found_is_taken_from_the_report_or_else_from_what_was_signalled() -> None:
    targets = (row("t"), row("u"), row("v", ti_id=UUID))
    known = [item(600, task={"task_id": "t"}), box("a", task={"ti_id": UUID})]
    found = resumed(order(targets=targets), known, {"worker"})
    assert found is not None and found.not_found == ["u"]
    found = resumed(order(targets=targets, begun={"not_found": ["x"]}), known, {"worker"})
    assert found is not None and found.not_found == ["x"]


@pytest.mark.parametrize(
    ("target", "told", "seen", "expected"),
    [
        (row(), [], [], (["t"], [])),
        (row(map_index=0), [], [], (["t[0]"], [])),
        (row(), [Label(task_id="t")], [], ([], [])),
        (row(), [], [Label(task_id="t")], ([], ["t"])),
        (row(), [Label(task_id="u")], [Label(task_id="u")], (["t"], [])),
        (row(), [Label(task_id="t", job_id=8)], [], (["t"], [])),
        (row(map_index=1), [Label(task_id="t", map_index=2)], [], (["t[1]"], [])),
        (row(ti_id=UUID), [Label(ti_id=UUID)], [], ([], [])),
        (row(ti_id=UUID), [Label(task_id="t", ti_id="another")], [], (["t"], [])),
        (row(), [Label(dag_id="d")], [], (["t"], [])),
        (row(hostname="other"), [], [], ([], [])),
        (row(hostname=None), [], [], ([], [])),
        (row(state="queued"), [], [], ([], [])),
    ],
)
def test_a_task_that_ran_here_and_that_nothing_names_is_missing(
    target: Target, told: list[Label], seen: list[Label], expected: tuple[list[str], list[str]]
) -> None:
    assert missing(order(targets=(target,)), told, lambda: seen, {"worker"}) == expected


def test_nobody_is_asked_what_ended_where_nothing_is_missing() -> None:
    def unasked() -> list[Label]:
        raise AssertionError("it costs a look at all that ended")

    assert missing(order(), [Label(task_id="t")], unasked, {"worker"}) == ([], [])


def test_an_order_is_superseded_once_all_that_it_stopped_is_released() -> None:
    released, kept = row("a", released_at=at(5)), row("b")
    assert is_superseded(order(targets=(released, released)))
    assert not is_superseded(order(targets=(released, kept)))
    assert not is_superseded(order(targets=()))
    assert not is_superseded(order(targets=(released,), state_after="deleted"))


def test_the_log_line_counts_what_was_found() -> None:
    asked = order(asked_by={"session_user_name": "eve"})
    bare = summary(asked, Findings(), "nothing_found")
    assert bare == (
        'nothing_found order=1 run="d r" processes=0 containers=0 spared=0 not_found=- could_not_look=-'
        " not_told=- milliseconds=- by=eve"
    )
    full = Findings(
        [DEAD], [box("a"), box("b")], [{}, {}, {}], ["t", "u"], [], ["x", "y"], last_death_at=at(0.25)
    )
    assert summary(asked, full, "spared") == (
        'spared order=1 run="d r" processes=1 containers=2 spared=3 not_found=t,u could_not_look="x; y"'
        " not_told=- milliseconds=250 by=eve"
    )


class Facts(NamedTuple):
    """What `findings` is given, in a few words."""

    processes: Sequence[tuple[Ending, Verdict]] = ()
    containers: Sequence[ContainerEnd] = ()
    spared: Sequence[tuple[Process, Verdict]] = ()
    spared_containers: Sequence[tuple[Container, Verdict]] = ()
    seen: frozenset[Label] = frozenset()
    problem: str | None = None

    def come_to(self, *, departed: Sequence[Label] = (), targets: Sequence[Target] = (row(),)) -> Findings:
        """With a database whose clock is an hour ahead."""
        facts = CaseFacts(order(targets=tuple(targets)), *self)
        ahead = timedelta(hours=1)
        pool = Endings(ProcFS())
        return findings(
            facts, pool, lambda moment: moment + ahead, lambda _: at(-10), {"worker"}, lambda: departed
        )


KILL = Verdict(Decision.KILL, "of the stopped run", ("environment",))
HOUR = 3600


def container(name: str = "c") -> Container:
    return Container("0123456789abcdef", name, "image", 0, at(-60), False, "no", {})


def test_all_times_are_on_the_databases_clock_and_first_and_last_are_of_both_kinds() -> None:
    labelled = process(Label(dag_id="d", run_id="r", task_id="t", airflow_home=HOME, database=KEY))
    ending = Ending(labelled, None, signals=[("SIGTERM", at(2)), ("SIGKILL", at(12))], died_at=at(13))
    end = ContainerEnd(container(), KILL, signals=[("SIGTERM", at(1))], died_at=at(14))
    found = Facts([(ending, KILL)], [end]).come_to()
    (told,) = found.processes
    assert told == {
        "pid": 600, "start": 100, "started_at": at(-10).isoformat(), "command": "sleep 1", "session": 600,
        "role": "other", "why": "of the stopped run", "evidence": ["environment"],
        "task": {"dag_id": "d", "run_id": "r", "task_id": "t", "airflow_home": HOME},
        "signals": [["SIGTERM", at(HOUR + 2).isoformat()], ["SIGKILL", at(HOUR + 12).isoformat()]],
        "died_at": at(HOUR + 13).isoformat(),
    }  # fmt: skip
    assert found.containers == [{
        "id": "0123456789ab", "name": "c", "image": "image", "why": "of the stopped run", "evidence": ["environment"],
        "signals": [["SIGTERM", at(HOUR + 1).isoformat()]], "died_at": at(HOUR + 14).isoformat(),
    }]  # fmt: skip
    assert (found.first_signal_at, found.last_death_at) == (at(HOUR + 1), at(HOUR + 14))
    alone = Facts([(ending, KILL)]).come_to()
    assert (alone.first_signal_at, alone.last_death_at) == (at(HOUR + 2), at(HOUR + 13))
    assert Facts().come_to().first_signal_at is None


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("D", "in uninterruptible sleep (state D)"),
        ("t", "held by a debugger (state t)"),
        ("T", "still there in state T"),
    ],
)
def test_what_outlives_sigkill_says_in_what_state(
    state: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endings, "state", lambda self, ending: state)
    found = Facts([(Ending(process(), None, signals=[("SIGKILL", at(2))]), KILL)]).come_to()
    assert found.processes[0]["alive"] == said
    assert found.of_processes() == [Identity(600, 100)]


def test_what_is_left_alive_says_why() -> None:
    ends = [
        ContainerEnd(container("a"), KILL, refused="the engine refused"),
        ContainerEnd(container("b"), KILL, problem="the engine went away"),
        ContainerEnd(container("c"), KILL),
        ContainerEnd(container("d"), KILL, died_at=at(3), noticed="ended before it was signalled"),
    ]
    found = Facts([(Ending(process(), None, refused="not permitted"), KILL)], ends).come_to()
    assert [item.get("alive") for item in found.processes] == ["not permitted"]
    assert "noticed" not in found.processes[0]
    alive = ["the engine refused", "the engine went away", "still running after SIGKILL", None]
    assert [item.get("alive") for item in found.containers] == alive
    assert [item.get("noticed") for item in found.containers] == [
        None,
        None,
        None,
        "ended before it was signalled",
    ]


def test_the_spared_are_named_but_for_supervisors() -> None:
    doubt = Verdict(Decision.SPARE, "in doubt", ())
    later = Verdict(Decision.SPARE, "a later try", (), whose=Whose.LATER_TRY)
    untied = Verdict(Decision.SPARE, "two clients", (), untied=True)
    found = Facts(
        spared=[(process(), later), (process(argv=()), doubt), (process(role=Role.SUPERVISOR), doubt)],
        spared_containers=[
            (container("a"), untied),
            (container("b"), later),
            (replace(container("c"), id="e", runs="sleep 5"), untied),
            (replace(container("d"), id="f", runs="sleep 6"), doubt),
        ],
        problem="away",
    ).come_to(targets=())
    assert found.spared == [
        {
            "pid": 600,
            "command": "sleep 1",
            "why": "a later try",
            "evidence": [],
            "whose": Whose.LATER_TRY.value,
        },
        {"pid": 600, "command": "?", "why": "in doubt", "evidence": []},
        {"container": "a", "why": "two clients", "evidence": []},
        {"container": "b", "why": "a later try", "evidence": [], "whose": Whose.LATER_TRY.value},
        {"container": "c", "exec": "sleep 5", "why": "two clients", "evidence": []},
        {"container": "d", "exec": "sleep 6", "why": "in doubt", "evidence": []},
    ]
    assert (found.containers_untied, found.execs_untied) == (["a"], ["c: sleep 5"])
    assert found.problem == "away"


def test_whatever_a_report_names_of_the_run_is_not_missing() -> None:
    of_t = Label(dag_id="d", run_id="r", task_id="t")
    spare = Verdict(Decision.SPARE, "in doubt", (), label=of_t)
    later = Verdict(Decision.SPARE, "a later try", (), whose=Whose.LATER_TRY, label=of_t)
    kill = Verdict(Decision.KILL, "of the stopped run", (), label=of_t)
    assert Facts().come_to().not_found == ["t"]
    for facts in (
        Facts([(Ending(process(), None, died_at=at(1)), KILL)]),
        Facts(containers=[ContainerEnd(container(), kill, died_at=at(1))]),
        Facts(spared=[(process(), spare)]),
        Facts(spared_containers=[(container(), spare)]),
    ):
        assert (facts.come_to().not_found, facts.come_to().ended_by_itself) == ([], [])
    for facts in (
        Facts(spared=[(process(), later)]),
        Facts(spared=[(process(role=Role.SUPERVISOR), spare)]),
        Facts(spared_containers=[(container(), later)]),
    ):
        assert facts.come_to().not_found == ["t"]
    nobodys = ContainerEnd(container(), KILL, died_at=at(1))
    assert Facts(containers=[nobodys]).come_to().not_found == ["t"], "it was signalled before, by its id"
    assert Facts(seen=frozenset({of_t})).come_to().ended_by_itself == ["t"]
    assert Facts().come_to(departed=[of_t]).ended_by_itself == ["t"]


def test_what_was_created_while_nobody_was_told_is_counted_in_the_line_and_is_no_outcome() -> None:
    found = Findings([DEAD], not_told=[{"from": None, "to": at(1).isoformat(), "why": "no listener ran"}])
    found.containers_untold = ["a", "b"]
    assert not_told(found.detail()).endswith("(no listener ran); 2 containers begun then may be the run's")
    found.execs_untold = ["c: sleep 5"]
    said = "(no listener ran); 2 containers and 1 docker exec begun then may be the run's"
    assert not_told(found.detail()).endswith(said)
    assert found.outcome(superseded=False) is Outcome.STOPPED
