"""What this listener was about to signal: written to a local file before each first signal.

A listener killed between a signal and its report leaves the next one nothing to see; from this file
that one knows whom the signal was for, and reports as gone what it sees gone. One JSON line for each
process and order; the file is emptied once no order is under way and every report is written.
"""

from __future__ import annotations

import json
import os
import stat as modes
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dagstop.logs import event, log

_NAME = "begun.jsonl"  # a release before this one may have left it: the name stays
MOST_BYTES = 4 << 20
"""From this size on the file is rewritten without the orders that have ended."""


class SignalJournal:
    """The file of one state directory; without one nothing is kept. Never raises: a kill does not wait
    for a disk."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / _NAME if directory is not None else None
        self._boot = ""
        self._file: int | None = None
        self._size = 0
        self._rewrite_at = MOST_BYTES  # grows with what is under way
        self._failing = False
        self._found: dict[int, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()  # containers are ended in threads of their own

    def load(self, boot_id: str) -> None:
        """Read what an earlier listener left on this boot; go on in the same file."""
        self._boot = boot_id
        if self._path is None:
            return
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            owner = os.fstat(self._file)
            if owner.st_uid != os.geteuid() or modes.S_IMODE(owner.st_mode) & 0o022:
                log.warning(event("journal ignored", file=self._path, why="others could have written it"))
                os.close(self._file)
                self._file = None
                return
            self._size = owner.st_size
            self._found = _read(os.pread(self._file, self._size, 0), boot_id)
        except OSError as exc:
            log.warning(event("journal ignored", file=self._path, why=exc))

    def note(self, order_id: int, facts: dict[str, Any]) -> None:
        """One process or container that is about to get its first signal under this order."""
        if self._file is not None:
            with self._lock:
                self._append(json.dumps([self._boot, order_id, facts]))

    def of(self, order_id: int) -> list[dict[str, Any]]:
        """What an earlier listener was about to signal for this order."""
        return self._found.get(order_id, [])

    def settle(self, unfinished: Collection[int], *, complete: bool) -> None:
        """Forget the orders that are not `unfinished`; `complete`: no other order may be open here."""
        if not self._size:
            return
        assert self._file is not None
        with self._lock:
            if complete and not unfinished:
                self._found.clear()
                self._empty()
            elif self._size >= self._rewrite_at:
                keep = set(unfinished) if complete else {*unfinished, *self._found}
                kept = _read(os.pread(self._file, self._size, 0), self._boot)
                self._empty()
                for order_id in kept.keys() & keep:
                    for facts in kept[order_id]:
                        self._append(json.dumps([self._boot, order_id, facts]))
                self._rewrite_at = max(MOST_BYTES, 2 * self._size)

    def _append(self, text: str) -> None:
        assert self._file is not None
        line = text.encode() + b"\n"
        try:
            if self._failing:
                line = b"\n" + line  # the line that failed may be there in part
            self._size += os.write(self._file, line)
            self._failing = False
        except OSError as exc:
            if not self._failing:
                log.warning(event("journal not written", where=self._path, why=exc))
            self._failing = True

    def _empty(self) -> None:
        assert self._file is not None
        try:
            os.ftruncate(self._file, 0)
            self._size = 0
        except OSError as exc:
            log.warning(event("journal not emptied", where=self._path, why=exc))


def _read(data: bytes, boot_id: str) -> dict[int, list[dict[str, Any]]]:
    """Each order's processes, by order id; lines of another boot and broken ones left out."""
    found: dict[int, list[dict[str, Any]]] = {}
    for line in data.splitlines():
        try:
            boot, order_id, facts = json.loads(line)
            name = {"id"} if "id" in facts else {"pid", "start"}
            if boot == boot_id and name | {"signals", "died_at"} <= facts.keys():
                found.setdefault(int(order_id), []).append(facts)
        except (ValueError, TypeError, AttributeError, RecursionError):
            pass  # cut off by a full disk or a crash
    return found
