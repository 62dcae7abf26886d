"""Mutants of what decides: whose a process or container is, the case's states, what a report comes to.

mutmut 3 changes nothing outside of functions (here: limits, sets of words, defaults), changes every text that people
read, and runs a copy of the tree, which an editable install and tests that look at the tree do not follow. cosmic-ray
starts pytest for each mutant, and collecting our tests takes longer than most of them. Hence this.

A change inside of a function is put into the functions that are there already; one outside of them needs a pytest of
its own, in which the module is imported with it.
"""

from __future__ import annotations

import gc
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.mutants.code import LISTENER, Mutant, mutants_of
from tests.mutants.judge import Trial, hurried

FILES = (
    *sorted((LISTENER / "evidence").glob("*.py")),
    LISTENER / "cases/case.py",
    LISTENER / "report/findings.py",
    LISTENER / "kill/endings.py",
    LISTENER / "kill/journal.py",
)
TESTS = ("tests",)
OPTIONS = ("--unit", "-q", "-s")
SLOW = 0.1  # seconds of one test
COLLECT = 60.0  # seconds for importing the tests once more
_MUTANT = "DAGSTOP_MUTANT"  # path and number: for a pytest of its own


class Baseline:
    """Which tests reach which lines, and how many seconds of the processor they take."""

    def __init__(self, folder: str) -> None:
        self.seconds: dict[str, float] = json.loads((Path(folder) / "seconds.json").read_text())
        self._lines: dict[str, dict[int, list[str]]] = {}
        from coverage import CoverageData

        data = CoverageData(str(Path(folder) / "coverage"))
        data.read()
        for path in data.measured_files():
            self._lines[path] = data.contexts_by_lineno(path)

    def tests(self, mutant: Mutant) -> set[str]:
        """Those that reach it."""
        lines = self._lines.get(str(mutant.path.resolve()), {})
        chosen = lines.values() if mutant.function is None else (lines.get(line, []) for line in mutant.lines)
        names = {context.rpartition("|")[0] for contexts in chosen for context in contexts if context}
        return names & self.seconds.keys()


class Only(Baseline):
    """Some tests, not measured: each of them for each mutant."""

    def __init__(self) -> None:
        self.seconds = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """As a plugin."""
        # more than most take: an endless mutant has ten times as long
        self.seconds = {item.nodeid: 1.0 for item in session.items}

    def tests(self, mutant: Mutant) -> set[str]:
        """All."""
        return set(self.seconds)


def measured() -> Baseline:
    """Run the tests once without a mutant, in a process of its own. Raises SystemExit if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.mutants.python", folder]
        if subprocess.run(command, env={**os.environ, "COVERAGE_FILE": f"{folder}/coverage"}).returncode:
            raise SystemExit("the tests fail without a mutant")
        return Baseline(folder)


def trials(mutants: list[Mutant], baseline: Baseline, enough: float | None) -> Iterator[Trial]:
    """For `Judge`: after the collection, since they look for the functions that are there.

    enough: seconds of tests for one mutant, of the processor; None: all of those that reach it.
    """
    functions: dict[tuple[str, str, int], list[FunctionType]] = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and str(LISTENER) in one.__code__.co_filename:
            functions.setdefault(_key(one.__code__), []).append(one)
    gc.freeze()
    killers: dict[
        object, Counter[str]
    ] = {}  # by function and by module: the tests that failed for its mutants
    for mutant in mutants:
        own = f"/test_{mutant.path.stem}"
        counts = [killers.setdefault(key, Counter()) for key in ((mutant.path, mutant.function), mutant.path)]

        def rank(name: str, own: str = own, counts: list[Counter[str]] = counts) -> tuple[object, ...]:
            """What failed for others of it first, the slow ones last, of the quick ones its own file's first."""
            seconds = baseline.seconds[name]
            return *(-count[name] for count in counts), seconds > SLOW, own not in name, seconds

        def killed_by(name: str, counts: list[Counter[str]] = counts) -> None:
            for count in counts:
                count[name] += 1

        tests = sorted(baseline.tests(mutant), key=rank)
        if enough is not None:
            spent = accumulate(map(baseline.seconds.__getitem__, tests))
            tests = [name for name, seconds in zip(tests, spent, strict=True) if seconds < enough]

        def inside(mutant: Mutant = mutant, tests: list[str] = tests) -> None:
            if mutant.function is None:
                _own_pytest(mutant, tests)
            _put_in(mutant, functions)

        seconds = sum(map(baseline.seconds.__getitem__, tests)) + (COLLECT if mutant.function is None else 0)
        yield Trial(mutant.name, tests, seconds, nullcontext, inside, killed_by, _patience(baseline))


def _patience(baseline: Baseline) -> Callable[[str], float]:
    """A test that waits for ever ends, one that a busy machine keeps waiting does not."""
    return lambda name: 60 + 60 * baseline.seconds[name]


def _key(code: CodeType) -> tuple[str, str, int]:
    return os.path.realpath(code.co_filename), code.co_name, code.co_firstlineno


def _put_in(mutant: Mutant, functions: dict[tuple[str, str, int], list[FunctionType]]) -> None:
    code = compile(mutant.tree(), str(mutant.path.resolve()), "exec")
    assert mutant.function is not None
    (changed,) = [one for one in _codes(code) if (one.co_name, one.co_firstlineno) == mutant.function]
    for function in functions[_key(changed)]:
        function.__code__ = changed


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _own_pytest(mutant: Mutant, tests: list[str]) -> None:
    """Each file of tests is to be imported again: those of its own by themselves, before all others."""
    os.environ[_MUTANT] = f"{mutant.path}:{mutant.number}"
    command = [sys.executable, "-m", "pytest", "-p", "tests.mutants.python", "-x", *OPTIONS]
    files = dict.fromkeys(name.partition("::")[0] for name in tests)
    own = [name for name in files if f"/test_{mutant.path.stem}" in name]
    if own and subprocess.run([*command, *own]).returncode:
        os._exit(1)
    os.execv(sys.executable, [*command, *(name for name in files if name not in own)])


def pytest_configure() -> None:
    """As a plugin of such a pytest."""
    hurried()


def _import_with(path: str, number: int) -> None:
    """From now on the module is imported with the change."""
    target = os.path.realpath(path)
    (mutant,) = [one for one in mutants_of(Path(path)) if one.number == number]
    stock = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
        if os.path.realpath(self.path) == target:
            changed: CodeType = compile(mutant.tree(), target, "exec")
            return changed
        return stock(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


if _MUTANT in os.environ:  # a plugin is imported before the conftests, which import much of the code
    _import_with(os.environ[_MUTANT].rpartition(":")[0], int(os.environ[_MUTANT].rpartition(":")[2]))


class Clock:
    """A plugin: seconds of the processor, since other programs of the machine are not a test's own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """One test."""
        began = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - began
        return result

    def pytest_configure(self) -> None:
        """As for the mutants."""
        hurried()


def main(folder: str) -> int:
    """The run without mutants."""
    clock = Clock()
    options = ("--cov=dagstop", "--cov-context=test", "--cov-report=")
    code = pytest.main([*OPTIONS, *options, *TESTS], plugins=[clock])
    (Path(folder) / "seconds.json").write_text(json.dumps(clock.seconds))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
