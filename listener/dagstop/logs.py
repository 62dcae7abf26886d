"""Log lines: one event and its facts, `event key=value key=value`, hostile text shown escaped."""

from __future__ import annotations

import logging
import sys
from typing import Any

log = logging.getLogger("dagstop")


def shown(value: object, most: int = 200) -> str:
    """Text that came from elsewhere, on one line: control characters escaped, length bounded."""
    text = value if isinstance(value, str) else str(value)
    safe = text
    if not text.isprintable():  # rare, and a kill waits for the rest
        safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= most else safe[: most - 3] + "..."


def event(name: str, **facts: Any) -> str:
    """The text of one log line."""
    return " ".join([name, *(f"{key}={_quoted(value)}" for key, value in facts.items())])


def _quoted(value: object) -> str:
    """In quotes where it could be taken for more than one value, or for none."""
    text = shown(value)
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def start(verbose: bool) -> None:
    """Log to standard error, where systemd and containers collect it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
