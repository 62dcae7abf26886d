"""A real standby of a Postgres server of the tests: a copy by pg_basebackup that streams from it."""

from __future__ import annotations

import time

from tests.testbed.postgres import Server, rows


class Standby(Server):
    """Answers queries, refuses writes, until `promote`."""

    def __init__(self, primary: Server) -> None:
        self._primary = primary
        super().__init__(primary._bin)

    def _create(self, network: str) -> None:
        source = self._primary.url("postgres").removesuffix("/postgres")
        self._run("pg_basebackup", "-D", str(self.data), "-R", "-c", "fast", "-d", source)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {self.port}\nunix_socket_directories = '{self.socket_dir}'\n")

    def catch_up(self) -> None:
        """Return once it has what the primary has by now."""
        # writes out what commits without synchronous_commit have left in memory, and says where that ends
        (where,) = rows(self._primary.url("postgres"), "select pg_switch_wal()")[0]
        until = time.monotonic() + 30
        while not rows(self.url("postgres"), "select pg_last_wal_replay_lsn() >= %s", (where,))[0][0]:
            assert time.monotonic() < until, self.log()
            time.sleep(0.02)

    def promote(self) -> None:
        rows(self.url("postgres"), "select pg_promote()")

    def demote(self) -> None:
        """Start again as a standby (of nobody): what a failover manager does with an old primary."""
        self.halt()
        (self.data / "standby.signal").touch()
        self.start()
