"""A real PgBouncer in transaction mode, in front of a Postgres server of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from tests.testbed.postgres import free_port


class PoolerError(RuntimeError):
    """PgBouncer cannot be started."""


class Pooler:
    """PgBouncer in front of the server of `url`; `through(url)` is a database's URL by way of it."""

    def __init__(self, url: str) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if program is None:
            raise PoolerError("no PgBouncer here: apt-get install pgbouncer")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-pooler-"))
        server = urlsplit(url)
        (self.folder / "users").write_text('"postgres" ""\n')
        (self.folder / "ini").write_text(
            f"[databases]\n* = host={server.hostname} port={server.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\npool_mode = transaction\n"
            f"auth_type = trust\nauth_file = {self.folder}/users\nunix_socket_dir =\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        self.folder.chmod(0o755)
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to be root
        self._process = subprocess.Popen(
            [program, "-q", str(self.folder / "ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        until = time.monotonic() + 10
        while True:
            try:
                psycopg2.connect(self.through(url)).close()
                return
            except psycopg2.OperationalError as exc:
                if time.monotonic() > until:
                    self.stop()
                    raise PoolerError(str(exc)) from exc
                time.sleep(0.05)

    def through(self, url: str) -> str:
        server = urlsplit(url)
        return url.replace(f":{server.port}/", f":{self.port}/")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
