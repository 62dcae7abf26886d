"""A socket in front of a unix socket, which counts the requests that pass and may hold them up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType


class CountedSocket:
    """Listens at `path`, or on a port of this host, and passes everything on to the socket at `behind`.

    What holds one of the words `held`, on either way, waits until they are released.
    """

    def __init__(self, path: Path | None, behind: str, held: Sequence[bytes] = ()) -> None:
        self._gates = {words: threading.Event() for words in held}
        self._behind = behind
        self._asked: list[bytes] = []
        if path is None:
            self._server = socket.create_server(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"  # as Docker clients want it
        else:
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(str(path))
            self._server.listen()
            self.url = f"unix://{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def asked(self, words: bytes) -> int:
        """How often `words` were in what came from the clients so far."""
        return b"".join(self._asked).count(words)

    def release(self, words: bytes) -> None:
        """Let what holds them pass from now on."""
        self._gates[words].set()

    def hold(self, words: bytes) -> None:
        """Hold them up again."""
        self._gates[words].clear()

    def __enter__(self) -> CountedSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for gate in self._gates.values():
            gate.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as engine:
            try:
                engine.connect(self._behind)
            except OSError:  # it is down, and so is this
                return
            back = threading.Thread(target=_pump, args=(engine, client, self._hold), daemon=True)
            back.start()
            _pump(client, engine, self._ask)
            back.join()

    def _ask(self, data: bytes) -> None:
        self._asked.append(data)
        self._hold(data)

    def _hold(self, data: bytes) -> None:
        for words, gate in self._gates.items():
            if words in data:
                gate.wait()


def _pump(source: socket.socket, sink: socket.socket, before: Callable[[bytes], None] | None = None) -> None:
    try:
        while data := source.recv(65536):
            if before is not None:
                before(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has closed it
        pass
