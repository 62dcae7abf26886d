"""One connection to the database and the thread that has it: whatever happens, it is made again.

The daemon's main thread watches that no question stays without an answer unseen.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import connection as Connection

from dagstop.database.connection import connect, wait_readable
from dagstop.database.failures import one_line, remedy
from dagstop.logs import event, log
from dagstop.self_pipe import SelfPipe

SLOWEST_RETRY = 5.0
"""Seconds between two attempts to connect at most: what fails in between lives on so long."""
HELD_UP = 3.0
"""Seconds without an answer after which a connection counts as held up."""


@dataclass
class KeptConnection:
    """A named thread that keeps one connection. Thread-safe: `wake`, `stop`, `watch`."""

    name: str
    url: str
    application_name: str
    serve: Callable[[Connection], None]  # returns once `stopping`; any error means: connect again
    stopping: bool = False
    up: bool = False  # the present connection has proven its worth
    lost: int = 0  # how often one that had was lost
    _attempt: int = 0  # how often in a row it did not come so far
    _asked: tuple[str, float] | None = None  # what is being asked, and since when
    _said: tuple[str, float] | None = None  # the question of which the log says that it is held up
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.woken = SelfPipe()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Start the thread, if it was not started yet."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self, timeout: float) -> None:
        """Tell `serve` to end, and wait so long for it."""
        self.stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout))

    def wake(self) -> None:
        """`woken` can be read from now on."""
        self.woken.ring()

    def well(self) -> None:
        """The connection does what it is for: the next failure is a first one."""
        if self._attempt:
            log.info(event("connected again", connection=self.name, attempts=self._attempt))
        self.up, self._attempt = True, 0

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Around each question, so that `watch` sees one that gets no answer."""
        self._asked = asked = (what, time.monotonic())
        try:
            yield
        finally:
            self._asked = None
            if self._said == asked:
                log.warning(
                    event("no longer held up", connection=self.name, asked=what, took=_since(asked[1]))
                )

    def watch(self) -> None:
        """Say once of each question that has no answer for a while."""
        asked = self._asked
        if asked is None or asked == self._said or time.monotonic() - asked[1] < HELD_UP:
            return
        self._said = asked
        do = "see which session blocks it: pg_blocking_pids() in pg_stat_activity"
        log.warning(event("held up", connection=self.name, asking=asked[0], since=_since(asked[1]), do=do))

    def _run(self) -> None:
        while not self.stopping:
            try:
                self._try()
            except Exception:  # in what is done about an error, even
                log.exception(event("thread failed", thread=self.name))
                time.sleep(SLOWEST_RETRY)

    def _try(self) -> None:
        connection: Connection | None = None
        try:
            connection = connect(self.url, self.application_name)
            self.serve(connection)
        except Exception as exc:
            self._attempt += 1
            self.lost += self.up
            self.up = False
            delay = min(SLOWEST_RETRY, 0.1 * 2 ** min(self._attempt, 10)) * random.uniform(0.7, 1.0)
            facts = {"connection": self.name, "attempt": self._attempt, "retry_in": f"{delay:.1f}s"}
            if isinstance(exc, psycopg2.Error):
                log.warning(event("database lost", why=one_line(exc, self.url), **facts, **remedy(exc)))
            else:
                why = f"{type(exc).__name__}: {exc}"
                log.error(event("database lost", why=why, **facts), exc_info=self._attempt == 1)
            self._pause(delay)
        finally:
            if connection is not None:
                connection.close()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            wait_readable([self.woken.fileno()], left)
            self.woken.drain()


def _since(moment: float) -> str:
    return f"{time.monotonic() - moment:.1f}s"
