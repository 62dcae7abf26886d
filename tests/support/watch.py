"""Watching processes die, to the fraction of a millisecond, and waiting for conditions."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable

from tests.testbed import proc

Identity = tuple[int, int]


class DeathWatch:
    """Notes when each of `processes` dies, by a pidfd that becomes readable at that moment.

    `deaths` maps (pid, start) to time.monotonic(); processes that were gone already count from now.
    """

    def __init__(self, processes: Iterable[proc.Process]) -> None:
        self.processes = {p.identity: p for p in processes}
        self.deaths: dict[Identity, float] = {}
        self._poll = select.epoll()
        self._watched: dict[int, Identity] = {}
        self._wake_read, self._wake_write = os.pipe()
        self._poll.register(self._wake_read, select.EPOLLIN)
        for process in self.processes.values():
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                self.deaths[process.identity] = time.monotonic()
                continue
            if not process.alive():  # the pid may have passed on before we held it
                self.deaths[process.identity] = time.monotonic()
                os.close(descriptor)
                continue
            self._watched[descriptor] = process.identity
            self._poll.register(descriptor, select.EPOLLIN)
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def __enter__(self) -> DeathWatch:
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join()
        for descriptor in (*self._watched, self._wake_read, self._wake_write):
            os.close(descriptor)
        self._poll.close()

    def alive(self) -> list[proc.Process]:
        """The processes whose death has not been seen yet."""
        return [p for key, p in self.processes.items() if key not in self.deaths]

    def last(self, among: Iterable[proc.Process] | None = None) -> float:
        """time.monotonic() of the last death seen, of all or `among` those given."""
        keys = self.processes.keys() if among is None else {p.identity for p in among}
        return max(self.deaths[key] for key in keys if key in self.deaths)

    def _loop(self) -> None:
        while True:
            events = self._poll.poll()
            now = time.monotonic()
            for descriptor, _ in events:
                if descriptor == self._wake_read:
                    return
                self._poll.unregister(descriptor)
                self.deaths[self._watched[descriptor]] = now


def wait_until(condition: Callable[[], object], timeout: float, what: Callable[[], str]) -> None:
    """Return as soon as `condition()` is true; fail with `what()` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what()}")
        time.sleep(0.02)


def hold(check: Callable[[], object], seconds: float) -> None:
    """Run `check` (which asserts) again and again for `seconds`, and once more at the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check()
        time.sleep(0.5)
    check()
