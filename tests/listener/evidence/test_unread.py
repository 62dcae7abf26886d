"""Whose words nobody read, by what the kernel told: what ended so may have been anything."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dagstop.evidence import unread as module
from dagstop.evidence.unread import CREATES, LEAST, MOST, STEP, Heard, Span, Unread, UnreadEnd
from dagstop.evidence.watch import Watch
from dagstop.host.process_events import EXEC, EXIT, FORK, RENAMED, Event
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Identity
from tests.support.fake_proc import FakeEvents, FakeProc, process, tags, watch_of

SECOND, PID, EVER = 10**9, 700, float("inf")
FORKED, EXECUTED = 10 * SECOND, 11 * SECOND


class Told:
    """A kernel that tells, and what was read; times are seconds since boot."""

    def __init__(self) -> None:
        self.unread = Unread()

    def tells(self, kind: int, at: float, pid: int = PID) -> list[UnreadEnd]:
        return self.unread.take([Event(kind, pid, 1, int(at * SECOND) - SECOND)], SECOND)

    def reads(self, at: float, pid: int = PID) -> None:
        self.unread.read(pid, int(at * SECOND))

    def spans(self, **processes: object) -> list[tuple[float, float]]:
        """In seconds since boot."""
        offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        heard = self.unread.heard(0, EVER, {})
        return [(round(since - offset, 2), round(until - offset, 2)) for since, until in heard.unread]


@pytest.mark.parametrize(
    ("read", "ended", "span"),
    [
        (None, 12, (10, 12)),
        (10.5, 12, (11, 12)),  # bash, and then something else
        (11.5, 12, None),
        (10.5, 11 + LEAST / 2, None),
        (None, 10 + LEAST / 2, None),
    ],
)
def test_what_ended_unread(read: float | None, ended: float, span: tuple[float, float] | None) -> None:
    told = Told()
    told.tells(FORK, 10)
    if read is not None and read < 11:
        told.reads(read)
    if ended > 11:
        told.tells(EXEC, 11)
    told.tells(RENAMED, 11)
    if read is not None and read > 11:
        told.reads(read)
    told.tells(EXIT, ended)
    assert told.spans() == ([] if span is None else [span])
    told.tells(FORK, 20)
    told.reads(20.5)
    told.tells(EXIT, 21)
    assert told.spans() == ([] if span is None else [span])


@pytest.mark.parametrize(
    ("executed", "read", "ended", "client"),
    [
        (11, None, 11 + CREATES * 2, True),
        (11, 10.5, 11 + CREATES * 2, True),  # read as the shell that forked it
        (11, 11.001, 11 + CREATES * 2, False),
        (11, None, 11 + CREATES / 2, False),  # no client is that quick
        (None, None, 12, False),  # it went on as what forked it
    ],
)
def test_who_ended_unread_may_have_been_a_docker_client(
    executed: float | None, read: float | None, ended: float, client: bool
) -> None:
    told = Told()
    assert told.tells(FORK, 10) == []
    if read is not None:
        told.reads(read)
    assert executed is None or told.tells(EXEC, executed) == []
    found = told.tells(EXIT, ended)
    assert found == ([UnreadEnd(PID, 11 * SECOND, int(ended * SECOND))] if client else [])
    assert told.tells(EXIT, ended) == []


def test_what_was_read_of_a_pid_is_not_of_the_next_that_has_it() -> None:
    """Though nobody told of the end of the first."""
    told = Told()
    told.tells(FORK, 5)
    told.reads(11)
    told.tells(FORK, 10)
    told.tells(EXIT, 12)
    assert told.spans() == [(10, 12)]


@pytest.mark.parametrize(
    ("more", "since"),
    [
        ({"argv": ("sh",)}, 10.0),
        ({"argv": ("sh",), "read": 10.5}, 11.0),
        ({"argv": ("sh",), "read": 11.5}, None),
        ({"argv": ()}, 10.0),  # in an exec
        ({"argv": (), "state": "Z"}, None),
        ({"argv": (), "ppid": 2}, None),
        ({"argv": (), "identity": Identity(2, 0)}, None),
    ],
)
def test_what_lives_unread(more: dict[str, object], since: float | None) -> None:
    told = Told()
    told.tells(FORK, 10)
    told.tells(EXEC, 11)
    read = more.pop("read", None)
    if isinstance(read, float):
        told.reads(read)
    one = process(**{"identity": Identity(PID, 1000), **more})  # type: ignore[arg-type]
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = [(round(s - offset, 2), u) for s, u in told.unread.heard(0, EVER, {one.pid: one}).unread]
    assert found == ([] if since is None else [(since, EVER)])


def test_of_more_than_it_keeps_the_earliest_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    told = Told()
    for at in (10, 20, 30):
        told.tells(FORK, at)
        told.tells(EXIT, at + 1)
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    heard = told.unread.heard(0, EVER, {})
    assert len(heard.unread) == 2 and abs(heard.since - offset - 11) < 0.1
    assert MOST > 1000


@pytest.mark.parametrize("by", [STEP * 2, -STEP * 2, STEP / 2])
def test_once_a_clock_was_set_nothing_before_is_known(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    unread, now = Unread(), 1000.0
    monkeypatch.setattr(time, "clock_gettime", lambda _: 100.0)
    monkeypatch.setattr(time, "time", lambda: now)
    assert unread.heard(5, EVER, {}).since == 5
    now += by
    assert (unread.heard(5, EVER, {}).since == 5) == (abs(by) < STEP)


def test_when_one_may_have_been_a_client() -> None:
    heard = Heard(0, 100, (Span(10, 20),))
    assert heard.whole(0, 100) and not heard.whole(-1, 100) and not heard.whole(0, 101)
    slack, least = 0.01, 10 + LEAST - 0.01
    at = (9.0, least - 0.001, least + 0.001, 20.0, 20 + slack / 2, 20.1)
    assert [moment for moment in at if heard.unknown_at(moment, slack)] == list(at[2:5])


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def test_a_watch_says_since_when_and_until_when_all_is_known(proc: FakeProc, events: FakeEvents) -> None:
    proc.add(300, argv=("bash",))
    watch = watch_of(proc, events=events)
    before = time.time()
    watch.begin(None)
    assert watch_of(proc).heard() is None
    begun = time.time()
    watch.prove_soon()
    watch.tick()
    heard = watch.heard()
    assert heard is not None and before <= heard.since <= begun <= heard.until and heard.unread == ()
    watch.tick()  # nothing is proven by that
    later = watch.heard()
    assert later is not None and later.until == heard.until
    events.forked(300, 301)
    proc.add(301, ppid=300, argv=("docker", "run"))
    events.executed(301)
    watch.attend_closely()
    executed = watch.executed_at(301)
    assert watch.processes[301].argv == ("docker", "run") and executed is not None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(executed - booted - proc.now / TICKS_PER_SECOND) < 1
    watch.prove_soon()
    watch.tick()
    after = watch.heard()
    assert after is not None and after.until > heard.until and after.unread == ()
    assert watch.executed_at(300) is None


def test_what_a_watch_could_not_read_is_unread(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    watch.begin(None)
    events.forked(300, 301)
    events.executed(301)
    proc.add(301, ppid=300)
    watch.tick()
    heard = watch.heard()
    assert heard is not None and [until for _, until in heard.unread] == [EVER]
    proc.become(301, ("sleep", "1"))
    watch.tick()
    heard = watch.heard()
    assert heard is not None and heard.unread == ()


def test_a_watch_tells_once_which_of_the_tasks_processes_ended_unread(
    proc: FakeProc, events: FakeEvents
) -> None:
    proc.add(300, argv=("bash", "-c", "x"), environ=tags())
    watch = watch_of(proc, events=events)
    watch.begin(None)
    events.forked(300, 301)
    events.executed(301)
    proc.now += 10  # hundredths of a second
    events.ended(301)
    watch.attend()
    (kin,) = watch.unread_kin()
    assert kin.identity.pid == 301 and kin.whose is watch.processes[300]
    assert watch.unread_kin() == []


def test_a_gap_is_to_be_saved(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    watch.begin(None)
    watch.changed = False
    events.overflows()
    watch.tick()
    assert watch.changed


def test_after_a_gap_nothing_before_is_known(proc: FakeProc, events: FakeEvents, watch: Watch) -> None:
    watch.begin(None)
    events.executed(300)
    watch.tick()
    assert watch.executed_at(300) is not None
    before = time.time()
    events.overflows()
    watch.tick()
    heard = watch.heard()
    assert heard is not None and heard.since >= before
    assert watch.executed_at(300) is None, "it may have executed something else since"
    proc.add(302, argv=("sh",))  # untold
    watch.prove_soon()
    watch.tick()
    assert watch.heard() is None and watch.executed_at(302) is None


@pytest.fixture
def watch(proc: FakeProc, events: FakeEvents) -> Watch:
    proc.add(300, argv=("bash",))
    return watch_of(proc, events=events)
