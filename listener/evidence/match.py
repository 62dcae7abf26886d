"""Order + labelled process -> verdict. Pure: decides, reads nothing, signals nothing.

Doubt spares. Contradiction spares. A process belongs to an order if its label names the order's run
(and task), its Airflow is ours, and it is not of a try that came after the order.
"""

from __future__ import annotations

from datetime import datetime

from dagstop.evidence.surroundings import Surroundings, database_key
from dagstop.model import Decision, Label, Process, Role, StopOrder, Target, Verdict


def judge(order: StopOrder, process: Process, started_at: datetime, around: Surroundings) -> Verdict:
    """What is to happen to `process` under `order`.

    started_at: its start on the database's clock. The verdict's reason is one phrase for people.
    """
    label = process.label
    if label is None or not names_order(order, label):
        return Verdict(Decision.FOREIGN, "its evidence names another run")
    spare = _unkillable_by_nature(process, around) or _foreign_airflow(order, process, around)
    if spare:
        return Verdict(Decision.SPARE, spare, process.evidence)
    return _judge_try(order, process, started_at)


def names_order(order: StopOrder, label: Label) -> bool:
    """True if the label names the run (and task) of the order."""
    if label.ti_id is not None:
        if any(label.ti_id == row.ti_id for row in (*order.targets, *order.present)):
            return True
        if label.dag_id is None:
            return False
    if not label.names_a_run() or label.contradicts(order.label()):
        return False
    if label.run_id is None and (label.logical_date is None or order.logical_date is None):
        return False
    if label.dag_id is None:
        return False
    if order.kind == "run":
        return True
    if label.task_id is None:
        return False
    index = order.map_index if order.map_index is not None else -1
    return label.map_index is None or label.map_index == index


def _unkillable_by_nature(process: Process, around: Surroundings) -> str | None:
    if process.pid in around.untouchable:
        return "it is the listener, an ancestor of it, or pid 1"
    if process.role is Role.SUPERVISOR:
        return "it is Airflow's supervisor, which ends with its task"
    if process.role in {Role.SERVICE, Role.TEST}:
        return f"it is a {process.role.value} and never killed"
    return process.contrary


def _foreign_airflow(order: StopOrder, process: Process, around: Surroundings) -> str | None:
    """Why the process may be of another Airflow that has the same ids, or None."""
    label = process.label
    assert label is not None
    if label.airflow_home is not None and not around.is_home(label.airflow_home):
        return f"its AIRFLOW_HOME is {label.airflow_home}"
    key = database_key(label.database) if label.database is not None else None
    if key is not None and around.databases and key not in around.databases:
        return f"its metadata database is {key}"
    if not process.trusted:
        return f"it runs as uid {process.uid}, which runs no Airflow of ours"
    if label.airflow_home is not None or label.ti_id is not None or _recorded(order, process):
        return None
    # a title is all that is left of a runner's identity: setproctitle overwrites its environment
    if process.role is Role.RUNNER and not _job_recorded(order, label):
        return "nothing but its title ties it to this Airflow"
    if around.foreign_homes:
        return "it does not say which of the Airflows on this host it is of"
    return None


def _recorded(order: StopOrder, process: Process) -> bool:
    """True if the metadata database names the pid of this process, its parent or its runner.

    Airflow 2.x and 3.x record the runner, 1.10 the supervisor above it.
    """
    pids = {row.pid for row in (*order.targets, *order.present)} - {None, 0}
    return not pids.isdisjoint({process.pid, process.ppid, *process.line})


def _job_recorded(order: StopOrder, label: Label) -> bool:
    rows = (*order.targets, *order.present)
    return label.job_id is not None and any(label.job_id == row.job_id for row in rows)


def _judge_try(order: StopOrder, process: Process, started_at: datetime) -> Verdict:
    """Old tries die; the try of a cleared or retried task lives."""
    label, evidence = process.label, process.evidence
    assert label is not None
    if _index_unknown(order, label):
        return Verdict(Decision.SPARE, "it does not say which map index it is", evidence)
    present = _row(order.present, label)
    target = _row(order.targets, label, present)
    late = started_at > order.created_at
    if present is not None and present.unfinished:
        age = _age(label, present, late)
        again = late if target is None else _age(_label_of(present), target, True) != "same"
        if (age == "same" and again) or (age in {"later", None} and late):
            return Verdict(Decision.SPARE, "a later try, which is meant to run", evidence)
    if target is not None and target.released_at is not None:
        before = started_at < target.released_at
        if (_age(label, target, late) or ("older" if before else "later")) == "later":
            return Verdict(Decision.SPARE, "a later try than the one that was failed", evidence)
        return _kill(order, process, target, late, "of the try that was failed, since cleared")
    return _kill(order, process, target, late, "of the stopped " + order.kind)


def _kill(order: StopOrder, process: Process, target: Target | None, late: bool, reason: str) -> Verdict:
    """KILL, or SETTLE for what may still be reporting the failure that it wrote itself.

    What the operator started has a session of its own (BashOperator: setsid) and dies at once; the
    runner, and what its failure callbacks start, get the settling time. In a run's order that is a
    task that had ended before the run did.
    """
    reported = order.self_reported
    if order.kind == "run":
        reported = target is not None and not target.unfinished
    settles = reported and (process.with_runner or late)
    return Verdict(Decision.SETTLE if settles else Decision.KILL, reason, process.evidence)


def _row(rows: tuple[Target, ...], label: Label, like: Target | None = None) -> Target | None:
    """The row that the label is about; failing that, the one of the same task as `like`."""
    for row in rows:
        if label.ti_id is not None and row.ti_id == label.ti_id:
            return row
    task_id = label.task_id or (like.task_id if like is not None else None)
    map_index = label.map_index if label.map_index is not None else like and like.map_index
    same_task = [row for row in rows if row.task_id == task_id]
    for row in same_task:
        if map_index is not None and row.map_index == map_index:
            return row
        if map_index is None and label.job_id is not None and row.job_id == label.job_id:
            return row
    return same_task[0] if map_index is None and len(same_task) == 1 else None


def _index_unknown(order: StopOrder, label: Label) -> bool:
    """True for an order about one map index and a process that does not say which it is of."""
    mapped = order.kind == "task" and order.map_index is not None and order.map_index >= 0
    if not mapped or label.map_index is not None or label.ti_id is not None:
        return False
    return all(label.job_id is None or label.job_id != row.job_id for row in order.targets)


def _label_of(row: Target) -> Label:
    return Label(ti_id=row.ti_id, job_id=row.job_id, try_number=row.try_number)


def _age(label: Label, row: Target, late: bool) -> str | None:
    """ "same", "older" or "later" than the row's try by the strongest key that both know.

    A uuid has no order, so a different one goes by the start time; None where no key is shared.
    """
    if label.ti_id is not None and row.ti_id is not None:
        return "same" if label.ti_id == row.ti_id else "later" if late else "older"
    for mine, theirs in ((label.job_id, row.job_id), (label.try_number, row.try_number)):
        if mine is not None and theirs is not None:
            return "same" if mine == theirs else "later" if mine > theirs else "older"
    return None
