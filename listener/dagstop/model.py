"""What the stages hand on to each other: orders, labelled processes, verdicts.

notices -> orders (StopOrder) -> evidence (Process, Label, Verdict) -> kill (Ending) -> report.
All of it is data; nothing here reads or changes the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from operator import attrgetter
from typing import Any

UNFINISHED_IS_NOT = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The states in which Airflow (1.10.0 to 3.3) regards a task instance as finished."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for as long as the host runs: its pid and its start time.

    `start` is field 22 of /proc/PID/stat, in clock ticks since boot (proc(5)); a pid alone is reused.
    """

    pid: int
    start: int


class Role(Enum):
    """What a command line or process title says a process is."""

    RUNNER = "runner"  # runs the operator's code: `airflow run --raw`, `airflow task runner: ...`
    SUPERVISOR = "supervisor"  # waits for the runner and heartbeats for it; never signalled
    SERVICE = "service"  # scheduler, web server, Celery worker, Docker, Postgres: never signalled
    TEST = "test"  # `airflow tasks test`, by a human at a terminal: never signalled
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Label:
    """Which try of which task instance something belongs to; None where the evidence is silent."""

    dag_id: str | None = None
    run_id: str | None = None
    logical_date: datetime | None = None  # execution_date before Airflow 2.2; always aware
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    job_id: int | None = None  # Airflow 1.10 and 2.x: one per try
    ti_id: str | None = None  # Airflow 3.x: a uuid, new for each try
    airflow_home: str | None = None
    database: str | None = None  # the metadata database, as `database_key` writes it

    def names_a_run(self) -> bool:
        """True if this can be held against an order at all."""
        return self.ti_id is not None or (
            self.dag_id is not None and (self.run_id is not None or self.logical_date is not None)
        )

    def contradicts(self, other: Label) -> str | None:
        """The first field that both know and that differs, or None.

        A logical date is not compared where both know the run_id: the run_id decides.
        """
        for name in _COMPARED:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is None or theirs is None or mine == theirs:
                continue
            if name == "logical_date" and self.run_id is not None and self.run_id == other.run_id:
                continue
            return name
        return None

    def filled_from(self, other: Label) -> Label:
        """This label with its gaps filled from `other`."""
        mine = _values(self)
        if None not in mine:
            return self
        return Label(*(its if own is None else own for own, its in zip(mine, _values(other), strict=True)))

    def facts(self) -> dict[str, Any]:
        """The known fields, ready for JSON."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in known.items()
            if value is not None
        }


_values = attrgetter(*(f.name for f in fields(Label)))
_COMPARED = tuple(f.name for f in fields(Label) if f.name not in {"airflow_home", "database"})


@dataclass(slots=True)
class Process:
    """One process as it was last seen. `label` and `evidence` stay when its ancestors are gone.

    Of one that need not live any more only some is known; the rest is as it is here.
    """

    identity: Identity
    ppid: int = 0
    pgid: int = 0
    sid: int = 0
    state: str = "X"  # one letter of /proc/PID/stat: R S D T t Z X
    uid: int = -1
    argv: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)  # only the keys that dagstop reads
    role: Role = Role.OTHER
    title: Label | None = None  # what the command line itself says
    label: Label | None = None
    evidence: tuple[str, ...] = ()
    trusted: bool = False  # it, or the ancestor that labelled it, runs as a user of this Airflow
    contrary: str | None = None  # why it is to be spared whatever its label says
    with_runner: bool = False  # the runner itself, or in the session that the runner lives in
    line: frozenset[int] = frozenset()  # pids of the runner it descends from and that one's parent
    kin_spared: bool = False  # what it descends from asks to be spared
    runner: Process | None = None  # the runner it descends from, as that was last seen
    reads: int = 1  # how often command line and environment were read
    here: bool = False  # it, or what it descends from, was seen in the listener's pid namespace: that stays
    place: Identity | None = None  # the init of the container it lives in, or what it descends from does
    inner: frozenset[int] = frozenset()  # `line` and itself, as the pids count in its container
    vouchers: frozenset[int] = frozenset()  # uids of it and of what labelled it: one has to be Airflow's
    by_folder: bool = False  # it, or what it descends from, is known by its folder: in others it leads nobody
    above_ends: bool = False  # what it runs under is ending: whose it is is asked again once that is gone
    unread: dict[str, str] = field(default_factory=dict)  # what could not be read of it, by file, and why

    @property
    def pid(self) -> int:
        return self.identity.pid


@dataclass(frozen=True, slots=True)
class Target:
    """One task instance, as the order found it (before) or as it stands now (present)."""

    task_id: str
    map_index: int
    try_number: int | None
    job_id: int | None
    ti_id: str | None
    hostname: str | None
    pid: int | None
    state: str | None
    started_at: datetime | None
    released_at: datetime | None = None

    @property
    def unfinished(self) -> bool:
        return self.state not in UNFINISHED_IS_NOT


@dataclass(frozen=True, slots=True)
class StopOrder:
    """One row of dagstop.stop_order with all that a host needs to carry it out."""

    id: int | None
    kind: str  # "run" or "task"
    dag_id: str
    run_id: str | None
    logical_date: datetime | None
    task_id: str | None
    map_index: int | None
    self_reported: bool  # the writer may have been the task's own process
    created_at: datetime
    db_now: datetime  # the database's clock as the row was read
    settle_seconds: float
    targets: tuple[Target, ...]
    present: tuple[Target, ...]
    asked_by: Mapping[str, Any] = field(default_factory=dict)
    begun: Mapping[str, Any] | None = None  # what an earlier listener here had signalled
    hands_off: str | None = None  # why nothing of it is to be stopped: observe only, protected DAG
    grace_seconds: float | None = None  # its DAG's or all DAGs' in the database; None: the listener's own
    state_after: str = "failed"  # what ordered it: a state, or "deleted"
    closed_at: datetime | None = None  # when every host that was there had reported
    finished_spared: bool = False  # setting finished_tasks: what a task that succeeded left is not stopped

    @property
    def rows(self) -> tuple[Target, ...]:
        """The task instances as the order found them, and as they stand now."""
        return (*self.targets, *self.present)

    @property
    def name(self) -> str:
        what = f"{self.dag_id} {self.run_id or self.logical_date}"
        return f"{what} {self.task_id}" if self.task_id else what

    @property
    def cause(self) -> str:
        """What was done to its run or task instance, for people."""
        what = "DAG run" if self.kind == "run" else "task instance"
        return f"{what} {'deleted' if self.deleted else f'marked {self.state_after}'}"

    @property
    def observed(self) -> bool:
        """True if neither processes nor rows of Airflow may be touched for it."""
        return self.hands_off == "observe only"

    @property
    def deleted(self) -> bool:
        return self.state_after == "deleted"

    def grace(self, of_listener: float) -> float:
        """Seconds between SIGTERM and SIGKILL: the database's value takes precedence over the listener's."""
        return of_listener if self.grace_seconds is None else self.grace_seconds

    def label(self) -> Label:
        return Label(
            dag_id=self.dag_id,
            run_id=self.run_id,
            logical_date=self.logical_date,
            task_id=self.task_id,
        )


class Decision(Enum):
    KILL = "kill"
    SETTLE = "settle"  # the task's own runner, which may still be reporting its own failure
    SPARE = "spare"
    FOREIGN = "foreign"  # has nothing to do with the order; not worth a word


class Whose(Enum):
    """Whose a spared process or container is. Only what may be the run's counts as left alive."""

    RUN = "the run's, or in doubt"
    LATER_TRY = "a later try's"  # meant to run
    ANOTHER = "another Airflow's"  # certainly: another home and another metadata database
    FINISHED = "a task's that succeeded"  # by setting finished_tasks
    AIRFLOW = "Airflow's own"  # a service, a supervisor, a test run by hand


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to happen to one process or container under one order, and why."""

    decision: Decision
    reason: str
    evidence: tuple[str, ...] = ()
    at_once: bool = False  # by SIGKILL: it may not do anything more
    whose: Whose = Whose.RUN  # of what is spared
    label: Label | None = None  # of a container: by its tags, or by the docker client that started it
    untied: bool = False  # a container that a docker client may have created, and others, too


class Outcome(Enum):
    """How an order ended on one host; the words of dagstop.report.outcome. The worst comes first: an
    order has the first outcome that fits, whatever else is true of it (dagstop.report.Findings).
    """

    UNKILLABLE = "unkillable"  # something outlived SIGKILL, or could not be signalled
    SPARED = "spared"  # something that is the run's, or may be, was left alive
    COULD_NOT_LOOK = "could_not_look"  # the host could not see all that may be the run's
    NOT_FOUND = "not_found"  # Airflow says that a task ran here, and nothing of it was seen
    STOPPED = "stopped"  # all that was found was seen dead
    SUPERSEDED = "superseded"  # all that is left is meant to run: it was cleared, or is a later try
    NOTHING_FOUND = "nothing_found"

    @property
    def all_clear(self) -> bool:
        """True if nothing of the run can be alive on that host as far as anyone knows."""
        return self in (Outcome.STOPPED, Outcome.SUPERSEDED, Outcome.NOTHING_FOUND)


def is_all_clear(outcome: str | None) -> bool:
    """The same for an outcome as the database has it; one that this release does not know is none."""
    return any(known.all_clear for known in Outcome if known.value == outcome)
