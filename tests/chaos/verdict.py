"""Lost, hurt, untrue: how the listener is judged once its scene is over.

lost: an order without a final report, or with something of it alive, or a run that is not all failed.
hurt: a bystander that is dead. untrue: a report that says what we, who watched it all, did not see.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tests.support.listener import query
from tests.testbed import proc

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

SLACK = 3.0
"""Seconds by which two observers of one death may differ on a machine that is busy."""

FINAL = """
select o.run_id, r.host, r.outcome, r.detail, r.reported_at, r.first_signal_at, r.last_death_at, o.created_at
from dagstop.stop_order o
join dagstop.report r on r.order_id = o.id
where r.outcome is not null
"""


@dataclass
class Verdict:
    """The figures of one fault; `words` says what is wrong."""

    orders: int
    lost: int = 0
    hurt: int = 0
    untrue: int = 0
    kills: list[float] = field(default_factory=list)  # seconds from the commit to the last death, by run
    last_report: float = 0.0  # seconds from the last order to the last report
    words: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.hurt or self.untrue)

    def median_ms(self) -> float:
        return statistics.median(self.kills) * 1000 if self.kills else 0.0

    def most_ms(self) -> float:
        return max(self.kills, default=0.0) * 1000


def judge(scene: Scene) -> Verdict:
    """Wait until every order is reported on, then compare with what was seen from outside."""
    result = Verdict(len(scene.runs))
    last_order = max(scene.ordered.values())
    wait_for_reports(scene)
    result.last_report = time.monotonic() - last_order
    reports = {row["run_id"]: row for row in query(scene.url, FINAL)}
    living = {run: [p for p in some if p.alive()] for run, some in scene.doomed.items()}
    for run in scene.runs:
        why = _lost(run, reports, living)
        if why:
            result.lost += 1
            result.words.append(f"lost {run}: {why}")
    for what in _hurt(scene):
        result.hurt += 1
        result.words.append(f"hurt: {what}")
    for run, report in reports.items():
        for why in _untrue(scene, run, report):
            result.untrue += 1
            result.words.append(f"untrue {run}: {why}")
    unfinished = query(scene.url, "select run_id from task_instance where state <> 'failed'")
    result.lost += len(unfinished)
    result.words += [f"lost {row['run_id']}: its task is not failed" for row in unfinished]
    for run, some in scene.doomed.items():
        if run in scene.ordered and not living[run]:
            result.kills.append(max(0.0, scene.deaths.last(some) - scene.ordered[run]))
    return result


def wait_for_reports(scene: Scene) -> None:
    """Until all orders are reported on, or patience is over: then they are lost."""
    until = time.monotonic() + scene.patience
    count = "select count(*) as n from dagstop.report where outcome is not null"
    while query(scene.url, count)[0]["n"] < len(scene.runs) and time.monotonic() < until:
        time.sleep(0.1)


def _lost(run: str, reports: dict[str, dict[str, Any]], living: dict[str, list[proc.Process]]) -> str:
    if living.get(run):
        return f"alive: {[(p.pid, p.command) for p in living[run]]}, report {reports.get(run)}"
    return "" if run in reports else "no final report"


def _hurt(scene: Scene) -> Iterator[str]:
    for process in scene.strangers:
        if process.poll() is not None:
            yield f"pid {process.pid} ended with {process.returncode}"
    for identity, init in scene.foreign:
        if not init.alive():
            yield f"container {identity[:12]}"


def _untrue(scene: Scene, run: str, report: dict[str, Any]) -> Iterator[str]:
    """Each statement of a final report that what we saw does not bear out."""
    detail = report["detail"]
    told = {(item["pid"], item["start"]): item for item in detail["processes"]}
    mine = {p.identity for p in scene.groups[run].members} if run in scene.groups else set()
    if told.keys() != mine:
        yield f"names {sorted(told)}, there were {sorted(mine)}"
    contained = {scene.inits[run][0][:12]} if run in scene.inits else set()
    if {item["id"] for item in detail["containers"]} != contained:
        yield f"names the containers {detail['containers']}, there was {contained}"
    # Airflow says of each that its task runs there: of most there never was a process
    wanted = "stopped" if mine or contained else "not_found"
    if report["outcome"] != wanted:
        yield f"says {report['outcome']}, was {wanted}"
    if report["host"] != "host-1":
        yield f"is of {report['host']}"
    for identity, item in told.items():
        if identity in scene.deaths.deaths:
            yield from _times(scene, report, item, scene.deaths.deaths[identity])
    for item in detail["containers"]:
        yield from _times(scene, report, item, scene.deaths.last(scene.doomed[run]))


def _times(scene: Scene, report: dict[str, Any], item: dict[str, Any], died: float) -> Iterator[str]:
    """Signals, and the moment of death by the database's clock, `died` by our monotonic one."""
    if not item["signals"]:
        yield f"no signal to {item}"
    if item["died_at"] is None:
        yield f"dead, but said to live: {item}"
        return
    said = datetime.fromisoformat(item["died_at"])
    seen = time.time() - (time.monotonic() - died) + scene.clock_ahead
    late = said.timestamp() - seen
    if late < -SLACK or (late > SLACK and "noticed" not in item):
        yield f"died at {datetime.fromtimestamp(seen, timezone.utc)}, says {said}"
    if (said - report["reported_at"]).total_seconds() > 0.5:
        yield f"reported at {report['reported_at']}, before its death at {said}"
