"""What docker clients of tasks wrote to their `--cidfile`, learned while they run.

The file lies in a folder of the task's that Airflow removes as the task dies, with its container still alive.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from dagstop.evidence.containers import Client
from dagstop.model import Identity

_KEPT = 1000


class CidFiles:
    """Container ids by docker client. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[Identity, str] = {}
        self._thread = threading.Thread()

    def learn(self, clients: Sequence[Client], wait: float = 0.0) -> None:
        """Read those still unknown, in a thread, since their file system may hang: one thread at a time.

        Returns after `wait` seconds at the latest.
        """
        new = [c for c in clients if c.cidfile is not None and c.process.identity not in self._known]
        if not new or self._thread.is_alive():
            return

        def read() -> None:
            for client in new:
                if cid := _read(client):
                    self._known[client.process.identity] = cid
            while len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]

        self._thread = threading.Thread(target=read, name="cidfiles", daemon=True)
        self._thread.start()
        if wait:
            self._thread.join(wait)

    def of(self, client: Client) -> str:
        """The container id, read now unless it is known; empty if there is none."""
        return self._known.get(client.process.identity) or _read(client)


def _read(client: Client) -> str:
    """What the file holds, by the path as the client sees it; empty if nothing."""
    if client.cidfile is None:
        return ""
    root = f"/proc/{client.process.pid}"
    path = f"{root}/root{client.cidfile}"
    if not client.cidfile.startswith("/"):
        path = f"{root}/cwd/{client.cidfile}"
    try:
        # the path is the task's own word: it may be a FIFO, on which a plain open would hang
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 64).decode("ascii")
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return ""
