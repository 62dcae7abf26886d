"""Try mutants: `python -m tests.mutants python|sql [WORD...] [--seed 1] [--sample 1000]`; WORDs choose by name, and
a sample is drawn of what they chose.

Prints those that no test noticed, and how many of how many. Exits 1 if more than 3 % survive. `--keep FILE` keeps what
the tests reach, for the next run. `--again FILE` tries those that survived in the run that printed the file.
With MUTANTS=all each mutant is printed, and `--resume FILE` takes from the file what became of those in it.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.mutants import code, statements
from tests.mutants.judge import DIES, ENDLESS, LIVES, Judge, Trial

MOST = 3.0
EQUIVALENT = Path(__file__).parent / "equivalent.txt"
Mutant = code.Mutant | statements.Mutant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("half", choices=("python", "sql"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--again", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--tests", nargs="+", default=(), help="these, and no others; of Python all of them")
    parser.add_argument("--equivalent", action="store_true", help="only those that behave alike: all survive")
    parser.add_argument("--at-once", type=int, default=2, help="mutants of Python under trial at a time")
    parser.add_argument(
        "--enough",
        type=float,
        help="for one mutant of Python so many seconds of the processor, of sql so many tests",
    )
    chosen = parser.parse_intermixed_args()
    if "DAGSTOP_TEST_NAMESPACE" not in os.environ:
        return _refuse("run `make mutants`: mutants of a killer need a namespace of their own")
    every = _mutants(chosen.half)
    equivalent = {name for name in _equivalent() if (".sql " in name) == (chosen.half == "sql")}
    for name in sorted(equivalent - {mutant.name for mutant in every}):
        print(f"{EQUIVALENT.name} names what is no longer there: {name}")
    mutants = [mutant for mutant in every if (mutant.name in equivalent) == chosen.equivalent]
    if chosen.words:
        mutants = [mutant for mutant in mutants if any(word in mutant.name for word in chosen.words)]
    if chosen.again is not None:
        lived = set(chosen.again.read_text(encoding="utf-8").splitlines())
        mutants = [mutant for mutant in mutants if f"{LIVES}: {mutant.name}" in lived]
    among = len(mutants)
    if chosen.sample is not None and chosen.sample < among:
        # in the order in which they were drawn: the first of them are a sample, too
        mutants = random.Random(chosen.seed).sample(mutants, chosen.sample)
    began = time.monotonic()
    known = _printed(chosen.resume) if chosen.resume is not None else {}
    results = {mutant.name: known[mutant.name] for mutant in mutants if mutant.name in known}
    rest = [mutant for mutant in mutants if mutant.name not in results]
    if rest:
        results |= _tried(rest, chosen)
    if len(results) != len(mutants):
        return _refuse("not all of them were tried")
    whole = f"{len(mutants)} of {among}"
    drawn = f", drawn with seed {chosen.seed}" if len(mutants) < among else ""
    return _summed(results, f"{whole}{drawn}; {len(equivalent)} equivalent; {time.monotonic() - began:.0f} s")


def _mutants(half: str) -> Sequence[Mutant]:
    from tests.mutants import python, sql

    if half == "python":
        return [mutant for path in python.FILES for mutant in code.mutants_of(path)]
    return [mutant for path in sql.FILES for mutant in statements.mutants_of(path)]


def _printed(path: Path) -> dict[str, str]:
    """What became of each mutant that an earlier run printed; of several lines about one the last."""
    lines = (line.partition(": ") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: outcome for outcome, _, name in lines if outcome in (LIVES, DIES, ENDLESS)}


def _tried(mutants: Sequence[Mutant], asked: argparse.Namespace) -> dict[str, str]:
    from tests.mutants import python, sql

    # the pid is one of its own namespace: two runs at once may have the same
    options = [f"--basetemp={tempfile.mkdtemp(prefix='dagstop-mutants-')}"]
    keep: Path | None = asked.keep
    kept = pickle.loads(keep.read_bytes()) if keep is not None and keep.exists() else None
    if asked.half == "python":
        baseline = python.Only() if asked.tests else kept or python.measured()
        if keep is not None and not asked.tests:
            keep.write_bytes(pickle.dumps(baseline))
        chosen = [mutant for mutant in mutants if isinstance(mutant, code.Mutant)]
        judge = Judge(lambda _: python.trials(chosen, baseline, asked.enough), _said, asked.at_once)
        pytest.main([*python.OPTIONS, *options, *(asked.tests or python.TESTS)], plugins=[judge, baseline])
        return judge.results

    sql.in_memory()
    one_server = sql.OneServer(asked.enough or sql.ENOUGH, keep)

    def trials(session: pytest.Session) -> Iterator[Trial]:
        one_server.measure(session)
        print(f"\n{len(one_server.seconds)} tests; fail without a mutant: {one_server.failed}", flush=True)
        yield from sql.trials(
            session, [one for one in mutants if isinstance(one, statements.Mutant)], one_server
        )

    judge = Judge(trials, _said)
    pytest.main([*sql.OPTIONS, *options, *(asked.tests or sql.TESTS)], plugins=[judge, one_server])
    return judge.results


def _equivalent() -> set[str]:
    """The names of mutants that behave as the code does; their reasons stand in the file."""
    lines = EQUIVALENT.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def _said(name: str, outcome: str) -> None:
    if outcome == LIVES or os.environ.get("MUTANTS") == "all":
        print(f"{outcome}: {name}", flush=True)


def _summed(results: dict[str, str], what: str) -> int:
    by_file: dict[str, Counter[str]] = {}
    for name, outcome in results.items():
        by_file.setdefault(name.split()[0], Counter())[outcome] += 1
    print(f"\n{'':32}{'mutants':>8}{'timed out':>11}{'survived':>10}")
    for file, counts in by_file.items():
        print(f"{file:32}{counts.total():>8}{counts[ENDLESS]:>11}{counts[LIVES]:>10}")
    survived = sum(outcome == LIVES for outcome in results.values())
    share = 100 * survived / max(1, len(results))
    print(f"{survived} survived, {share:.1f} % ({what})")
    return 0 if share <= MOST else 1


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
