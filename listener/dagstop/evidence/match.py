"""Order + labelled process -> verdict. Pure: decides, reads nothing, signals nothing.

Doubt spares. Contradiction spares. A process belongs to an order if its label names the order's run
(and task), its Airflow is ours, and it is not of a try that came after the order.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from dagstop.airflow_names import conflict, parse_date
from dagstop.evidence.place import is_of_twin, named_in, pid_recorded, why_spared
from dagstop.evidence.site import Site
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Decision, Label, Process, Role, StopOrder, Target, Verdict, Whose

SPARE = "DAGSTOP_SPARE"
"""A variable by which a process asks to be spared, with the value 1. Children inherit it: set for a
scheduler or a worker it spares all of its tasks."""

ELSEWHERE = "it lives in another pid namespace"
"""Contrary evidence: it is in a container, as a rule another Airflow's."""


def judge(order: StopOrder, process: Process, started_at: datetime, site: Site) -> Verdict:
    """What is to happen to `process` under `order`.

    started_at: its start on the database's clock. The verdict's reason is one phrase for people.
    """
    label = process.label
    if label is None or not names_order(order, label):
        return Verdict(Decision.FOREIGN, "its evidence names another run")
    verdict = _not_ours(order, process, started_at, site) or _judge_try(order, process, started_at)
    if verdict.decision is not Decision.SPARE:
        verdict = _with_its_runner(order, process, started_at, site) or verdict
    return with_hands_off(order, verdict)


def with_hands_off(order: StopOrder, verdict: Verdict) -> Verdict:
    """Spared, where nothing of the order is to be stopped."""
    if order.hands_off is not None and verdict.decision in (Decision.KILL, Decision.SETTLE):
        return Verdict(Decision.SPARE, f"{order.hands_off}: it would die, {verdict.reason}", verdict.evidence)
    return verdict


_AIRFLOWS_OWN = (Role.SUPERVISOR, Role.SERVICE, Role.TEST)


def _not_ours(order: StopOrder, process: Process, started_at: datetime, site: Site) -> Verdict | None:
    """To be spared whatever try it is of; else None."""
    spare = _unkillable_by_nature(process, site)
    if spare is None and process.place is not None:
        spare = why_spared(order, process, started_at, site.places, site.databases)
        spare = spare or _without_a_home(order, process, site)
        if spare is not None and is_of_twin(order, process, site.places, site.databases):
            return Verdict(Decision.SPARE, spare, process.evidence, whose=Whose.ANOTHER)
    elif spare is None:
        spare = _foreign_airflow(order, process, site)
    if spare is not None:
        another = Whose.ANOTHER if _surely_another(order, process, site) else Whose.RUN
        whose = Whose.AIRFLOW if process.role in _AIRFLOWS_OWN else another
        return Verdict(Decision.SPARE, spare, process.evidence, whose=whose)
    return None


def asks_to_be_spared(process: Process) -> bool:
    """By its environment; if that shows nothing (during an exec, or dropped), by what it descends from."""
    return process.environ.get(SPARE) == "1" if process.environ else process.kin_spared


def names_order(order: StopOrder, label: Label) -> bool:
    """True if the label names the run (and task) of the order."""
    if conflict(label, order.label()):
        return False
    if None not in (order.map_index, label.map_index) and label.map_index != order.map_index:
        return False
    if _uuid_recorded(order, label):
        return True
    if label.dag_id is None or (order.kind == "task" and label.task_id is None):
        return False
    if label.run_id is not None and order.run_id is not None:
        return True
    dates = {order.logical_date, parse_date(order.run_id)} - {None}
    return label.logical_date in dates


def _unkillable_by_nature(process: Process, site: Site) -> str | None:
    if process.pid in site.untouchable:
        return "it is the listener, an ancestor of it, or pid 1"
    if process.role is Role.SUPERVISOR:
        return "it is Airflow's supervisor, which ends with its task"
    if process.role in _AIRFLOWS_OWN:
        return f"it is a {process.role.value}, which is never killed"
    if asks_to_be_spared(process):
        return f"it asks to be spared: {SPARE}=1"
    # whose it is rests on all of them; its environment alone others may stand in for
    unread = next((why for name, why in process.unread.items() if name != "environ"), None)
    return process.contrary or unread


def _with_its_runner(order: StopOrder, process: Process, started_at: datetime, site: Site) -> Verdict | None:
    """To be spared if the runner that started it is, whatever it shows itself; else None."""
    runner, seen = process.runner, {process.identity}
    while runner is not None and runner.identity not in seen:
        if runner.label is not None and names_order(order, runner.label):
            ticks = max(0, process.identity.start - runner.identity.start)
            begun = started_at - timedelta(seconds=ticks / TICKS_PER_SECOND)
            verdict = _not_ours(order, runner, begun, site)
            if verdict is None and not _same_try(runner.label, process.label):
                verdict = _judge_try(order, runner, begun)
            if verdict is not None and verdict.decision is Decision.SPARE:
                reason = f"the runner {runner.pid} that started it is spared: {verdict.reason}"
                return Verdict(Decision.SPARE, reason, process.evidence, whose=verdict.whose)
        seen.add(runner.identity)
        runner = runner.runner
    return None


def _same_try(runner: Label, label: Label | None) -> bool:
    """True where the try of the one is that of the other: then the later one is spared if the first is."""
    if label is None or runner.task_id != label.task_id:
        return False
    by_uuid = runner.ti_id is not None and runner.ti_id == label.ti_id
    return by_uuid or (runner.job_id is not None and runner.job_id == label.job_id)


def _foreign_airflow(order: StopOrder, process: Process, site: Site) -> str | None:
    """Why the process may be of another Airflow that has the same ids, or None."""
    label = process.label
    assert label is not None
    if label.airflow_home is not None and not site.is_home(label.airflow_home):
        return f"its AIRFLOW_HOME is {label.airflow_home}"
    if label.database is not None and not site.is_database(label.database):
        return f"its metadata database is {label.database}; if that is ours, name it with --same-database"
    if not process.trusted:
        uid = (
            f"uid {process.uid}"
            if process.uid != -1
            else f"a user that /proc/{process.pid}/status does not show"
        )
        return f"it runs as {uid}, which runs no Airflow of ours"
    if label.airflow_home is not None or _uuid_recorded(order, label) or _pid_recorded(order, process):
        return None
    if "environ" in process.unread:
        return process.unread["environ"]
    # a title is all that is left of a runner's identity: setproctitle overwrites its environment
    if process.role is Role.RUNNER and not _job_recorded(order, label):
        return "nothing but its title ties it to this Airflow"
    if site.foreign_homes or (process.pid < 0 and site.homes_elsewhere):  # a container is of any of them
        return "it does not say which of the Airflows on this host it is of"
    if site.unread:
        return f"it does not say of which Airflow it is, and another one may be here: {site.unread}"
    return None


def _without_a_home(order: StopOrder, process: Process, site: Site) -> str | None:
    """Why a process in a container of ours that shows no AIRFLOW_HOME may be another's, or None."""
    label, place = process.label, process.place
    assert label is not None and place is not None
    if label.airflow_home is not None or _uuid_recorded(order, label):
        return None
    if pid_recorded(order, process, site.places.get(place)) or _job_recorded(order, label):
        return None
    return process.unread.get("environ") or "it does not say which Airflow of its container it is of"


def _surely_another(order: StopOrder, process: Process, site: Site) -> bool:
    """True for another Airflow's beyond doubt: its metadata database is another one, its home or its pid
    namespace too, and no row names it. Each alone proves nothing: the listener may have been told wrong.
    """
    label = process.label
    assert label is not None
    home = label.airflow_home is not None and not site.is_home(label.airflow_home)
    if process.place is not None:
        if named_in(order, site.places.get(process.place)):
            return False
        home = False  # the same path means another folder there
    elif not home and process.contrary != ELSEWHERE:
        return False
    if _uuid_recorded(order, label) or _pid_recorded(order, process):
        return False
    if label.database is None:
        return home and label.airflow_home in site.other_airflows
    return bool(site.databases) and not site.is_database(label.database)


def _uuid_recorded(order: StopOrder, label: Label) -> bool:
    if label.ti_id is None:
        return False
    return any(label.ti_id == row.ti_id for row in order.rows)


def _pid_recorded(order: StopOrder, process: Process) -> bool:
    """True if the database has the pid of this process, its parent or its runner for this very task.

    Airflow 2.x and 3.x record the runner, 1.10 the supervisor above it. Of this task and job only:
    a large run has so many pids, of so many hosts, that some other process would have one of them.
    """
    label = process.label
    assert label is not None
    pids = {
        row.pid
        for row in order.rows
        if row.pid
        and row.task_id == label.task_id
        and (row.job_id is None or label.job_id is None or row.job_id == label.job_id)
    }
    return not pids.isdisjoint({process.pid, process.ppid, *process.line})


def _job_recorded(order: StopOrder, label: Label) -> bool:
    if label.job_id is None:
        return False
    return any(label.job_id == row.job_id and label.task_id == row.task_id for row in order.rows)


def _judge_try(order: StopOrder, process: Process, started_at: datetime) -> Verdict:
    """Old tries die; the try of a cleared or retried task lives."""
    label, evidence = process.label, process.evidence
    assert label is not None
    if _index_unknown(order, label):
        return Verdict(Decision.SPARE, "it does not say which map index it is", evidence)
    pairs = _rows(order, label)
    for target, present in pairs:
        if spare := _later_try(order, label, target, present, started_at):
            whose = Whose.RUN if spare in _UNKNOWN_TRY else Whose.LATER_TRY
            return Verdict(Decision.SPARE, spare, evidence, whose=whose)
    if order.finished_spared and order.kind == "run" and _succeeded(label, pairs):
        return Verdict(Decision.SPARE, FINISHED, evidence, whose=Whose.FINISHED)
    # of several map indexes it may be the one that may still be reporting its own failure
    target = next((t for t, _ in pairs if t is not None and not t.unfinished), pairs[0][0])
    released = target is not None and target.released_at is not None
    cleared = released and not order.deleted
    reason = "of the try that was failed, since cleared" if cleared else f"of the stopped {order.kind}"
    if process.with_runner and label.ti_id is None and released and _runs_again(pairs):
        return Verdict(Decision.KILL, reason, evidence, at_once=True)
    return _kill(order, process, target, started_at > order.created_at, reason)


FINISHED = "its task had succeeded, and setting finished_tasks says spare"


def _succeeded(label: Label, pairs: list[tuple[Target | None, Target | None]]) -> bool:
    """True for what a task left that had succeeded when its run was failed; not for an earlier try of it."""
    rows = [target or present for target, present in pairs]
    return all(
        row is not None and row.state == "success" and _age(label, row, False) != "older" for row in rows
    )


def _runs_again(pairs: list[tuple[Target | None, Target | None]]) -> bool:
    """True if the row is another try's by now. Up to Airflow 2.x the old one, ending by SIGTERM, would write
    `failed` into it: into 3.x's it cannot.
    """
    return any(present is not None and present.unfinished for _, present in pairs)


AFTER_DELETION = "begun after the deletion, and nothing ties it to what was deleted"
AFTER_ORDER = "begun after the order, and the database does not say of what try it is"
_UNKNOWN_TRY = (AFTER_DELETION, AFTER_ORDER)


def _later_try(
    order: StopOrder, label: Label, target: Target | None, present: Target | None, started_at: datetime
) -> str | None:
    """Why the label is, or may be, of a try that came after the order; None if it is of the old one.

    target: the task instance when the run was failed; present: its row now. None: there is no such.
    """
    late = started_at > order.created_at
    if order.deleted:  # a new run of the same name counts its tries from the start
        label = replace(label, try_number=None)
    if present is not None and present.unfinished:
        age = _age(label, present, late)
        again = late if target is None else _age(_label_of(present), target, True) != "same"
        if (age == "same" and again) or (age in {"later", None} and late):
            return "a later try, which is meant to run"
    if order.deleted:
        old = not late or (target is not None and _age(label, target, late) == "same")
        return None if old else AFTER_DELETION
    if target is not None and target.released_at is not None:
        before = started_at < target.released_at
        if (_age(label, target, late) or ("older" if before else "later")) == "later":
            return "a later try than the one that was failed"
        return None
    if not late:
        return None
    if present is None:  # the row is gone, or could not be read
        if target is None or _age(label, target, late) == "later":
            return AFTER_ORDER
    elif _ran_again(order, target, present) and _age(label, present, late) != "older":
        return "a later try, which has ended since"
    if target is not None and started_at > order.db_now and _age(label, target, late) == "later":
        return "a later try, which began after the database was read"
    return None


def _ran_again(order: StopOrder, target: Target | None, present: Target) -> bool:
    """True if the task began again after the order, and was meant to.

    A message left in an executor's queue begins it again too, but the fence keeps its row at failed.
    """
    if present.started_at is None or present.started_at <= order.created_at:
        return False
    if target is None:
        return True
    held = target.unfinished and present.state == "failed" == order.state_after  # nothing holds another state
    return not held and _age(_label_of(present), target, True) != "same"


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


def _rows(order: StopOrder, label: Label) -> list[tuple[Target | None, Target | None]]:
    """(target, present) of each task instance that the label may be about; at least one pair."""
    task = [row for row in order.rows if row.task_id == label.task_id]
    sure = (
        [row for row in order.rows if label.ti_id is not None and row.ti_id == label.ti_id]
        or [row for row in task if row.map_index == label.map_index]
        or [row for row in task if label.job_id is not None and row.job_id == label.job_id]
        or (task if label.map_index is None else [])
    )
    keys = dict.fromkeys((row.task_id, row.map_index) for row in sure)
    targets = {(row.task_id, row.map_index): row for row in order.targets}
    present = {(row.task_id, row.map_index): row for row in order.present}
    return [(targets.get(key), present.get(key)) for key in keys] or [(None, None)]


def _index_unknown(order: StopOrder, label: Label) -> bool:
    """True for an order about one map index and a process that does not say which it is of."""
    mapped = order.map_index is not None and order.map_index >= 0
    if not mapped or label.map_index is not None:
        return False
    if label.ti_id is not None:
        return not _uuid_recorded(order, label)  # of an earlier try, or of another index: nobody knows
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
