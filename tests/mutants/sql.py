"""Mutants of the functions that write orders, cascade and fence, held against tests/sql on a server of its own.

A mutant is put into each copy of a database that a test asks for, and into what an install reads. Postgres
itself says which functions a test calls (track_functions). The tests about the same file run, by its number,
and then the quick ones of those that call the function, up to a number of them: a busy machine does not make
survivors. Nor does it kill: a test that failed has to pass without the mutant. The server is in memory, where
a database is copied several times faster than on a disk.
"""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import psycopg2
import pytest

import dagstop.sql
from tests.mutants.judge import Clock, Trial
from tests.mutants.statements import FOLDER, Mutant
from tests.testbed.postgres import Server, binaries, rows

FILES = tuple(
    sorted(path for path in FOLDER.glob("*.sql") if path.name[:2] in ("07", "08", "09", "10", "11"))
)
OPTIONS = ("-q", "-s", "-m", "not e2e")
TESTS = ("tests/sql",)
RELEASE = max(binaries())  # as tests.support.marks
ABOUT = {  # more files of tests that are about a file
    "07_orders": ("settings", "08_orders_deleted", "09_cascade", "runs_written_back"),
    "08_orders_deleted": ("left_behind", "settings"),
    "09_cascade": ("left_behind", "isolation", "settings", "locks", "corners", "rights"),
    "10_unwritten": ("unwritten_others",),
    "11_fence": ("fence_others", "runs_written_back"),
}
ENOUGH = 200  # tests for one mutant
_ABOUT_LOCKS = (
    "tests/sql/test_lock_modes.py", "tests/sql/test_locks.py",
    "tests/sql/test_fence_others.py::test_an_index_that_a_dba_builds",
)  # fmt: skip
HANGS = "20s"  # a lock that nothing of ours waits for, and a mutant does
IN_MEMORY, ROOM = Path("/dev/shm"), 2 << 30  # bytes; else the server is where temporary files are
# what a test leaves behind that a mutant ended, in the way of the next ones
_MADE = {
    "database": "select datname from pg_database",
    "tablespace": "select spcname from pg_tablespace",
    "role": "select rolname from pg_roles",
}


class OneServer(Clock):
    """A plugin: only the tests on one server; how long each takes, and which functions it calls.

    In the file `keep`, if one is given, it stays for the next run.
    """

    def __init__(self, enough: float = ENOUGH, keep: Path | None = None) -> None:
        super().__init__()
        self.called: dict[str, set[str]] = {}
        self.killers: dict[str, Counter[str]] = {}  # by function and by mutant: the tests that failed
        self._collected: set[str] = set()
        self._enough = enough
        self._keep = keep
        self._drop = Server.drop_database
        if keep is not None and keep.exists():
            self.seconds, self.failed, self.called, self.killers = pickle.loads(keep.read_bytes())

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Those that a mutant can reach."""
        items[:] = [item for item in items if getattr(item, "callspec", None) is not None]
        items[:] = [item for item in items if item.callspec.params.get("server") == RELEASE]  # type: ignore[attr-defined]
        self._collected = {item.nodeid for item in items}

    def measure(self, session: pytest.Session) -> None:
        """Run those once, without a mutant, of which it is not known yet how long they take."""
        server = _server(session)
        rows(server.url("postgres"), "alter system set track_functions = 'all'")
        rows(server.url("postgres"), "select pg_reload_conf()")

        def drop(server: Server, url: str) -> None:
            with suppress(psycopg2.OperationalError):  # some tests drop it themselves, and it was noted then
                self._note(url)
            self._drop(server, url)

        Server.drop_database = drop  # type: ignore[method-assign]
        new = [item for item in session.items if item.nodeid not in self.seconds]
        for item, following in zip(new, [*new[1:], None], strict=bool(new)):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            self._save()
        Server.drop_database = self._drop  # type: ignore[method-assign]
        session.testsfailed = 0

    def killed(self, mutant: Mutant, test: str) -> None:
        """By this test, which comes first for it and for others of its function from now on."""
        for name in (mutant.name, mutant.function):
            self.killers.setdefault(name, Counter()).update([test])
        self._save()

    def fails(self, session: pytest.Session, test: str) -> bool:
        """Whether it fails without a mutant; then no mutant is held against it any more."""
        (item,) = (item for item in session.items if item.nodeid == test)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        print(flush=True)  # pytest has begun a line with a dot
        failed = bool(session.testsfailed)
        session.testsfailed = 0
        return failed

    def _save(self) -> None:
        if self._keep is not None:
            known = (self.seconds, self.failed, self.called, self.killers)
            beside = self._keep.with_suffix(".new")
            beside.write_bytes(pickle.dumps(known))
            beside.replace(self._keep)

    def _note(self, url: str) -> None:
        name = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        rows(
            url,
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()",
        )
        found = rows(url, "select funcname from pg_stat_user_functions where schemaname = 'dagstop'")
        self.called.setdefault(name, set()).update(str(function) for (function,) in found)

    def tests(self, mutant: Mutant) -> list[str]:
        """Those that call its function: what killed others of it first, of locks for a lock, then of each test about the
        same file one case, then a second one, and so on, then the quick ones.
        """
        own = f"tests/sql/test_{mutant.file}.py"
        about = (own, *(f"tests/sql/test_{word}.py" for word in ABOUT.get(mutant.file, ())))
        killers = self.killers.get(mutant.function, Counter())
        own_killers = self.killers.get(mutant.name, Counter())
        cases: Counter[str] = Counter()

        def rank(name: str) -> tuple[bool, int, int, bool, bool, int, float]:
            calls = mutant.function in self.called.get(name, ())
            of_locks = mutant.is_lock and name.startswith(_ABOUT_LOCKS)
            test = name.partition("[")[0]
            cases[test] += 1
            is_about = name.startswith(about)
            return (
                not calls, -own_killers[name], -killers[name], not of_locks, not is_about,
                cases[test] if is_about else 0, self.seconds[name],
            )  # fmt: skip

        reached = [
            name
            for name in self.seconds
            if name in self._collected
            and name not in self.failed
            and (name.startswith(own) or self._calls(name, mutant.function))
        ]
        reached.sort(key=rank)
        return reached[: int(self._enough)]

    def _calls(self, test: str, function: str) -> bool:
        """Also if it could not be noted what it calls."""
        called = self.called.get(test)
        return not called or function in called


def in_memory() -> None:
    """Let the server be there, if there is room."""
    with suppress(OSError):
        if shutil.disk_usage(IN_MEMORY).free > ROOM and os.access(IN_MEMORY, os.W_OK | os.X_OK):
            tempfile.tempdir = str(IN_MEMORY)


def _server(session: pytest.Session) -> Server:
    """As the tests start it; it stays until the end."""
    from tests import conftest  # it imports hypothesis, which pytest wants to do by itself

    if RELEASE not in conftest._servers:
        item = session.items[0]
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    server = conftest._servers[RELEASE]
    rows(server.url("postgres"), f"alter system set lock_timeout = '{HANGS}'")
    rows(server.url("postgres"), "select pg_reload_conf()")
    return server


def trials(session: pytest.Session, mutants: Iterable[Mutant], known: OneServer) -> Iterator[Trial]:
    """For `Judge`, one at a time."""
    server = _server(session)
    stock = _made(server)
    number = itertools.count(100_000, 100_000)  # of databases: each fork begins where no other does
    for mutant in mutants:
        killers: list[str] = []
        yield _trial(server, mutant, known, next(number), killers)
        _clean(server, stock)
        while killers and known.fails(session, killers[0]):
            killers.clear()
            yield _trial(server, mutant, known, next(number), killers)
            _clean(server, stock)
        for test in killers:
            known.killed(mutant, test)


def _trial(server: Server, mutant: Mutant, known: OneServer, number: int, killers: list[str]) -> Trial:
    def inside() -> None:
        server._numbers = itertools.count(number)
        stock, copy = dagstop.sql.read, server.create_database

        def read(name: str) -> str:
            text = stock(name)
            return text.replace(mutant.before, mutant.after) if name == mutant.file else text

        def create_database(template: str | None = None, name: str | None = None) -> str:
            url = copy(template, name)
            if template is not None and template.startswith("full_"):  # dagstop is installed there
                rows(url, f"set check_function_bodies = off; {mutant.after}")
            return url

        dagstop.sql.read = read  # type: ignore[assignment]
        server.create_database = create_database  # type: ignore[method-assign]

    tests = known.tests(mutant)
    seconds = sum(map(known.seconds.__getitem__, tests))
    return Trial(mutant.name, tests, seconds, nullcontext, inside, killers.append)


def _made(server: Server) -> dict[str, set[str]]:
    """By kind, the names of what belongs to the whole server."""
    return {
        kind: {str(name) for (name,) in rows(server.url("postgres"), query)} for kind, query in _MADE.items()
    }


def _clean(server: Server, stock: dict[str, set[str]]) -> None:
    """Only this much is there again."""
    for kind, names in _made(server).items():
        for name in names - stock[kind]:
            force = " with (force)" if kind == "database" else ""
            with suppress(psycopg2.Error):  # a test that it keeps from passing is not asked any more
                rows(server.url("postgres"), f'drop {kind} "{name}"{force}')
