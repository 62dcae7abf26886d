"""One event, one line: whatever a name holds, it cannot pass for another fact or another line."""

from __future__ import annotations

import shlex

import pytest

from dagstop.logs import event, shown

HOSTILE = [
    'x" outcome=stopped by="root',
    "x outcome=stopped",
    "x=1",
    "a\nb\r\tc",
    "\x1b[2J\x07",
    "\u202egnp.exe",
    "\u2028",
    "\ud800",
    "%s {} %(name)s",
    "it's",
    "\N{PILE OF POO}",
    "x" * 250,
    "",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_is_one_value_of_one_line(name: str) -> None:
    line = event("stopped", run=name, by="dba")
    assert line.isprintable()
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, '"', ""
    assert [word.partition("=")[0] for word in lexer] == ["stopped", "run", "by"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_text_is_shown_on_one_line_of_bounded_length(name: str) -> None:
    assert shown(name, 100).isprintable() and len(shown(name, 100)) <= 100
