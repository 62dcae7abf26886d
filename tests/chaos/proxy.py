"""A unix socket before a Docker engine, which can be made to accept and never answer."""

from __future__ import annotations

import select
import socket
import threading
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
            while True:
                if self.hung.is_set():
                    select.select([], [], [], 0.05)
                    if caller.fileno() < 0:
                        break
                    continue
                ready, _, _ = select.select([caller, engine], [], [], 0.05)
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (engine if one is caller else caller).sendall(data)
        self._open.discard(caller)
