"""Two Airflows on one engine, with one AIRFLOW_HOME and the same ids: whose is a container with tags? Pure.

The cluster policy writes down what belongs to the very try, as Airflow's database has it: job id, host name
and pid up to 2.x, the uuid on 3.x. Tags of an earlier policy are ids and a home, which twins share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from dagstop.airflow_names import TryTags
from dagstop.evidence.site import Site
from dagstop.host.containers import Airflow
from dagstop.model import Label, StopOrder, Target, Whose

RENEW = "its tags are of an earlier cluster policy; this release's is printed by `dagstop policy`"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What else the engines of this host run."""

    claims: Mapping[Hashable, int] = field(default_factory=dict)  # containers by the try that their tags name
    airflows: Mapping[str, int] = field(default_factory=dict)  # Airflows in containers, by their home

    @classmethod
    def among(cls, claims: Iterable[Label | None], airflows: Iterable[Airflow | None]) -> Neighbours:
        named = {airflow for airflow in airflows if airflow is not None}
        homes: dict[str, set[Hashable]] = {}
        for airflow in named:
            # one that names no database is the one of its project that does
            alone = airflow.database is None and any(
                other.database
                for other in named
                if (other.home, other.project) == (airflow.home, airflow.project)
            )
            if not alone:
                homes.setdefault(airflow.home, set()).add((airflow.project, airflow.database))
        return cls(
            Counter(_try(label) for label in claims if label is not None),
            {home: len(found) for home, found in homes.items()},
        )


ALONE = Neighbours()
"""Nothing else is known to be here."""


def another_airflows(
    order: StopOrder, label: Label, tags: TryTags, site: Site, beside: Neighbours
) -> tuple[str, Whose] | None:
    """Why a container that `judge` would have die may be another Airflow's, and whose it is; or None."""
    if not tags.known:
        doubt = _doubt(order, label, site, beside)
        return (f"{doubt}; {RENEW}", Whose.RUN) if doubt is not None else None
    rows = _rows(order, label)
    same = [row for row in rows if _same(tags, row)]
    differences = [_difference(tags, row) for row in same]
    if None in differences:
        return None
    if same:
        return f"{differences[0]}: it is another Airflow's", Whose.ANOTHER
    hosts = {row.hostname for row in order.rows} - {None}
    on_ours = tags.hostname in hosts
    what = f"uuid {tags.ti_id}" if tags.ti_id is not None else f"job {tags.job_id}"
    if _is_older(label, rows) and on_ours:  # of such a try the database keeps no more than that here
        doubt = _doubt(order, label, site, beside)
        return (f"{doubt}, and no try in Airflow's database has its {what}", Whose.RUN) if doubt else None
    known = _knows_try(order, label, tags, rows) and not on_ours
    return f"no try in Airflow's database has its {what}", Whose.ANOTHER if known else Whose.RUN


def _rows(order: StopOrder, label: Label) -> list[Target]:
    return [
        row for row in order.rows if row.task_id == label.task_id and label.map_index in {None, row.map_index}
    ]


def _same(tags: TryTags, row: Target) -> bool:
    if tags.ti_id is not None:
        return tags.ti_id == row.ti_id
    return tags.job_id == row.job_id


def _difference(tags: TryTags, row: Target) -> str | None:
    """What shows that two tries of one job id are two databases': job ids are small numbers."""
    for name, mine, theirs in (("host", tags.hostname, row.hostname), ("pid", tags.pid, row.pid)):
        if mine is not None and theirs is not None and mine != theirs:
            return f"its {name} is {mine}, that of Airflow's job {row.job_id} is {theirs}"
    return None


def _knows_try(order: StopOrder, label: Label, tags: TryTags, rows: list[Target]) -> bool:
    """True if the database has the try of that number: one of another uuid or job is another database's.

    Up to 2.x a deferred task goes on as another job of the same try, on a host that may be another one.
    """
    if order.deleted or label.try_number is None:
        return False
    keys = [
        row.ti_id if tags.ti_id is not None else row.job_id and row.hostname
        for row in rows
        if row.try_number == label.try_number
    ]
    return bool(keys) and None not in keys


def _is_older(label: Label, rows: list[Target]) -> bool:
    """True for a try before those that the database has still: of that it keeps nothing here but the host."""
    tries = [row.try_number for row in rows if row.try_number is not None]
    return label.try_number is not None and bool(tries) and label.try_number < min(tries)


def _doubt(order: StopOrder, label: Label, site: Site, beside: Neighbours) -> str | None:
    """What speaks against ids and a home."""
    if order.logical_date is not None and label.logical_date not in {None, order.logical_date}:
        return f"its logical date is {label.logical_date}, the run's is {order.logical_date}"
    if beside.claims.get(_try(label), 0) > 1:
        return "another container says that it is of the same try"
    home = label.airflow_home
    # what names a home that is not ours is spared for that
    found = sum(n for path, n in beside.airflows.items() if home is None or site.is_home(path))
    if found + site.lives_here > 1:
        return f"more than one Airflow here has the AIRFLOW_HOME {home}" if home else "two Airflows are here"
    return None


def _try(label: Label) -> Hashable:
    run = label.run_id or label.logical_date
    return label.dag_id, run, label.task_id, label.map_index, label.try_number
