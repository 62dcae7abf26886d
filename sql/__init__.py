"""The database half of dagstop: its SQL files, read as text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_FOLDER = files(__name__)
INSTALL_FILES = tuple(
    sorted(
        file.name.removesuffix(".sql")
        for file in _FOLDER.iterdir()
        if re.fullmatch(r"[0-8][0-9]_[a-z_]+[.]sql", file.name)
    )
)
"""What an install runs: the numbered files below 90, in the order of the folder."""
LOCK_FILE, TRIGGERS_FILE = "01_lock", "16_triggers"
BOUND_FILES = (TRIGGERS_FILE, "17_present_rows")
"""What names Airflow's tables: made again where they moved."""
UNINSTALL_FILES = (LOCK_FILE, "90_uninstall")
DROP_SCHEMA_FILE = "91_drop_schema"
REVISION_FILE = "92_revision"

_BLOCK = re.compile(r"^-- (?P<name>\w+) --$", re.MULTILINE)
_OBJECT = re.compile(
    r"^create (?:or replace )?(?:table|view|function) (?:if not exists )?dagstop\.(\w+)",
    re.MULTILINE,
)


@cache
def read(name: str) -> str:
    """The text of `<name>.sql`. Raises FileNotFoundError if there is none."""
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def checksum(name: str) -> str:
    """Twelve hexadecimal digits that name the text of `<name>.sql`."""
    return hashlib.sha256(read(name).encode()).hexdigest()[:12]


def script(name: str) -> str:
    """The text of `<name>.sql` as it is run: `{checksum}` is replaced by its own checksum."""
    return read(name).replace("{checksum}", checksum(name))


@cache
def queries(name: str = "queries") -> Mapping[str, str]:
    """The named queries of `<name>.sql`, with psycopg2's named parameters."""
    return MappingProxyType(named(read(name)))


def named(text: str) -> dict[str, str]:
    """The named queries of a text. Raises ValueError if a name is there twice."""
    found: dict[str, str] = {}
    for block, query in _blocks(text):
        if block in found:
            raise ValueError(f"query {block} is there twice")
        found[block] = query
    return found


def objects() -> frozenset[str]:
    """The names of the tables, views and functions that an install creates in schema dagstop."""
    return frozenset(name for file in INSTALL_FILES for name in _OBJECT.findall(read(file)))


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    marks = list(_BLOCK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        yield mark["name"], text[mark.end() : end].strip().removesuffix(";")
