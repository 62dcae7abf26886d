"""`python -m tests.bench [--quick] [SUBJECT ...]`, inside tests.testbed.namespace (`make bench`)."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.bench import containers, fleet, groups, past, rest, sizes, stock, storm, updates
from tests.bench.plot import svg
from tests.bench.stage import Stage
from tests.bench.table import Found, show

OUTPUT = Path("build/bench")
SUBJECTS = {
    "groups": groups.run,
    "containers": containers.run,
    "mass": updates.mass,
    "updates": updates.run,
    "past": past.run,
    "sizes": sizes.run,
    "storm": storm.run,
    "rest": rest.run,
    "fleet": fleet.run,
    "growth": rest.growth,
    "stock": stock.run,
}
OPTIONAL = {"sizes", "stock"}  # no speed; builds and starts a real Airflow: minutes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=" ".join(SUBJECTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    options = parser.parse_args()
    if unknown := set(options.subjects) - set(SUBJECTS):
        parser.error(f"no such subject: {' '.join(sorted(unknown))}; there are {' '.join(SUBJECTS)}")
    if not os.environ.get("DAGSTOP_TEST_NAMESPACE"):
        sys.exit("It kills for real and wants a pid namespace of its own: make bench")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    found: list[Found] = []
    with Stage(options.quick, OUTPUT) as stage:
        for name in options.subjects or [name for name in SUBJECTS if name not in OPTIONAL]:
            begun = time.monotonic()
            result = SUBJECTS[name](stage)
            result.write(OUTPUT)
            found.append(result)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    curves = [curve for one in found for curve in one.curves]
    if curves:
        (OUTPUT / "growth.svg").write_text(svg(curves))
    text = show(found)
    (OUTPUT / "table.txt").write_text(text + "\n")
    print(text)


main()
