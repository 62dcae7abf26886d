"""Mutants of the functions that write orders, cascade and fence, held against tests/sql on a server of its own.

A mutant is put into the databases that the tests copy, and into what an install reads. Postgres itself says which
functions a test calls (track_functions). The tests about the same file run, by its number, and then the quick ones
of those that call the function, up to a number of them: a busy machine does not make survivors.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psycopg2
import pytest

import dagstop.sql
from tests.mutants.judge import Clock, Trial
from tests.mutants.statements import FOLDER, Mutant
from tests.support.airflow_tables import SHAPES
from tests.testbed.postgres import Server, binaries, connect, rows

FILES = tuple(
    sorted(path for path in FOLDER.glob("*.sql") if path.name[:2] in ("07", "08", "09", "10", "11"))
)
OPTIONS = ("-q", "-s", "-m", "not e2e", "tests/sql")
RELEASE = max(binaries())  # as tests.support.marks
ABOUT = {  # more files of tests that are about a file
    "07_orders": ("settings", "08_orders_deleted", "09_cascade"),
    "08_orders_deleted": ("left_behind", "settings"),
    "09_cascade": ("left_behind", "isolation", "settings"),
    "10_unwritten": ("unwritten_others",),
    "11_fence": ("fence_others", "runs_written_back"),
}
ENOUGH = 200  # tests for one mutant
_ABOUT_LOCKS = ("tests/sql/test_lock_modes.py", "tests/sql/test_locks.py")
HANGS = "20s"  # a lock that nothing of ours waits for, and a mutant does


class OneServer(Clock):
    """A plugin: only the tests on one server; how long each takes, and which functions it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.called: dict[str, set[str]] = {}
        self.killers: dict[str, Counter[str]] = {}  # by function: the tests that failed for its mutants
        self.enough: float = ENOUGH
        self._drop = Server.drop_database

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Those that a mutant can reach."""
        items[:] = [item for item in items if getattr(item, "callspec", None) is not None]
        items[:] = [item for item in items if item.callspec.params.get("server") == RELEASE]  # type: ignore[attr-defined]

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
        Server.drop_database = self._drop  # type: ignore[method-assign]
        session.testsfailed = 0

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
        cases: Counter[str] = Counter()

        def rank(name: str) -> tuple[bool, int, bool, bool, int, float]:
            calls = mutant.function in self.called.get(name, ())
            of_locks = mutant.is_lock and name.startswith(_ABOUT_LOCKS)
            test = name.partition("[")[0]
            cases[test] += 1
            is_about = name.startswith(about)
            return (
                not calls, -killers[name], not of_locks, not is_about, cases[test] if is_about else 0,
                self.seconds[name],
            )  # fmt: skip

        reached = [
            name
            for name in self.seconds
            if name not in self.failed
            and (name.startswith(own) or mutant.function in self.called.get(name, ()))
        ]
        reached.sort(key=rank)
        return reached[: int(self.enough)]


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
    """For `Judge`."""
    server = _server(session)
    for number, mutant in enumerate(mutants, 1):
        tests = known.tests(mutant)

        def inside(mutant: Mutant = mutant, number: int = number) -> None:
            server._numbers = itertools.count(number * 100_000)  # what one left behind is in nobody's way
            stock = dagstop.sql.read

            def read(name: str) -> str:
                text = stock(name)
                return text.replace(mutant.before, mutant.after) if name == mutant.file else text

            dagstop.sql.read = read  # type: ignore[assignment]

        yield Trial(
            mutant.name,
            tests,
            sum(map(known.seconds.__getitem__, tests)),
            lambda m=mutant: _there(server, m),
            inside,  # type: ignore[misc]
            lambda name, m=mutant: known.killers.setdefault(m.function, Counter()).update([name]),  # type: ignore[misc]
        )


@contextmanager
def _there(server: Server, mutant: Mutant) -> Iterator[None]:
    """In the databases that the tests copy."""
    _create(server, mutant.after)
    yield
    _create(server, mutant.before)


def _create(server: Server, statement: str) -> None:
    for shape in SHAPES:
        with connect(server.url(f"full_{shape}")) as connection, connection.cursor() as cursor:
            cursor.execute("set check_function_bodies = off")
            cursor.execute(statement)
