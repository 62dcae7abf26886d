"""The SQL files as Python sees them."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from dagstop import sql

ALL = sorted(f.name.removesuffix(".sql") for f in files("dagstop.sql").iterdir() if f.name.endswith(".sql"))


def test_every_file_is_installed_or_named() -> None:
    others = {
        sql.PIN_FILE, sql.REFUSE_FILE, *sql.UNINSTALL_FILES, sql.REVISION_FILE, "queries", "page", "catalogue",
    }  # fmt: skip
    assert set(ALL) == set(sql.INSTALL_FILES) | others


@pytest.mark.parametrize("name", [name for name in ALL if name[0].isdigit()])
def test_every_file_begins_with_what_it_does(name: str) -> None:
    head = re.match(r"(?:-- .*\n)+", sql.read(name))
    assert head is not None
    lines = head[0].splitlines()
    assert 3 <= len(lines) <= 8
    assert [word for word in ("Fired by:", "Changes:", "Leaves alone:") if word not in head[0]] == []


# what looks like a call and is none, or follows its keyword in a list of columns
SYNTAX = {
    "all", "and", "any", "array", "as", "coalesce", "conflict", "exists", "from", "in", "key", "not", "nullif", "reset", "select", "values",
    "varchar", "when", "with",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ALL if name[0].isdigit()])
def test_what_runs_outside_a_function_names_the_schema_of_what_it_calls(name: str) -> None:
    """It runs with the search_path of whoever installs, on which strangers may make functions of their own."""
    text = re.sub(r"--.*", "", sql.read(name))
    text = re.sub(r"create or replace function.*?as \$\$.*?\$\$;", "", text, flags=re.DOTALL)
    text = re.sub(r"'(?:[^']|'')*'", "", text)
    text = re.sub(r"\$sql\$.*?\$sql\$", "", text, flags=re.DOTALL)
    assert set(re.findall(r"(?<![.\w])([a-z_]+) ?\(", text)) - SYNTAX == set()


@pytest.mark.parametrize("name", [name for name in ALL if name[0].isdigit()])
def test_an_install_touches_the_rows_of_two_tables_only(name: str) -> None:
    """Those that 01_refuse.sql holds and has looked at; what others may have put on another one would be fired."""
    text = re.sub(r"--.*", "", sql.read(name))
    text = re.sub(r"create or replace function.*?as \$\$.*?\$\$;", "", text, flags=re.DOTALL)
    text = re.sub(r"create or replace view.*?;", "", text, flags=re.DOTALL)
    text = re.sub(r"\$sql\$.*?\$sql\$|\$make\$.*?\$make\$", "", text, flags=re.DOTALL)
    touched = re.findall(
        r"\b(?:insert into|update|delete from|from|join|only|truncate|merge into) +dagstop\.(\w+)\b(?!\()",
        text,
        re.IGNORECASE,
    )
    assert set(touched) <= {"setting", "alembic_version"}
    called = set(
        re.findall(r"\bdagstop\.(\w+)\(", re.sub(r"\b(?:function|grant|comment)\b[^;]*;|'[^']*'", "", text))
    )
    assert called <= {"setting_of", "known_settings"}  # made by the same install, before the call


def test_the_checksum_is_put_in() -> None:
    assert "{checksum}" not in sql.script(sql.TRIGGERS_FILE)
    assert f"[dagstop {sql.checksum(sql.TRIGGERS_FILE)}]" in sql.script(sql.TRIGGERS_FILE)


def test_queries_have_names() -> None:
    assert "open_orders" in sql.queries()
    assert all(text and not text.endswith(";") for text in sql.queries().values())


@pytest.mark.parametrize("name", ALL)
def test_a_string_with_a_backslash_says_how_it_is_meant(name: str) -> None:
    """As E'': a plain one means another with standard_conforming_strings = off."""
    text = re.sub(r"--.*", "", sql.read(name))
    strings = re.findall(r"(E?)'((?:[^']|'')*)'", text)
    assert [body for mark, body in strings if "\\" in body and not mark] == []
