"""The database half of dagstop: its SQL files, read as text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

_FOLDER = files(__name__)
PIN_FILE, REFUSE_FILE = "00_pin", "01_refuse"
"""What comes first: it changes nothing, and ends what must not go on."""
INSTALL_FILES = tuple(
    sorted(
        file.name.removesuffix(".sql")
        for file in _FOLDER.iterdir()
        if re.fullmatch(r"[0-8][0-9]_[a-z_]+[.]sql", file.name)
        and file.name.removesuffix(".sql") not in (PIN_FILE, REFUSE_FILE)
    )
)
"""What an install runs: the numbered files below 90, in the order of the folder."""
SETTINGS_FILE, TRIGGERS_FILE, GRANTS_FILE = "06_settings", "17_triggers", "19_grants"
UNINSTALL_FILES = ("02_lock", "90_uninstall", "91_drop_schema")
REVISION_FILE = "92_revision"

_BLOCK = re.compile(r"^-- (?P<name>\w+) --$", re.MULTILINE)
_OBJECT = re.compile(
    r"^create (?:or replace )?(?:table|view|function|procedure|index) (?:if not exists )?(?:dagstop\.)?(\w+)",
    re.MULTILINE,
)

_SETTING = re.compile(
    r"^    \('(?P<name>\w+)', '(?P<default>[^']*)', (?P<item>null|'[^']*'),"
    r".*?'(?P<meaning>(?:[^']|'')*)'\),?$",
    re.MULTILINE | re.DOTALL,
)


class KnownSetting(NamedTuple):
    """One row of dagstop.known_settings()."""

    name: str
    default: str
    meaning: str
    internal: bool  # written by an install, not by hand


@cache
def read(name: str) -> str:
    """The text of `<name>.sql`. Raises FileNotFoundError if there is none."""
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def checksum(name: str) -> str:
    """Twelve hexadecimal digits that name the text of `<name>.sql`."""
    return hashlib.sha256(read(name).encode()).hexdigest()[:12]


def script(name: str, **values: str) -> str:
    """The text of `<name>.sql` as it is run, with values for what stands in braces.

    `{checksum}` is that of the file, `{objects}` an array of what an install creates.
    """
    text = read(name)
    values = {"checksum": checksum(name), "objects": "{" + ",".join(sorted(objects())) + "}", **values}
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    return text


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


@cache
def objects() -> frozenset[str]:
    """The names of the tables, views, routines and indexes that an install creates in schema dagstop."""
    return frozenset(name for file in INSTALL_FILES for name in _OBJECT.findall(read(file)))


@cache
def listener_functions() -> frozenset[str]:
    """The names of the functions that role dagstop_listener may call."""
    found = re.search(r"grant execute on routine(.*?)to dagstop_listener;", read(GRANTS_FILE), re.DOTALL)
    assert found is not None
    return frozenset(re.findall(r"dagstop\.(\w+)\(", found[1]))


def whole() -> dict[str, list[str]]:
    """What the query `lacking` of catalogue.sql is to look for."""
    return {"objects": sorted(objects()), "functions": sorted(listener_functions())}


@cache
def settings() -> tuple[KnownSetting, ...]:
    """What dagstop.known_settings() says, without a database."""
    return tuple(
        KnownSetting(
            row["name"], row["default"], row["meaning"].replace("''", "'"), internal=row["item"] == "null"
        )
        for row in _SETTING.finditer(read(SETTINGS_FILE))
    )


@cache
def triggers() -> Mapping[tuple[str, str], tuple[str, str]]:
    """The triggers that belong on Airflow's tables: (table, name) -> (function, comment)."""
    text = script(TRIGGERS_FILE)
    functions = re.findall(
        r"^create trigger (\w+)\n.*? on (\w+)\n.*?execute function dagstop\.(\w+)\(\);", text, re.S | re.M
    )
    comments = re.findall(r"^comment on trigger (\w+) on (\w+) is '(.*)';$", text, re.MULTILINE)
    said = {(table, name): comment.replace("''", "'") for name, table, comment in comments}
    return MappingProxyType({(t, n): (function, said[t, n]) for n, t, function in functions})


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    marks = list(_BLOCK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        yield mark["name"], text[mark.end() : end].strip().removesuffix(";")
