"""What a host's report says, in one line: the same words in stop, history and check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dagstop.kill.endings import NOT_SIGNALLED
from dagstop.words import counted, span

_MOST = 3
"""Different reasons in one line; all of them are in the report."""


def left(detail: Mapping[str, Any], alive: Sequence[str | None] | None = None) -> str:
    """What of a run is or may be alive, and why; empty if nothing is. The worst comes first.

    alive: why each process and container that did not die is alive, where `detail` comes without them.
    """
    if alive is None:
        ended = [*detail.get("processes", ()), *detail.get("containers", ())]
        alive = [item.get("alive") for item in ended if item["died_at"] is None]
    spared = [item["why"] for item in detail.get("spared", ()) if "whose" not in item]
    parts = [
        f"{len(alive)} not dead: {_reasons(alive)}" if alive else "",
        f"{len(spared)} left alive: {_reasons(spared)}" if spared else "",
        f"could not look: {_reasons(detail['could_not_look'])}" if detail.get("could_not_look") else "",
        f"trouble: {detail['problem']}" if detail.get("problem") else "",
        f"not found: {', '.join(detail['not_found'])}" if detail.get("not_found") else "",
    ]
    return "; ".join(part for part in parts if part)


def ended(detail: Mapping[str, Any]) -> str:
    """How many processes and containers ended, how many of them and which tasks did so without dagstop."""
    kinds = (("process", detail.get("processes")), ("container", detail.get("containers")))
    parts = [counted(len(found), kind) for kind, found in kinds if found]
    if first := sum(item.get("noticed") == NOT_SIGNALLED for _, found in kinds for item in found or ()):
        parts.append(f"{first} of them {NOT_SIGNALLED if first == 1 else 'ended before they were signalled'}")
    if alone := detail.get("ended_by_itself"):
        parts.append(f"ended by itself: {', '.join(alone)}")
    return ", ".join(parts)


def not_told(detail: Mapping[str, Any]) -> str:
    """When nobody was told what the run's tasks forked, and why; the first such time of several.

    With how many containers and `docker exec`s began then of which nobody knows whose they are.
    """
    gaps = detail.get("not_told") or []
    if not gaps:
        return ""
    more = f", and {counted(len(gaps) - 1, 'time')} more" if len(gaps) > 1 else ""
    kinds = (("container", detail.get("containers_untold")), ("docker exec", detail.get("execs_untold")))
    untold = " and ".join(counted(len(found), kind) for kind, found in kinds if found)
    begun = f"; {untold} begun then may be the run's" if untold else ""
    return f"not told what it forked {gap(gaps[0])}{more}{begun}"


def gap(item: Mapping[str, Any]) -> str:
    """One time in which nobody was told: `from 12:00:01 to 12:00:04 (no listener ran)`."""
    until = datetime.fromisoformat(item["to"]).astimezone()
    if item["from"] is None:
        return f"before {until:%Y-%m-%d %H:%M:%S} ({item['why']})"
    since = datetime.fromisoformat(item["from"]).astimezone()
    day = "%H:%M:%S" if since.date() == until.date() else "%Y-%m-%d %H:%M:%S"
    return f"from {since:%Y-%m-%d %H:%M:%S} to {until.strftime(day)} ({item['why']})"


def took(detail: Mapping[str, Any], created_at: datetime, last_death_at: datetime | None) -> str:
    """From the order to the last death; where that was a process's, to that of the last container, too."""
    if last_death_at is None:
        return ""
    ends = [item["died_at"] for item in detail.get("containers", ()) if item["died_at"] is not None]
    last = max(map(datetime.fromisoformat, ends), default=last_death_at)
    containers = f"containers {span(last - created_at)}"
    return span(last_death_at - created_at) + (f", {containers}" if last < last_death_at else "")


def _reasons(words: Sequence[str | None]) -> str:
    some = list(dict.fromkeys(word or "being stopped" for word in words))
    return "; ".join(some[:_MOST]) + (f"; and {len(some) - _MOST} more" if len(some) > _MOST else "")
