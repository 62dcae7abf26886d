"""Every way in which a function of sql/ is changed: one `Mutant` for each place and change.

Each condition in turn is true, or false where it is one side of an `or`, and both in an `if` or `when`; `not exists` is
`exists`; each list of words lacks each of its words; each lock is weaker, stronger, waits, or skips, or is not taken.
Texts that are executed are changed as what stands around them is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("sql")
_FUNCTION = re.compile(
    r"^create or replace (?:function|procedure) dagstop\.(?P<name>\w+).*?\$\$.*?^\$\$;",
    re.DOTALL | re.MULTILINE,
)
_COMMENT = re.compile(r"--[^\n]*")
_START = re.compile(r"\b(where|and|or|on|if|elsif|when)\b")
_END = re.compile(
    r"\b(?P<word>and|or|then|group|order|limit|for|returning|union|loop|left|join|cross|else|on|where|(?<!distinct )from|set|into|using|when)\b"
    r"|(?P<open>[(\[]|\bcase\b)|(?P<close>[)\]]|\bend\b)|(?P<stop>;|\$\w*\$)|(?P<quote>'+)|(?P<comma>,)"
)
_HANDLER = re.compile(r"\s*(others|\w+_failure|lock_not_available|disk_full|sqlstate|undefined_table)\b")
_LIST = re.compile(r"(?:array\[|\bin \(|any \(array\[)\s*('{1,2}\w+'{1,2}(?:,\s*'{1,2}\w+'{1,2})+)")
_ROW_LOCK = re.compile(
    r"\bfor (?P<mode>no key update|update|key share)(?P<of> of \w+)?(?P<held> nowait| skip locked)?"
)
_TABLE_LOCK = re.compile(r"\b(row exclusive|row share|access share)\b(?P<held> mode nowait)?")
_OF_LOCKS = re.compile(
    r"nowait|skip locked|for (no key )?update|for key share|row exclusive|row share|access share|may_wait|lock_first|written"
)
_ROW_MODES = {
    "no key update": ("update", "key share"),
    "update": ("no key update", "key share"),
    "key share": ("no key update",),
}
_TABLE_MODES = {
    "row exclusive": ("access share", "exclusive"),
    "row share": ("access share", "exclusive"),
    "access share": ("access exclusive",),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one function."""

    name: str  # file, function, what became what: the same after other lines were moved
    file: str  # without .sql
    function: str
    before: str
    after: str  # the whole statement that creates it

    @property
    def is_lock(self) -> bool:
        """It takes a lock in another way, or waits for one."""
        return _OF_LOCKS.search(self.name.partition(": ")[2]) is not None


def mutants_of(path: Path) -> list[Mutant]:
    """All of one file, in its order."""
    count: Counter[str] = Counter()
    found = []
    for function in _FUNCTION.finditer(path.read_text(encoding="utf-8")):
        text = function[0]
        for start, end, new in sorted(set(_changes(_without_comments(text)))):
            said = f"{path.name} {function['name']}: {_line(text[start:end])} -> {_line(new)}"
            count[said] += 1
            name = said if count[said] == 1 else f"{said} #{count[said]}"
            changed = text[:start] + new + text[end:]
            found.append(Mutant(name, path.stem, function["name"], text, changed))
    return found


def _without_comments(text: str) -> str:
    return _COMMENT.sub(lambda found: " " * len(found[0]), text)


def _line(text: str) -> str:
    return " ".join(text.split())


def _changes(text: str) -> Iterator[tuple[int, int, str]]:
    body = text.index("$$") + 2
    for start in _START.finditer(text, body):
        before = text[: start.start()].rstrip()
        if (start[1] == "if" and before.endswith("end")) or _HANDLER.match(text, start.end()):
            continue
        if start[1] == "on" and text.startswith(" conflict", start.end()):
            continue
        yield from _denied(text, start.end(), start[1])
    for one in re.finditer(r"\bnot exists\b", text[body:]):
        yield body + one.start(), body + one.end(), "exists"
    for words in _LIST.finditer(text, body):
        items = list(re.finditer(r"'{1,2}\w+'{1,2}", words[1]))
        for number in range(len(items)):
            rest = [item[0] for at, item in enumerate(items) if at != number]
            yield words.start(1), words.end(1), ", ".join(rest)
    yield from _locks(text, body)


def _locks(text: str, body: int) -> Iterator[tuple[int, int, str]]:
    for lock in _ROW_LOCK.finditer(text, body):
        of, held = lock["of"] or "", lock["held"] or ""
        yield lock.start(), lock.end(), ""
        for mode in _ROW_MODES[lock["mode"]]:
            yield lock.start(), lock.end(), f"for {mode}{of}{held}"
        if held:
            other = " skip locked" if held == " nowait" else " nowait"
            yield lock.start(), lock.end(), f"for {lock['mode']}{of}"
            yield lock.start(), lock.end(), f"for {lock['mode']}{of}{other}"
    for lock in _TABLE_LOCK.finditer(text, body):
        for mode in _TABLE_MODES[lock[1]]:
            yield lock.start(), lock.start() + len(lock[1]), mode
        if lock["held"]:
            yield lock.start("held"), lock.end("held"), " mode"


def _denied(text: str, at: int, keyword: str) -> Iterator[tuple[int, int, str]]:
    """The condition that begins here, and the first one inside of its parentheses."""
    begin = at + len(text[at:]) - len(text[at:].lstrip())
    if text.startswith("not ", begin):
        begin += 4
    end, word = _until(text, begin)
    condition = text[begin:end].rstrip()
    if not condition or condition in ("true", "false"):
        return
    begin_all = at + len(text[at:]) - len(text[at:].lstrip())
    whole = (begin_all, begin + len(condition))
    if keyword == "or" or word == "or":
        yield (*whole, "false")
    elif keyword in ("if", "elsif", "when") and word == "then":
        yield (*whole, "true")
        yield (*whole, "false")
    else:
        yield (*whole, "true")
    if condition.startswith("(") and not re.match(r"\(\s*select\b", condition):
        inner = begin + 1
        _, word = _until(text, inner)
        if word in ("and", "or"):
            yield from _denied(text, inner, "(")


def _until(text: str, at: int) -> tuple[int, str | None]:
    """Where the condition ends, and the word that ends it, if one does."""
    depth = 0
    quoted = text[text.index("$$") + 2 : at].replace("''", "").count("'") % 2 == 1
    place = at
    while found := _END.search(text, place):
        place = found.end()
        if found["quote"]:
            if not quoted and len(found["quote"]) % 2 == 1:
                place = text.index("'", place) + 1
            elif quoted and len(found["quote"]) % 2 == 1:
                return found.start(), None
        elif found["open"]:
            depth += 1
        elif found["close"]:
            depth -= 1
            if depth < 0:
                return found.start(), None
        elif depth == 0:
            return found.start(), found["word"]
    return len(text), None
