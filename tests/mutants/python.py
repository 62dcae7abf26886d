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
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.mutants.code import LISTENER, Mutant, mutants_of
from tests.mutants.judge import Clock, Trial, hurried

FILES = (
    *sorted((LISTENER / "evidence").glob("*.py")),
    LISTENER / "cases/case.py",
    LISTENER / "report/findings.py",
)
TESTS = ("tests/listener/evidence", "tests/listener/cases", "tests/listener/report")  # of the same rooms
ABOUT = {  # more files of tests that are about a module
    "match": ("place", "spared_runner", "index", "unreadable"),
    "labelling": ("folders", "forks", "groups", "spared_runner", "unreadable", "places", "watch"),
    "lineage": ("watch_told",),
    "watch": ("unreadable", "lineage", "labelling"),
    "ties": ("creators",),
    "containers": ("place", "twins", "verdicts"),
    "case": ("phases", "stopping"),
    "consent": ("places",),
}
OPTIONS = ("--unit", "-q", "-s")
ENOUGH = 15.0  # seconds of tests for one mutant
_MUTANT = "DAGSTOP_MUTANT"  # path and number: for a pytest of its own


class Baseline:
    """Which tests reach which lines, and how long they take."""

    def __init__(self, folder: str) -> None:
        facts = json.loads((Path(folder) / "seconds.json").read_text())
        self.seconds: dict[str, float] = facts["seconds"]
        self._lines: dict[str, dict[int, list[str]]] = {}
        from coverage import CoverageData

        data = CoverageData(str(Path(folder) / "coverage"))
        data.read()
        for path in data.measured_files():
            self._lines[path] = data.contexts_by_lineno(path)

    def tests(self, mutant: Mutant) -> list[str]:
        """Those that reach it: of the file about its module first, then the quick ones, as many as fit into a time."""
        lines = self._lines.get(str(mutant.path.resolve()), {})
        chosen = lines.values() if mutant.function is None else (lines.get(line, []) for line in mutant.lines)
        names = {context.rpartition("|")[0] for contexts in chosen for context in contexts if context}
        stem = mutant.path.stem
        about = tuple(f"/test_{word}" for word in (stem, *ABOUT.get(stem, ())))

        def rank(name: str) -> tuple[int, float]:
            """Of its own file first, then of the others about it, then the quick ones."""
            own, others = about[0] in name, any(part in name for part in about)
            return 0 if own else 1 if others else 2, self.seconds[name]

        reached = sorted(names & self.seconds.keys(), key=rank)
        if mutant.function is None:  # each file of tests is to be imported again
            reached = [name for name in reached if rank(name)[0] < 2] or reached[:20]
        spent = accumulate(map(self.seconds.__getitem__, reached))
        return [name for name, seconds in zip(reached, spent, strict=True) if seconds < ENOUGH]


def measured() -> Baseline:
    """Run the tests once without a mutant, in a process of its own. Raises SystemExit if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.mutants.python", folder]
        if subprocess.run(command, env={**os.environ, "COVERAGE_FILE": f"{folder}/coverage"}).returncode:
            raise SystemExit("the tests fail without a mutant")
        return Baseline(folder)


def trials(mutants: list[Mutant], baseline: Baseline) -> Iterator[Trial]:
    """For `Judge`: after the collection, since they look for the functions that are there."""
    functions: dict[tuple[str, str, int], list[FunctionType]] = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and str(LISTENER) in one.__code__.co_filename:
            functions.setdefault(_key(one.__code__), []).append(one)
    gc.freeze()
    for mutant in mutants:
        tests = baseline.tests(mutant)
        seconds = sum(map(baseline.seconds.__getitem__, tests))

        def inside(mutant: Mutant = mutant, tests: list[str] = tests) -> None:
            if mutant.function is None:
                _own_pytest(mutant, tests)
            _put_in(mutant, functions)

        yield Trial(mutant.name, tests, seconds, nullcontext, inside)


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
    os.environ[_MUTANT] = f"{mutant.path}:{mutant.number}"
    options = ("-x", *OPTIONS)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-p", "tests.mutants.python", *options, *tests])


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


def main(folder: str) -> int:
    """The run without mutants."""
    clock = Clock()
    options = ("--cov=dagstop", "--cov-context=test", "--cov-report=")
    code = pytest.main([*OPTIONS, *options, *TESTS], plugins=[clock])
    (Path(folder) / "seconds.json").write_text(json.dumps({"seconds": clock.seconds}))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
