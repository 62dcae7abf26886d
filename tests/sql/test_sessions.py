"""Three sessions and a listener at once, at every isolation level: after the last commit dagstop's promises hold.

Each transaction takes its rows in one order, task instances before their run. Without dagstop none can wait for another
in a circle, so each deadlock here is dagstop's.
"""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.airflow_tables import NO_PROCESS, SHAPES, AirflowDatabase
from tests.support.marks import one_server
from tests.testbed.postgres import Server

RUNS = ("r0", "r1")
UNFINISHED = {None, "running", "up_for_retry", "queued", "scheduled"}
REVIVALS = UNFINISHED - {None} | {"ended well"}
"""What a late process may write. Everything else that is not a failure is a person's, and opens the fence."""
HELD = "another session held task instances of the run; the next heartbeat fails them"
LISTENER = 3
SECONDS = 60.0
"""For all that is under way to end, on a machine that is busy."""

_ENDED = ", end_date = clock_timestamp()"
WRITES = {
    "failed": f"state = 'failed'{_ENDED}",
    "cleared": "state = null, max_tries = coalesce(max_tries, 0) + 1",
    "up_for_retry": f"state = 'up_for_retry'{_ENDED}",
    "running": f"state = 'running', start_date = clock_timestamp(), pid = {NO_PROCESS}",
    "queued": "state = 'queued'",
    "scheduled": "state = 'scheduled'",
    "success": "state = 'success'",
    "ended well": f"state = 'success'{_ENDED}, duration = extract(epoch from clock_timestamp() - start_date)",
    "heartbeat": f"pid = {NO_PROCESS}",
}
RUN_WRITES = {
    "failed": "state = 'failed'",
    "cleared": "state = 'queued', start_date = null",
    "success": "state = 'success'",
    "heartbeat": "end_date = end_date",
    # a dying task of Airflow 2 writes back what its run was when it began
    "written back": "state = 'running', last_scheduling_decision = last_scheduling_decision - interval '1 second'",
}
_NO_STATE = {"heartbeat", "deleted"}


@dataclass(frozen=True)
class Change:
    """One statement: what is written to a row, a run (`r0`) or a task instance (`r0.1`)."""

    row: str
    what: str

    @property
    def order(self) -> tuple[str, bool, str]:
        """Task instances before their run."""
        return self.row[:2], "." not in self.row, self.row


@dataclass(frozen=True)
class Transaction:
    """What one session does in one go."""

    level: str
    changes: tuple[Change, ...]
    commits: bool


@dataclass
class Event:
    """A change that was made: from when to when its statement ran, and when its transaction was committed."""

    change: Change
    began: int
    snapshot: int
    ended: int = 0
    committed: int | None = None
    rows: int = 0
    all_closed: bool = False  # when its statement began, no order about its run was open

    @property
    def state(self) -> str | None:
        what = self.change.what
        return {"cleared": None, "ended well": "success", "written back": "running"}.get(what, what)


def _deletion(run: str) -> tuple[Change, ...]:
    return (Change(f"{run}.0", "deleted"), Change(f"{run}.1", "deleted"), Change(run, "deleted"))


_changes = st.builds(
    Change,
    st.sampled_from(["r0.0", "r0.0", "r0.0", "r0.1", "r1.0", "r1.1"]),
    st.sampled_from(["cleared", "cleared", "running", "up_for_retry", "up_for_retry", *WRITES]),
) | st.builds(
    Change, st.sampled_from(RUNS), st.sampled_from(["failed", "failed", "failed", "cleared", *RUN_WRITES])
)
_groups = st.lists(_changes, min_size=1, max_size=4, unique_by=lambda change: change.row).map(
    lambda changes: tuple(sorted(changes, key=lambda change: change.order))
)
_transactions = st.builds(
    Transaction,
    st.sampled_from(["read committed", "read committed", "repeatable read", "serializable"]),
    st.one_of([_groups] * 9 + [st.sampled_from(RUNS).map(_deletion)]),
    st.sampled_from([True] * 5 + [False]),
)
_plans = st.lists(st.lists(_transactions, min_size=1, max_size=4), min_size=3, max_size=3)
_turns = st.lists(
    st.tuples(st.sampled_from([0, 1, 2] * 4 + [LISTENER]), st.integers(1, 6)), min_size=4, max_size=20
)
"""Whose turn it is, and for how many statements."""

_LATE = Transaction("read committed", (Change("r0.0", "up_for_retry"),), True)
_FAIL = Transaction("read committed", (Change("r0", "failed"),), True)
_WRITE_BACK = Transaction("read committed", (Change("r0", "written back"),), True)
_CLEAR = Transaction("read committed", (Change("r0.0", "cleared"), Change("r0", "cleared")), True)


class Session:
    """A connection of its own that does one statement at a turn, and may be waiting for a lock meanwhile."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url, async_=True, options="-c deadlock_timeout=50ms")
        self.cursor: Any = None
        self.busy = True
        while not self.done():
            select.select([self.connection], [self.connection], [], 0.1)
        self.pid = self.connection.get_backend_pid()
        self.cursor = self.connection.cursor()

    def send(self, statement: str) -> None:
        self.cursor.execute(statement)
        self.busy = True

    def done(self) -> bool:
        """True if nothing is under way any more; raises what went wrong with it."""
        if self.busy:
            try:
                self.busy = self.connection.poll() != psycopg2.extensions.POLL_OK
            except psycopg2.Error:
                self.busy = False
                raise
        return not self.busy


@dataclass
class Actor:
    """A session with what it is to do, and what came of it."""

    session: Session
    steps: list[tuple[str, Change | str]]  # (level, change or end of the transaction)
    open: list[Event] = field(default_factory=list)
    skipping: bool = False
    begun: int = 0


class Play:
    """The sessions, statement by statement, in the order of the turns."""

    def __init__(
        self, db: AirflowDatabase, sessions: Sequence[Session], watcher: Any, plans: list[list[Transaction]]
    ):
        self.db, self.watcher = db, watcher
        self.actors = [
            Actor(session, list(_steps(plan))) for session, plan in zip(sessions, [*plans, []], strict=True)
        ]
        self.listener = self.actors[LISTENER]
        self.clock = 0
        self.events: list[Event] = []
        self.beats: list[int] = []
        self.wrong: list[str] = []
        self.said: list[str] = []

    def turn(self, number: int) -> None:
        actor = self.actors[number]
        if self._free(actor):
            if actor is self.listener:
                self._beat(actor)
            elif actor.steps:
                self._step(actor)
        for other in self.actors:  # who waited for the commit goes on now
            self._free(other)

    def finish(self) -> None:
        end = time.monotonic() + SECONDS
        while any(actor.steps or not self._free(actor) for actor in self.actors):
            assert time.monotonic() < end, f"nothing goes on any more: {self.said}"
            for number, actor in enumerate(self.actors[:LISTENER]):
                if self._free(actor) and actor.steps:
                    self.turn(number)

    def _beat(self, actor: Actor) -> None:
        for statement in _BEAT:
            if not self._free(actor):
                return
            self.beats.append(self.clock)
            actor.session.send(statement)
            self._wait(actor)

    def _step(self, actor: Actor) -> None:
        level, what = actor.steps.pop(0)
        self.clock += 1
        if isinstance(what, str):
            if not actor.skipping or what == "begin":
                actor.session.send(f"begin isolation level {level}" if what == "begin" else what)
                self._log(actor, what if what != "begin" else f"begin {level}")
                self._wait(actor)
            if what == "begin":
                actor.skipping, actor.begun = False, 0
            return
        if actor.skipping:
            return
        actor.begun = actor.begun or self.clock
        snapshot = self.clock if level == "read committed" else actor.begun
        actor.open.append(Event(what, self.clock, snapshot, all_closed=self._all_closed(what.row[:2])))
        actor.session.send(self._statement(what))
        self._log(actor, f"{what.row} {what.what}")
        self._wait(actor)

    def _all_closed(self, run: str) -> bool:
        closed = "select coalesce(bool_and(closed_at is not null), false) from dagstop.stop_order where run_id = %s"
        self.watcher.execute(closed, (run,))
        return bool(self.watcher.fetchone() == (True,))

    def _statement(self, change: Change) -> str:
        table = "task_instance" if "." in change.row else "dag_run"
        where = f"{'task_id' if '.' in change.row else 'run_id'} = '{change.row}'"
        if change.what == "deleted":
            return f"delete from {table} where {where}"
        if change.what == "written back" and self.db.by_date:
            change = Change(change.row, "heartbeat")  # 1.10 keeps no such time
        if change.what == "failed":
            where += " and state is distinct from 'failed'"
        return (
            f"update {table} set {(WRITES if '.' in change.row else RUN_WRITES)[change.what]} where {where}"
        )

    def _wait(self, actor: Actor) -> None:
        """Until the statement has ended or waits for another session."""
        end = time.monotonic() + SECONDS
        while not self._free(actor):
            assert time.monotonic() < end, f"neither ended nor waiting: {self.said}"
            select.select([actor.session.connection], [], [], 0.003)
            if self._free(actor):
                return
            self.watcher.execute(
                "select coalesce(wait_event_type in ('Lock', 'Timeout'), false) from pg_stat_activity where pid = %s",
                (actor.session.pid,),
            )
            if self.watcher.fetchone() == (True,):
                return

    def _free(self, actor: Actor) -> bool:
        """True if the session can take a statement; notes what came of the last one."""
        if not actor.session.busy:
            return True
        try:
            if not actor.session.done():
                return False
        except psycopg2.Error as error:
            self._failed(actor, error)
            return True
        self.clock += 1
        status = actor.session.cursor.statusmessage
        self._log(actor, f"... {status}")
        if actor.open and not actor.open[-1].ended and status not in ("BEGIN", "COMMIT", "ROLLBACK"):
            actor.open[-1].ended, actor.open[-1].rows = self.clock, actor.session.cursor.rowcount
        if status in ("COMMIT", "ROLLBACK"):
            if status == "COMMIT":
                for event in actor.open:
                    event.committed = self.clock
                self.events += actor.open
            actor.open = []
        return True

    def _failed(self, actor: Actor, error: psycopg2.Error) -> None:
        self._log(actor, f"... {type(error).__name__}: {error}")
        # the first statement of all that fail is to say so: a transaction is tried again from its begin
        if not isinstance(error, psycopg2.errors.SerializationFailure) or actor is self.listener:
            self.wrong.append(f"{type(error).__name__}: {error}")
        actor.open, actor.skipping = [], True
        if actor is not self.listener:
            actor.session.send("rollback")
            self._wait(actor)

    def _log(self, actor: Actor, what: str) -> None:
        self.said.append(f"{self.clock} {self.actors.index(actor)}: {what}")


def _steps(plan: list[Transaction]) -> Iterator[tuple[str, Change | str]]:
    for transaction in plan:
        yield transaction.level, "begin"
        for change in transaction.changes:
            yield transaction.level, change
        yield transaction.level, "commit" if transaction.commits else "rollback"


_BEAT = (
    "select * from dagstop.heartbeat('host', '00000000-0000-0000-0000-000000000001', '1', '{}')",
    "select dagstop.write_report(o.id, 'host', 'nothing_found', null, null, '{}')"
    " from dagstop.stop_order o where o.closed_at is null and o.cascaded",
    "call dagstop.do_chores()",
)


@dataclass(frozen=True)
class Stage:
    """One database of a shape for all examples, with the sessions that stay open."""

    db: AirflowDatabase
    sessions: list[Session]
    watcher: Any


@pytest.fixture(scope="module", params=SHAPES)
def stage(server: Server, request: pytest.FixtureRequest) -> Iterator[Stage]:
    shape = str(request.param)
    url = server.create_database(template=f"full_{shape}")
    db = AirflowDatabase(url, shape)
    with db.connect() as connection, connection.cursor() as watcher:
        yield Stage(db, [Session(url) for _ in range(4)], watcher)
    server.drop_database(url)


@one_server
@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(_plans, _turns)
@example([[_FAIL], [_LATE], []], [(0, 3), (1, 3)])  # the late write of a process that is being stopped
# it was cleared before, in a transaction that had not seen the failure
@example([[_FAIL], [_CLEAR], [_LATE]], [(1, 1), (0, 3), (1, 4), (2, 3)])
@example([[_FAIL], [_LATE], []], [(0, 3), (LISTENER, 1), (1, 3)])  # the order is closed, and the fence open
@example([[_FAIL], [_WRITE_BACK], []], [(0, 3), (1, 3)])  # the copy that a dying task has of its run
def test_whatever_sessions_do_at_once(
    stage: Stage, plans: list[list[Transaction]], turns: list[tuple[int, int]]
) -> None:
    stage.db.begin_again(RUNS)
    if not stage.db.by_date:
        stage.db.rows("update dag_run set last_scheduling_decision = '2024-01-01 00:00:00Z'")
    play = Play(stage.db, stage.sessions, stage.watcher, plans)
    for number, times in turns:
        for _ in range(1 if number == LISTENER else times):
            play.turn(number)
    play.finish()
    for _ in range(2):
        for statement in _BEAT:
            stage.db.rows(statement)
    wrong = play.wrong + list(_broken(stage.db, play.events, play.beats))
    assert wrong == [], "\n".join([*wrong, *play.said])


def _broken(db: AirflowDatabase, events: list[Event], beats: list[int]) -> Iterator[str]:
    """Each promise that does not hold."""
    orders = Counter(db.rows("select coalesce(task_id, run_id) from dagstop.stop_order"))
    causes = Counter((event.change.row,) for event in events if event.change.what == "failed" and event.rows)
    if orders != causes:
        yield f"orders {dict(orders)}, causes {dict(causes)}"
    if left := db.one("select count(*) from dagstop.stop_order where not cascaded"):
        yield f"{left} orders are not cascaded"
    if left := db.one("select count(*) from dagstop.refused_write where pending"):
        yield f"{left} refused writes are not put back"
    if left := db.one("select count(*) from dagstop.unwritten_order where id > 0"):
        yield f"{left} orders are unwritten"
    yield from (f"fault {place}: {message}" for place, message in db.faults() if message != HELD)
    runs = dict(db.rows("select run_id, state from dag_run"))
    tasks = db.states()
    for row in (*RUNS, *(f"{run}.{number}" for run in RUNS for number in (0, 1))):
        of_row = sorted(
            (event for event in events if event.change.row == row and event.rows), key=lambda e: e.ended
        )
        found = tasks if "." in row else runs
        if of_row and any(event.change.what == "deleted" for event in of_row):
            if row in found:
                yield f"{row} was deleted and is there"
        elif row not in found:
            if not any(event.change.what == "deleted" and event.change.row == row[:2] for event in events):
                yield f"{row} is gone"
        else:
            written = [event for event in of_row if event.change.what not in _NO_STATE]
            of_run = [event for event in events if event.change.row == row[:2]]
            if "." in row:
                yield from _wrong_state(row, found[row], written, of_run, runs)
                yield from _wrong_fence(row, found[row], written, of_run, beats, by_date=db.by_date)
            elif found[row] != (wanted := _state_of_run(written, keeps_copies=not db.by_date)):
                yield f"{row} is {found[row]}, not {wanted}"


def _wrong_fence(
    row: str, state: str | None, written: list[Event], of_run: list[Event], beats: list[int], *, by_date: bool
) -> Iterator[str]:
    # Airflow 1.10 runs a queue message that comes after its order was closed, so the fence holds it
    if state == "failed" and not by_date and _must_be_let(written, of_run):
        yield f"{row} is failed: the fence held what was written after its orders were closed"
    if state != "failed" and _must_be_refused(written, of_run, beats):
        yield f"{row} is {state}: the fence let a late process write"


def _state_of_run(written: list[Event], *, keeps_copies: bool) -> str | None:
    """What a run's state must be; dying tasks of Airflow 1.10 write no copies of their run."""
    state: str | None = "running"
    for event in written:
        if event.change.what == "cleared":
            state = "queued"
        elif event.change.what != "written back":
            state = event.state
        elif state != "failed" and keeps_copies:
            state = "running"
    return state


def _must_be_let(written: list[Event], of_run: list[Event]) -> bool:
    """Whether a process wrote last, when all orders were closed that there were, and nothing failed it since."""
    if not written or written[-1].change.what not in REVIVALS or not written[-1].all_closed:
        return False
    last = written[-1]
    failures = [event for event in (*of_run, *written) if event.change.what == "failed" and event.rows]
    # an older snapshot may have the orders open
    return last.snapshot == last.began and all((event.committed or 0) < last.began for event in failures)


def _wrong_state(
    row: str, state: str | None, written: list[Event], of_run: list[Event], runs: dict[str, str]
) -> Iterator[str]:
    last = written[-1] if written else None
    wanted = last.state if last else "running"
    failed = [e for e in of_run if e.change.what == "failed" and e.rows]
    if state in UNFINISHED and runs.get(row[:2]) == "failed":
        began = max(event.snapshot for event in failed)
        if last is None or last.ended < began:
            yield f"{row} is {state}, and its run was failed later"
    if state == wanted:
        return
    if state != "failed":
        yield f"{row} is {state}, not {wanted}"
    elif not _may_be_failed(last, written, failed, of_run):
        yield f"{row} is failed, not {wanted}: nothing failed it since"


def _may_be_failed(
    last: Event | None, written: list[Event], failed: list[Event], of_run: list[Event]
) -> bool:
    """Whether the cascade or the fence may have set a task instance to failed after what was written last."""
    if last is None:
        return bool(failed)
    if any(event.committed is not None and event.committed >= last.began for event in failed):
        return True
    # left to a listener, which found the run failed still
    taken_back = [e for e in of_run if e.rows and e.change.what in ("cleared", "success")]
    if failed and not any(
        (e.committed or 0) < last.began and e.began > max(f.ended for f in failed) for e in taken_back
    ):
        return True
    if last.change.what not in REVIVALS:
        return False
    stops = failed + [event for event in written if event.change.what == "failed"]
    by_people = [e for e in written if e is not last and e.change.what not in REVIVALS | {"failed"}]
    return any(not any(e.began > (stop.committed or 0) for e in by_people) for stop in stops)


def _must_be_refused(written: list[Event], of_run: list[Event], beats: list[int]) -> bool:
    """Whether a process wrote last to what a run's failure had stopped, while the order was surely open."""
    if not written or written[-1].change.what not in REVIVALS - {"ended well"}:
        return False
    *before, last = written
    if before and before[-1].state not in UNFINISHED:
        return False
    settled = max((event.committed or 0 for event in before), default=0)
    return any(
        settled < stop.snapshot <= stop.began
        and stop.change.what == "failed"
        and stop.rows
        and (stop.committed or 0) < last.snapshot
        and not any(event.ended > stop.began for event in of_run if event is not stop)
        and not any(beat >= stop.began for beat in beats)
        for stop in of_run
    )
