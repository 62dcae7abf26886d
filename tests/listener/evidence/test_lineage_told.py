"""What follows from forks and ends as they are told, one by one: nobody reads a /proc here."""

from __future__ import annotations

from typing import Any

import pytest

from dagstop.evidence import lineage as lineage_module
from dagstop.evidence.lineage import _DEEP, _LATE, ClientEnd, Lineage
from dagstop.evidence.unread import UnreadEnd
from dagstop.host.process_events import EXEC, EXIT, FORK, RENAMED, Event
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Identity, Label, Process, Role
from tests.support.fake_proc import process

TASK = Label(dag_id="d", run_id="r", task_id="t")
SECOND = 10**9
AHEAD = 1000 * SECOND
"""By how much the clock of start times is ahead of that of events: the host was asleep for so long."""
START = 2000
"""When everything here begins, seconds since boot."""


def seen(pid: int, at: float = START, label: Label | None = None, **more: Any) -> Process:
    """A process that was read, and began then."""
    one = process(identity=Identity(pid, int(at * TICKS_PER_SECOND)), **more)
    one.label = label
    return one


class Told:
    """A kernel that tells of one thing at a time, a hundredth of a second apart if nothing else is said."""

    def __init__(self, *there: Process) -> None:
        self.processes = {one.pid: one for one in there}
        self.lineage = Lineage(self.processes)
        self.now = START * SECOND
        self.pause = SECOND // TICKS_PER_SECOND

    def event(self, kind: int, pid: int, parent: int = 0, status: int = 0) -> None:
        self.now += self.pause
        self.lineage.take([Event(kind, pid, parent, self.now - AHEAD, status)], AHEAD)

    def fork(self, parent: int, child: int) -> None:
        self.event(FORK, child, parent)

    def end(self, pid: int) -> None:
        self.event(EXIT, pid)

    def read(self, pid: int, label: Label | None = None, **more: Any) -> Process:
        """It is read in the moment in which it was forked."""
        one = self.processes[pid] = seen(pid, self.now / SECOND, label, **more)
        self.lineage.read(one)
        return one

    def chain(self, above: int, first: int, length: int) -> int:
        """Each forks the next one and ends; gives the last, which lives."""
        for pid in range(first, first + length):
            self.fork(above, pid)
            if pid > first:
                self.end(above)
            above = pid
        return above

    def length(self, pid: int) -> int:
        """How many ancestors of it are kept."""
        node, length = self.lineage._nodes[pid], 0
        while node.parent is not None:
            node, length = node.parent, length + 1
        return length


def test_who_forked_it_counts_where_nothing_is_between_them() -> None:
    task = seen(600, label=TASK)
    told = Told(task)
    told.fork(600, 700)
    told.fork(700, 701)
    child, grandchild = told.read(700), told.read(701)
    assert told.lineage.source_of(child) == (task, True)
    assert told.lineage.source_of(grandchild) == (task, False)
    assert told.lineage.source_of(task) == (None, False)


def test_nothing_is_known_of_what_was_not_read_as_that() -> None:
    told = Told(seen(600, label=TASK))
    told.fork(600, 700)
    told.read(700)
    other = seen(700, told.now / SECOND)
    assert told.lineage.source_of(other) == (None, False)
    told.lineage.read(seen(701))
    assert told.lineage.source_of(seen(701)) == (None, False)


@pytest.mark.parametrize(("late", "known"), [(0.0, True), (0.01, True), (0.03, False)])
def test_a_start_is_known_to_a_tick(late: float, known: bool) -> None:
    """What began after a fork was told is not what was forked: its pid has passed on."""
    told = Told(seen(600, label=TASK))
    told.fork(600, 700)
    one = seen(700, told.now / SECOND + late)
    told.lineage.read(one)
    assert (told.lineage.source_of(one)[0] is not None) is known


@pytest.mark.parametrize("role", [Role.SERVICE, Role.SUPERVISOR, Role.TEST])
def test_what_airflow_itself_starts_under_a_task_is_not_the_tasks(role: Role) -> None:
    told = Told(seen(600, label=TASK))
    told.fork(600, 700)
    told.read(700, role=role)
    told.fork(700, 701)
    told.fork(701, 702)
    assert told.lineage.source_of(told.read(702)) == (None, False)


@pytest.mark.parametrize("role", [Role.OTHER, Role.RUNNER])
def test_the_nearest_that_is_known_counts(role: Role) -> None:
    told = Told(seen(600, label=Label(dag_id="e", run_id="s")))
    told.fork(600, 700)
    near = told.read(700, TASK, role=role)
    told.fork(700, 701)
    assert told.lineage.source_of(told.read(701)) == (near, True)


def test_what_is_to_be_read_next() -> None:
    told = Told(seen(600, label=TASK), seen(601), seen(602))
    for child, parent in ((700, 600), (701, 600), (702, 601), (703, 600)):
        told.fork(parent, child)
    told.read(703)
    told.event(EXEC, 600)
    told.event(RENAMED, 601)
    told.event(EXEC, 700)
    told.event(EXEC, 999)  # which nobody has read
    told.end(701)
    assert sorted(told.lineage.kin()) == [600, 700]
    assert told.lineage.born == {700, 702, 703} and told.lineage.ended == {701}
    assert told.lineage.changed == {600, 601, 700, 999}
    assert told.lineage.heard == {700, 701, 702, 703}
    told.end(700)
    assert 700 not in told.lineage.born | told.lineage.changed
    told.lineage.attended()
    assert told.lineage.kin() == []
    assert not (told.lineage.born or told.lineage.changed or told.lineage.ended)
    assert told.lineage.source_of(told.processes[703])[0] is told.processes[600]


def test_a_pid_that_is_given_out_again_is_new() -> None:
    told = Told(seen(600, label=TASK), seen(601), seen(700))
    told.event(EXEC, 700)
    told.end(700)
    told.fork(601, 700)
    assert (told.lineage.born, told.lineage.changed, told.lineage.ended) == ({700}, set(), set())
    told.fork(700, 701)
    assert told.lineage.source_of(told.read(701)) == (None, False)


def test_what_forked_before_its_pid_was_given_out_again_is_not_what_has_it_now() -> None:
    """The end was told, the fork of the next of that number was not yet: what was read is what has ended."""
    told = Told(seen(600, label=TASK))
    told.end(600)
    told.fork(600, 700)
    assert told.lineage.source_of(told.read(700)) == (None, False)
    young = Told(seen(600, at=START + 5, label=TASK))
    young.fork(600, 700)
    assert young.lineage.source_of(young.read(700)) == (None, False)


def test_after_a_gap_nothing_of_before_counts() -> None:
    told = Told(seen(600, label=TASK))
    told.fork(600, 700)
    one = told.read(700)
    told.lineage.reset()
    assert told.lineage.source_of(one) == (None, False) and not told.lineage.born


def test_an_end_of_a_client_has_its_status_and_its_time() -> None:
    told = Told(seen(600, label=TASK), seen(601, argv=("docker", "run", "image")), seen(602))
    told.fork(600, 700)
    client = told.read(700, argv=("/usr/bin/docker", "run", "-d", "image"))
    told.event(EXIT, 700, status=256)
    assert told.lineage.ends == [ClientEnd(client, 256, told.now)]
    told.event(EXIT, 602, status=1)
    told.event(EXIT, 601)
    assert told.lineage.ends[1:] == [ClientEnd(told.processes[601], 0, told.now)]


def test_a_client_whose_pid_passed_on_unread_has_not_ended_again() -> None:
    """The one that was read is told of as long as nothing else was forked under its number."""
    told = Told(seen(601, argv=("docker", "run", "image")))
    told.fork(1, 601)
    told.end(601)
    assert told.lineage.ends == []


def unread(told: Told, pid: int) -> None:
    """It ends before what it executed was read."""
    told.event(EXEC, pid)
    since = told.now
    told.end(pid)
    told.lineage.ended_unread([UnreadEnd(pid, since, told.now)])


@pytest.mark.parametrize("read", [True, False], ids=["as what forked it", "never"])
def test_who_ended_unread_is_of_the_task_that_it_descends_from(read: bool) -> None:
    task = seen(600, label=TASK)
    told = Told(task, seen(601))
    told.fork(600, 700)
    began = told.now
    one = told.read(700, TASK) if read else task
    unread(told, 700)
    told.fork(601, 701)
    unread(told, 701)
    (kin,) = told.lineage.unread_kin(told.now)
    assert (kin.identity, kin.whose) == (Identity(700, began * TICKS_PER_SECOND // SECOND), one)
    assert (kin.until - kin.since, kin.until) == (told.pause, told.now - 3 * told.pause)
    assert told.lineage.unread_kin(told.now + 10 * _LATE) == [], "told once"


def test_who_ended_unread_and_bore_no_label_is_of_the_task_that_it_descends_from() -> None:
    """It was read as what forked it, in a moment in which that was nobody's yet."""
    task = seen(600, label=TASK)
    told = Told(task, seen(601))
    for parent, child in ((600, 700), (601, 701)):
        told.fork(parent, child)
        told.read(child)
        unread(told, child)
    (kin,) = told.lineage.unread_kin(told.now + 2 * _LATE)
    assert (kin.identity.pid, kin.whose) == (700, task)


def test_of_ends_that_were_told_before_nothing_is_kept() -> None:
    """Who listens for weeks is told of millions."""
    told = Told(seen(600))
    for pid in (700, 701):
        told.fork(600, pid)
        told.end(pid)
    assert len(told.lineage._exits) == 1


def test_who_was_there_before_the_listening_began_may_end_unread_too() -> None:
    told = Told(seen(600, label=TASK))
    unread(told, 600)
    assert [kin.identity for kin in told.lineage.unread_kin(told.now)] == [Identity(600, START * 100)]


@pytest.mark.parametrize(("late", "known"), [(_LATE - 1, False), (_LATE, True)])
def test_what_forked_it_may_turn_out_to_have_been_a_tasks_later(late: int, known: bool) -> None:
    told = Told(seen(600))
    told.fork(600, 700)
    unread(told, 700)
    assert told.lineage.unread_kin(told.now) == []
    told.processes[600].label = TASK
    ended = told.now
    assert bool(told.lineage.unread_kin(ended + late)) is known


@pytest.mark.parametrize("role", [Role.SERVICE, Role.SUPERVISOR, Role.TEST])
def test_what_airflow_itself_started_and_nobody_read_is_no_tasks(role: Role) -> None:
    told = Told(seen(600, label=TASK))
    told.fork(600, 700)
    told.read(700, TASK, role=role)
    unread(told, 700)
    assert told.lineage.unread_kin(told.now + 2 * _LATE) == []


def test_of_many_that_ended_unread_the_earliest_are_asked_once_more_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lineage_module, "MOST", 1)
    told = Told(seen(600))
    for pid in (700, 701):
        told.fork(600, pid)
        unread(told, pid)
    told.lineage.unread_kin(told.now)
    told.processes[600].label = TASK
    assert [kin.identity.pid for kin in told.lineage.unread_kin(told.now + 2 * _LATE)] == [701]


def test_however_long_a_chain_of_short_lives_it_leads_to_the_task() -> None:
    task = seen(600, label=TASK)
    told = Told(task)
    last = told.chain(600, 1000, 3 * _DEEP)
    assert told.lineage.source_of(told.read(last)) == (task, False)


def test_what_lives_in_a_chain_stays_in_it() -> None:
    """Its title may come at any time; what it forked meanwhile is its task's then."""
    told = Told(seen(600))
    told.fork(600, 700)
    later = told.read(700)
    last = told.chain(700, 1000, 3 * _DEEP)
    one = told.read(last)
    assert told.lineage.source_of(one) == (None, False)
    later.label = TASK
    assert told.lineage.source_of(one) == (later, False)


def test_what_lives_in_a_chain_and_is_nobodys_hides_nothing_above_it() -> None:
    """The title comes to what forked that."""
    told = Told(seen(600))
    told.fork(600, 700)
    told.read(700)
    one = told.read(told.chain(700, 1000, 3 * _DEEP))
    told.processes[600].label = TASK
    assert told.lineage.source_of(one) == (told.processes[600], False)


@pytest.mark.parametrize("role", [Role.SERVICE, Role.SUPERVISOR, Role.TEST])
def test_what_ends_a_search_stays_in_a_chain_though_it_has_ended(role: Role) -> None:
    told = Told(seen(600, label=TASK))
    told.fork(600, 700)
    told.read(700, role=role)
    told.fork(700, 701)
    told.end(700)
    told.now += 2 * _LATE
    last = told.chain(701, 1000, 3 * _DEEP)
    assert told.lineage.source_of(told.read(last)) == (None, False)


def test_however_fast_a_chain_of_short_lives_it_leads_to_the_task() -> None:
    """Nobody can have read them, so nothing that is known of them holds memory."""
    task = seen(600, label=TASK)
    told = Told(task)
    told.pause = _LATE // (10 * _DEEP)
    last = told.chain(600, 1000, 6 * _DEEP)
    assert told.lineage.source_of(told.read(last)) == (task, False)
    assert told.length(last) <= _DEEP + 2


def test_of_a_long_chain_of_a_tasks_own_only_the_last_are_kept() -> None:
    """Each is labelled, and so hides what is above it."""
    told = Told(seen(600, label=TASK))
    above = 600
    for pid in range(1000, 1000 + 3 * _DEEP):
        told.fork(above, pid)
        told.read(pid, TASK)
        told.end(above)
        above = pid
    assert told.length(above) <= _DEEP + 2


def test_what_was_read_of_it_a_moment_ago_stays_in_a_fast_chain() -> None:
    """Of those that forked it, only what was read may still get a title or a label."""
    told = Told(seen(600))
    told.pause = 0
    told.fork(600, 700)
    brief = told.read(700)
    last = told.chain(700, 1000, 3 * _DEEP)
    told.end(700)
    one = told.read(last)
    brief.label = TASK
    assert told.lineage.source_of(one) == (brief, False)


def test_what_descends_from_an_airflow_is_read_first_and_then_in_the_order_of_the_forks() -> None:
    airflow, scheduler = seen(600, label=TASK), seen(601, role=Role.SERVICE)
    user = seen(602, role=Role.SERVICE, argv=("/usr/lib/systemd/systemd", "--user"))
    told = Told(airflow, scheduler, user, seen(603))
    for parent, child in ((603, 709), (602, 708), (601, 707), (600, 706), (709, 705), (707, 704), (706, 703)):
        told.fork(parent, child)
    told.read(709)
    told.read(706)
    assert told.lineage.born_in_order() == [707, 706, 704, 703, 709, 708, 705]


@pytest.mark.parametrize(("waited", "known"), [(0, True), (2 * _LATE, False)])
def test_what_ended_a_moment_ago_stays_in_a_chain(waited: int, known: bool) -> None:
    """It may still turn out to have been a task's, while the watch has it; then it is forgotten."""
    told = Told(seen(600))
    told.fork(600, 700)
    brief = told.read(700)
    told.fork(700, 701)
    told.end(700)
    told.now += waited
    above = told.lineage._nodes[701]
    above.depth = _DEEP + 1
    told.fork(701, 702)
    brief.label = TASK
    assert (told.lineage.source_of(told.read(702))[0] is brief) is known


def test_a_long_chain_is_shortened_by_what_ended_long_ago() -> None:
    told = Told(seen(600))
    longest = 0
    last = told.chain(600, 1000, _DEEP)
    for number in range(6):
        told.now += 2 * _LATE
        last = told.chain(last, 10_000 * (number + 1), _DEEP)
        longest = max(longest, told.length(last))
    assert longest <= 2 * _DEEP
    assert len(told.lineage._nodes) <= 10
