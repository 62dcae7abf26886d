"""`make soak`: the random tests round after round, each with a seed of its own.

    python -m tests.soak [--minutes 60] [--seed N] [TESTS...]

Prints each round's seed, how many examples and how many failures, and at the end the examples of each file.
A round that fails is printed with the command that plays it again, and the next one begins. Exits 1 if one failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.support.random_tests import FIRST_VARIABLE, WORLDS_VARIABLE

WORLDS = 60
_TEST = re.compile(r"^(tests/\S+\.py)::")
_EXAMPLES = re.compile(r"^\s+- (\d+) passing\b")
_WORLDS = re.compile(r"^(tests/\S+\.py)::test_explain\S*\[\d+\] PASSED")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, help="of the first round; by chance if not given")
    parser.add_argument("tests", nargs="*", default=["tests"])
    chosen = parser.parse_args()
    if "DAGSTOP_TEST_NAMESPACE" not in os.environ:
        print("run `make soak`: tests of a killer need a namespace of their own", file=sys.stderr)
        return 2
    first = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1_000_000)
    began, seed, counted, failed = time.monotonic(), first, Counter[str](), []
    while seed == first or time.monotonic() - began < chosen.minutes * 60:
        code, found = _round(seed, chosen.tests)
        if code not in (0, 1):
            return 2  # pytest has said why
        counted += found
        failed += [seed] * code
        seed += 1
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.0f} minutes, seeds {first} to {seed - 1}, {counted.total()} examples;", end=" ")
    print("rounds that failed:", ", ".join(map(str, failed)) or "none")
    for file, number in sorted(counted.items()):
        print(f"{number:>10}  {file}")
    return 1 if failed else 0


def _round(seed: int, tests: Sequence[str]) -> tuple[int, Counter[str]]:
    """pytest's exit code, and the examples of each file."""
    command = ["pytest", "--verbose", "-m", "(hypothesis or worlds) and not e2e", "--hypothesis-profile=soak"]
    command += [f"--hypothesis-seed={seed}", "--hypothesis-show-statistics", *tests]
    variables = {FIRST_VARIABLE: str(seed * WORLDS), WORLDS_VARIABLE: str(WORLDS)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command], env=os.environ | variables, capture_output=True, text=True
    )
    found = _counted(done.stdout)
    seconds = time.monotonic() - began
    result = "passed" if done.returncode == 0 else "FAILED"
    print(f"seed {seed}: {result}, {found.total()} examples, {seconds:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-5_000:])
        print(
            "again:",
            " ".join([*(f"{name}={value}" for name, value in variables.items()), *command]),
            flush=True,
        )
    return done.returncode, found


def _counted(said: str) -> Counter[str]:
    counted = Counter(match[1] for line in said.splitlines() if (match := _WORLDS.match(line)))
    file = ""
    for line in said.splitlines():
        if match := _TEST.match(line):
            file = match[1]
        elif match := _EXAMPLES.match(line):
            counted[file] += int(match[1])
    return counted


if __name__ == "__main__":
    sys.exit(main())
