"""A stranger who may connect to the database, and rings dagstop's doorbell all the time."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psycopg2

from tests.testbed.postgres import rows

ROLE = "r_ringer"
PER_SECOND = 20_000
# each notice in a transaction of its own: Postgres wakes every listener once for each
RING = "do $$ begin for n in 1..500 loop perform pg_notify('dagstop', n::text); commit; end loop; end $$"


class Ringer:
    """Rings PER_SECOND times a second, or as often as Postgres can, from enter to exit.

    `own_url`: of the database's owner, `url`: the same for ROLE, which is made here and has no right at all.
    """

    def __init__(self, own_url: str, url: str) -> None:
        self._own_url = own_url
        rows(own_url, f"drop role if exists {ROLE}; create role {ROLE} login")
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ring)
        self._begun = self._ended = time.monotonic()
        self.rung = 0
        self._broken: psycopg2.Error | None = None

    def per_second(self) -> float:
        """How many notices it has sent a second so far."""
        return self.rung / (self._ended - self._begun)

    def _ring(self) -> None:
        self._begun = time.monotonic()
        try:
            with self._connection.cursor() as cursor:
                while not self._stop.is_set():
                    cursor.execute(RING)
                    self.rung += 500
                    self._ended = time.monotonic()
                    self._stop.wait(max(0.0, self._begun + self.rung / PER_SECOND - self._ended))
        except psycopg2.Error as exc:
            self._broken = exc

    def __enter__(self) -> Ringer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()
        rows(self._own_url, f"drop role {ROLE}")
        if self._broken is not None and value is None:
            raise self._broken
