"""A unix socket before a Docker engine, which can be made to accept and never answer."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path


class Proxy:
    """Passes bytes on to the engine; while `hung` it accepts, reads nothing and says nothing."""

    def __init__(self, path: Path, engine_url: str) -> None:
        self.url = f"unix://{path}"
        self._target = engine_url.removeprefix("unix://")
        self.hung = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """Answer again, new callers only: those who were kept waiting are cut off."""
        self.hung.clear()
        for one in tuple(self._open):
            self._open.discard(one)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.heal()
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with caller, socket.socket(socket.AF_UNIX) as engine, suppress(OSError):
            self._open.add(caller)
            if not self.hung.is_set():
                engine.connect(self._target)
            ends = {caller.fileno(): (caller, engine), engine.fileno(): (engine, caller)}
            poller = select.poll()
            for descriptor in ends:
                poller.register(descriptor, select.POLLIN)
            while caller in self._open:
                if self.hung.is_set():
                    time.sleep(0.05)
                    continue
                for descriptor, _ in poller.poll(50):
                    source, target = ends[descriptor]
                    data = source.recv(65536)
                    if not data:
                        return
                    target.sendall(data)
