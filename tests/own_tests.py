"""Airflow's own tests, on a database without dagstop and on one with its triggers: what differs?

    python -m tests.testbed.namespace python -m tests.own_tests [--path DIR]... TREE VENV TESTS...

TREE is a checkout of the Airflow repository, VENV a virtual environment in which its tests run, TESTS are
paths below TREE and, after `--`, options of pytest. The first of TESTS is run once before, so that its fixtures
create the tables. A test whose outcome differs is run again, alone, three times on both. Exits 1 if its outcomes
have nothing in common.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from dagstop.install import install
from tests.testbed.environment import sqlalchemy_url
from tests.testbed.postgres import Server, binaries, rows

AGAIN = 3
WRITTEN = ("stop_order", "stop_target", "refused_write", "unwritten_order", "fault")


@dataclass(frozen=True)
class Suite:
    """Where the tests are, what runs them, and a folder for what they write."""

    tree: Path
    venv: Path
    paths: Sequence[Path]
    folder: Path

    def run(self, url: str, tests: Sequence[str]) -> dict[str, str]:
        """The outcome of each test on that database, by name: passed, failed, error or skipped."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [
            self.venv / "bin" / "python",
            "-m",
            "pytest",
            "--quiet",
            "--color=no",
            f"--junitxml={report}",
        ]
        with (self.folder / "log").open("a") as log:
            subprocess.run(
                [*command, *tests], cwd=self.tree, env=self._environment(url), stdout=log, stderr=log
            )
        return _outcomes(report) if report.exists() else {}

    def _environment(self, url: str) -> dict[str, str]:
        """Nothing of the caller's own Airflow, and a home that says that the tables are there."""
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))
        }
        home = str(self.folder)
        return env | {
            "HOME": home,
            "AIRFLOW_HOME": home,
            "PATH": f"{self.venv / 'bin'}:{env['PATH']}",
            "PYTHONPATH": ":".join(str(self.tree / path) for path in (".", *self.paths)),
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": sqlalchemy_url(url),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url(url),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", type=Path, action="append", default=[], help="of TREE, to import from")
    parser.add_argument("tree", type=Path)
    parser.add_argument("venv", type=Path)
    parser.add_argument("tests", nargs="+")
    chosen = parser.parse_args()
    server = Server(binaries()[max(binaries())])
    with tempfile.TemporaryDirectory(prefix="dagstop-own-tests-") as folder:
        suite = Suite(chosen.tree.resolve(), chosen.venv.absolute(), chosen.path, Path(folder))
        try:
            return _compare(suite, server, chosen.tests)
        finally:
            server.stop()


def _compare(suite: Suite, server: Server, tests: Sequence[str]) -> int:
    without = server.create_database(name="without")
    suite.run(without, tests[:1])
    if not rows(without, "select to_regclass('dag_run') is not null")[0][0]:
        print((suite.folder / "log").read_text(errors="replace")[-5000:])
        return _refuse("the first of the tests did not create Airflow's tables")
    triggers = server.create_database(template="without", name="triggers")
    install(triggers)
    plain, own = (
        _summed(name, suite.run(url, tests)) for name, url in (("without", without), ("with", triggers))
    )
    _written(triggers)
    names = sorted(name for name in {*plain, *own} if plain.get(name) != own.get(name))
    print(f"{len(names)} tests differ")
    differing = [name for name in names if _differs(suite, without, triggers, name, plain, own)]
    print(f"{len(differing)} of {len(own)} tests differ each time")
    return 1 if differing or not own else 0


def _differs(
    suite: Suite, without: str, triggers: str, name: str, plain: dict[str, str], own: dict[str, str]
) -> bool:
    """Whether a test has other outcomes with the triggers than without, also by itself and each time."""
    print(f"  {name}: {plain.get(name)} without, {own.get(name)} with", flush=True)
    outcomes = [
        Counter(suite.run(url, [_node(suite.tree, name)]).get(name) for _ in range(AGAIN))
        for url in (without, triggers)
    ]
    print(f"    again, alone: {dict(outcomes[0])} without, {dict(outcomes[1])} with", flush=True)
    return not outcomes[0].keys() & outcomes[1].keys()


def _summed(name: str, outcomes: dict[str, str]) -> dict[str, str]:
    print(f"{name} dagstop: {len(outcomes)} tests, {dict(Counter(outcomes.values()))}", flush=True)
    return outcomes


def _written(url: str) -> None:
    """What dagstop had to do in the meantime: that it was there, and whether it had trouble."""
    counts = {table: rows(url, f"select count(*) from dagstop.{table}")[0][0] for table in WRITTEN}
    print("dagstop wrote", ", ".join(f"{count} {table}" for table, count in counts.items()))
    for place, message, count in rows(
        url, "select place, message, count(*) from dagstop.fault group by 1, 2"
    ):
        print(f"  fault, {count} times: {place}: {message}")
    triggers = "select count(*) from pg_trigger where tgname like 'dagstop%'"
    print(f"  triggers that are there at the end: {rows(url, triggers)[0][0]}", flush=True)


def _outcomes(report: Path) -> dict[str, str]:
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = {"failure": "failed"}.get(kinds[0], kinds[0]) if kinds else "passed"
    return found


def _node(tree: Path, name: str) -> str:
    """`tests.models.test_x.TestY::test_z` as pytest takes it: `tests/models/test_x.py::TestY::test_z`."""
    where, _, test = name.partition("::")
    words = where.split(".")
    for length in range(len(words), 0, -1):
        file = Path(*words[:length]).with_suffix(".py")
        if (tree / file).is_file():
            return "::".join([str(file), *words[length:], test])
    return name


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
