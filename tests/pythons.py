"""`make pythons`: the tests that start no server, on each other Python that dagstop is said to run on."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.metadata import metadata
from pathlib import Path

from tests.testbed.airflows import find_python

ROOT = Path(__file__).resolve().parents[1]
_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")


def main() -> None:
    found = [_CLASSIFIER.fullmatch(line) for line in metadata("dagstop").get_all("Classifier") or ()]
    own = "{}.{}".format(*sys.version_info)
    others = [match[1] for match in found if match and match[1] != own]
    bad = [version for version in others if not _passes(version)]
    if bad:
        sys.exit(f"not green on Python {', '.join(bad)}")


def _passes(version: str) -> bool:
    print(f"Python {version}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dagstop-python-") as folder:
        python = Path(folder, "bin", "python")
        made = _uv("venv", "--quiet", "--python", find_python(version), folder) and _uv(
            "pip", "install", "--quiet", "--python", python, "--editable", f"{ROOT}[dev]"
        )
        tests = [python, "-m", "pytest", "--unit", "--quiet", "--numprocesses", "2", "-p", "no:cacheprovider"]
        return made and _done([python, "-m", "tests.testbed.namespace", *tests])


def _uv(*words: str | Path) -> bool:
    return _done([sys.executable, "-m", "uv", *words])


def _done(command: list[str | Path]) -> bool:
    return subprocess.run(command, cwd=ROOT).returncode == 0


if __name__ == "__main__":
    main()
