"""The last line of a task's own log file: who stopped it, when, and what died.

Which file that is only Airflow knows (its path is a template of the site), so it is taken from the process
that writes it, before that one dies: a duplicate of its very descriptor. No path is opened, so no link that
a task's user planted is followed; what is written is one line, at the end. Airflow 1.10 and 2: the runner;
3: the supervisor, in lines of JSON. Where both are dead, or Linux is older than 5.6, there is no line.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import NamedTuple

from dagstop.host import descriptors
from dagstop.logs import event, log, shown
from dagstop.model import Outcome, Process, Role, StopOrder
from dagstop.report.findings import Findings

MOST_OPEN = 200
"""Log files held at once: descriptors are for pidfds first."""
LONGEST = 600


class _Log(NamedTuple):
    descriptor: int
    as_json: bool


@dataclass(slots=True)
class TaskLogs:
    """The log files of tasks that are being stopped. `keep` and `tell` touch no file system, which may
    hang: what does is done by a thread."""

    _kept: dict[int, list[_Log]] = field(default_factory=dict)  # by order
    _open: set[int] = field(default_factory=set)  # also those that the thread still has
    _jobs: queue.SimpleQueue[tuple[list[_Log], str | None]] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None

    def keep(self, order: StopOrder, process: Process) -> None:
        """Get hold of the log file that a runner or a supervisor of the order's writes, while it lives."""
        names = names_in_path(order, process)
        for number in descriptors.numbers(process.pid) if names else ():
            path = descriptors.path(process.pid, number)
            if not path.endswith(".log") or not all(name in path for name in names):
                continue
            descriptor = descriptors.take(process.identity, number) if len(self._open) < MOST_OPEN else None
            if descriptor is not None:
                self._open.add(descriptor)
                log_file = _Log(descriptor, process.role is Role.SUPERVISOR)
                self._kept.setdefault(order.id or 0, []).append(log_file)

    def tell(self, order: StopOrder, line: str | None) -> None:
        """Write that line to the files of the order's tasks, if any, and let go of them."""
        kept = self._kept.pop(order.id or 0, None)
        if kept is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="task logs", daemon=True)
            self._thread.start()
        self._jobs.put((kept, line))

    def _work(self) -> None:
        while True:
            kept, line = self._jobs.get()
            told: set[tuple[int, int]] = set()
            for one in kept:
                try:
                    place = descriptors.appended_to(one.descriptor)
                    if line is not None and place is not None and place not in told:
                        told.add(place)
                        os.write(one.descriptor, in_json(line) if one.as_json else in_text(line))
                except OSError as exc:
                    log.warning(event("task log not written", why=exc))
                finally:
                    self._open.discard(one.descriptor)
                    with suppress(OSError):  # a network file system may only now say that it failed
                        os.close(one.descriptor)


def is_supervisor_of(process: Process, order: StopOrder) -> bool:
    """True for the process of Airflow 3 that writes the log of a task instance of this order."""
    ti_id = process.title.ti_id if process.title is not None else None
    return process.role is Role.SUPERVISOR and ti_id is not None and ti_id in {t.ti_id for t in order.targets}


def names_in_path(order: StopOrder, process: Process) -> tuple[str, ...]:
    """What the path of its log must hold, in the templates that Airflow comes with: DAG and task."""
    label = process.label or process.title
    task = label.task_id if label is not None else None
    if task is None and label is not None and label.ti_id is not None:
        task = next((t.task_id for t in order.targets if t.ti_id == label.ti_id), None)
    return (order.dag_id, task) if task else ()


def last_line(order: StopOrder, found: Findings, outcome: Outcome, host: str) -> str | None:
    """What the log of each task of the order is told; None: nothing was done, or is to be."""
    if order.observed or not (found.processes or found.containers):
        return None
    asked = order.asked_by
    done = DONE.get(outcome, "stopped")
    return (
        f"{done} by dagstop: {order.cause} by {asked.get('session_user_name')}"
        f" from {asked.get('application_name') or 'an unnamed program'}"
        f" at {order.created_at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC;"
        f" on {host} processes: {len(found.processes)}, containers: {len(found.containers)}"
    )


DONE = {
    Outcome.UNKILLABLE: "not all could be stopped",
    Outcome.SPARED: "stopped, except for what was spared",
    Outcome.COULD_NOT_LOOK: "stopped as far as the host could look",
    Outcome.NOT_FOUND: "stopped, except for what was not found",
}
"""Words for an outcome after which something of the run may be left; dagstop.audit_text has the same."""


def in_text(line: str) -> bytes:
    """A line as Airflow 1.10 and 2 format theirs."""
    moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return f"[{moment}] {{dagstop}} WARNING - {shown(line, LONGEST)}\n".encode()


def in_json(line: str) -> bytes:
    """A line as Airflow 3 writes them."""
    moment = datetime.now(timezone.utc).isoformat()
    facts = {"timestamp": moment, "level": "warning", "event": shown(line, LONGEST), "logger": "dagstop"}
    return json.dumps(facts).encode() + b"\n"
