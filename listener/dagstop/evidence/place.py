"""A container that Airflow runs in, and whether a process in it may be an order's. Pure.

Ours only if all hold: the operator named the container (`--container`), a row of the order has its host
name, that name is tied to this very container, and nothing in it names another database. Otherwise spared.
Projects that have nothing to do with each other share home, user, ids, job ids and the text of the URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dagstop.database.key import is_among
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Identity, Label, Process, Role, StopOrder, Target

_SHORT_ID = re.compile(r"[0-9a-f]{12,64}")
EARLY, LATE = timedelta(minutes=5), timedelta(minutes=5)
"""How long before and after the start that Airflow recorded its runner may have started."""
NOT_NAMED = "it lives in a container that no --container names"
NOT_LISTED = "it lives in a container of which the engine has not said yet what it is"


@dataclass(frozen=True, slots=True)
class Place:
    """A pid namespace right below the listener's, as it was last read."""

    init: Identity
    container: str | None = None  # the full id in its cgroup
    hostname: str | None = None
    home: str | None = None  # AIRFLOW_HOME, as spelled inside
    uids: frozenset[int] = frozenset()  # of the home's owner and the first process, and named by option
    databases: frozenset[str] = frozenset()  # `database_key` of what is configured inside
    named_by: str | None = None  # the selector of the operator
    shares_name: bool = False  # another container has that host name, or may have it, or this machine has
    unread: str | None = None  # what of it cannot be read
    kept_by: int | None = None  # pid of a dagstop listener inside
    unlisted: bool = False  # the engine, which could say who named it, has not listed it yet
    airflow: bool = True  # False if its first process names nothing of an Airflow: a Postgres, say

    @property
    def named_after_id(self) -> bool:
        """True if its host name is the beginning of its id, which is what Docker gives by default."""
        name = self.hostname or ""
        return bool(self.container and _SHORT_ID.fullmatch(name) and self.container.startswith(name))

    @property
    def what(self) -> str:
        """For people."""
        return (
            f"container {self.container[:12]}" if self.container else f"the container of pid {self.init.pid}"
        )


def why_not_ours(place: Place | None, databases: frozenset[str]) -> str | None:
    """Why a container is refused whatever order there is; None if it may be ours."""
    if place is None or place.named_by is None:
        return NOT_LISTED if place is not None and place.unlisted else NOT_NAMED
    if place.unread is not None:
        return f"{place.what} cannot be read: {place.unread}"
    if place.hostname is None:
        return f"{place.what} shows no host name"
    if place.home is None:
        return f"{place.what} shows no AIRFLOW_HOME in the environment of its first process"
    if place.shares_name and not place.named_after_id:
        name = f"the host name {place.hostname} of {place.what}"
        return f"another container or this machine has, or may have, {name}"
    others = [key for key in place.databases if not is_among(key, databases)]
    if others:
        return (
            f"the metadata database of {place.what} is {others[0]};"
            " if that is ours, name it with --same-database"
        )
    return None


def why_spared(
    order: StopOrder,
    process: Process,
    started_at: datetime,
    places: Mapping[Identity, Place],
    databases: frozenset[str],
) -> str | None:
    """Why a process in a container may not be the order's, or must live; None if it may die."""
    place = places.get(process.place) if process.place is not None else None
    if process.identity == process.place:
        return "it is the first process of its container"
    if refused := why_not_ours(place, databases):
        return refused
    assert place is not None and process.label is not None
    if place.kept_by is not None:
        return f"the dagstop listener in its container, pid {place.kept_by}, stops it"
    if not named_in(order, place):
        return f"no row of this run has the host name {place.hostname} of {place.what}"
    if not (place.named_after_id or _uuid_ties(order, process, place)):
        if not _runner_ties(order, process, started_at, place):
            return f"nothing ties the host name {place.hostname} to {place.what}"
    label = process.label
    if label.airflow_home is not None and os.path.normpath(label.airflow_home) != place.home:
        return f"its AIRFLOW_HOME is {label.airflow_home}, that of {place.what} is {place.home}"
    if label.database is not None and not is_among(label.database, databases):
        return f"its metadata database is {label.database}; if that is ours, name it with --same-database"
    if process.vouchers.isdisjoint(place.uids):
        uid = f"uid {process.uid}, which runs no Airflow in {place.what}"
        return f"it runs as {uid}; if it does, name it with --task-user"
    return None


def pid_recorded(order: StopOrder, process: Process, place: Place | None) -> bool:
    """True if the database has the pid of this process, its parent or its runner, as counted inside."""
    return place is not None and any(row.pid in process.inner for row in _of_task(order, process, place))


def is_of_twin(
    order: StopOrder, process: Process, places: Mapping[Identity, Place], databases: frozenset[str]
) -> bool:
    """True if the row of that very job names another container here, which is ours: no job runs in two.

    On 3.x, if that row has another uuid for the try of that number, and names such a container.
    """
    label = process.label
    place = places.get(process.place) if process.place is not None else None
    if label is None or place is None or named_in(order, place):
        return False
    if label.ti_id is not None and any(label.ti_id == row.ti_id for row in order.rows):
        return False
    its = (row for row in order.rows if row.task_id == label.task_id and _is_its_try(label, row))
    hosts = {row.hostname for row in its}
    return any(
        other.hostname in hosts and why_not_ours(other, databases) is None for other in places.values()
    )


def _is_its_try(label: Label, row: Target) -> bool:
    if label.job_id is not None:
        return row.job_id == label.job_id
    known = label.ti_id is not None and row.ti_id is not None and row.map_index < 0
    return known and label.try_number is not None and row.try_number == label.try_number


def named_in(order: StopOrder, place: Place | None) -> bool:
    """True if a row of the order has its host name."""
    if place is None or place.hostname is None:
        return False
    return any(row.hostname == place.hostname for row in order.rows)


def _of_task(order: StopOrder, process: Process, place: Place) -> list[Target]:
    """The rows of its very task and try that name the container's host."""
    label = process.label
    return [
        row
        for row in order.rows
        if label is not None
        and row.hostname == place.hostname
        and row.task_id == label.task_id
        and (row.job_id is None or label.job_id is None or row.job_id == label.job_id)
    ]


def _uuid_ties(order: StopOrder, process: Process, place: Place) -> bool:
    ti_id = process.label.ti_id if process.label is not None else None
    return ti_id is not None and any(
        row.ti_id == ti_id and row.hostname == place.hostname for row in order.rows
    )


def _runner_ties(order: StopOrder, process: Process, started_at: datetime, place: Place) -> bool:
    """True if its runner is the one that the row names: by task, job, pid inside and start. The pid alone
    proves nothing: each pod counts from 1.
    """
    runner = process if process.role is Role.RUNNER else process.runner
    if runner is None or runner.label is None or runner.label.job_id is None:
        return False
    ticks = process.identity.start - runner.identity.start
    began = started_at - timedelta(seconds=ticks / TICKS_PER_SECOND)
    return any(
        row.job_id == runner.label.job_id
        and row.pid in runner.inner
        and row.started_at is not None
        and row.started_at - EARLY <= began <= row.started_at + LATE
        for row in _of_task(order, runner, place)
    )
