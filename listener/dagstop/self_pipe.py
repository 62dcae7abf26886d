"""A pipe that a process writes into to wake one of its own threads."""

from __future__ import annotations

import os


class SelfPipe:
    """Readable for select and poll once it was rung, until it is drained. Any thread may ring it."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The end to wait for."""
        return self._read_end

    def ring(self) -> None:
        try:
            os.write(self.write_end, b".")
        except BlockingIOError:
            pass  # the pipe is full of reasons to wake up

    def drain(self) -> None:
        try:
            while os.read(self._read_end, 4096):
                pass
        except BlockingIOError:
            pass
