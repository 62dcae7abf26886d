"""Plain English, as far as a machine can check it: `python -m tests.words`, a part of `make lint`.

Reads the Markdown pages and whatever people read of the code: comments, docstrings, messages. Prints
each line with a word of the old manner, and each line of text in a page that is too long.
"""

from __future__ import annotations

import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLUMNS = 100
OLD = re.compile(
    r"\b(anew|amid|mend(s|ed|ing)?|goes before|beats|stands in|needs not|as ever|by Airflow's word"
    r"|(?<!there )is no(?! (longer|more)\b))\b"
    # a double genitive, which no noun follows
    r"|\bof (Airflow|dagstop)'s(?=\s*$|[.,;:)]| (is|are|was|were|that|which|may|can|and|or|in|to|on|out|of|has|would)\b)",
    re.IGNORECASE,
)
PAGES = ("*.md", "docs/*.md")
CODE = ("listener/dagstop/**/*.py", "migrations/**/*.py", "tests/**/*.py")
WHOLE = ("listener/dagstop/**/*.service", "listener/dagstop/page/*.*", "sql/*.sql")
QUOTING = {"tests/words.py", "tests/house/test_words.py"}
"""They quote such words."""
GENERATED = {"reference.md"}  # its lines are as long as what they are made from


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    wrong = [*_pages(), *_code(), *_whole()]
    print(*sorted(set(wrong)), sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def _pages() -> Iterator[str]:
    for path in _files(PAGES):
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.startswith("```")
            yield from _said(path, number, line)
            free = fenced or line.startswith(("|", "```")) or "](" in line or path.name in GENERATED
            if len(line) > COLUMNS and not free:
                yield f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, at most {COLUMNS}"


def _code() -> Iterator[str]:
    for path in _files(CODE):
        if str(path.relative_to(ROOT)) in QUOTING:
            continue
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type in (tokenize.COMMENT, tokenize.STRING):
                    for offset, line in enumerate(token.string.splitlines()):
                        yield from _said(path, token.start[0] + offset, line)


def _whole() -> Iterator[str]:
    for path in _files(WHOLE):
        if path.suffix != ".png":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield from _said(path, number, line)


def _files(patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})


def _said(path: Path, number: int, line: str) -> Iterator[str]:
    for found in OLD.finditer(line):
        yield f"{path.relative_to(ROOT)}:{number}: {found.group()!r}: say it plainly ({line.strip()[:90]})"


if __name__ == "__main__":
    sys.exit(main())
