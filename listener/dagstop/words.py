"""Times and numbers as a person says them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any


def plain(value: Any) -> str:
    """What JSON has no form for: a moment in ISO 8601, anything else as text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """A time as a person says it: `just now`, `3 s ago`, `2 h ago`."""
    if moment is None:
        return ""
    past = (now or datetime.now(timezone.utc)) - moment
    return "just now" if past.total_seconds() < 1 else f"{span(past)} ago"


def counted(number: int, what: str) -> str:
    """`1 process`, `2 processes`, `0 containers`."""
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")


def span(duration: Any) -> str:
    """A timedelta in its largest unit: `12 ms`, `3 s`, `5 min`, `2 h`, `4 d`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
