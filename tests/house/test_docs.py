"""The documentation: generated from the code where possible, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dagstop.commands import cli
from tests.reference import PAGE, reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """What can stand behind # in a link to a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_is_made_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "renew it with: make docs"


def test_the_reference_names_every_command() -> None:
    for name in cli.list_commands(cli.make_context("dagstop", ["status"], resilient_parsing=True)):
        assert f"### dagstop {name}\n" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file) if file else path
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_and_options_that_are_named_exist(path: Path) -> None:
    """What is in backticks or in a block and begins with `dagstop`."""
    context = cli.make_context("dagstop", ["status"], resilient_parsing=True)
    text = path.read_text(encoding="utf-8")
    said = re.findall(r"`(?:/\S+/|sudo )?dagstop ([a-z]+)([^`\n]*)`", text)
    for block in FENCED.findall(text):
        said += re.findall(r"^(?:sudo (?:-\w+ )?)?(?:\S*/)?dagstop ([a-z]+)([^\n]*)$", block, re.MULTILINE)
    for name, rest in said:
        command = cli.get_command(context, name)
        assert command is not None, f"dagstop {name}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"--[a-z][a-z-]+", rest.split("#")[0])) <= known, rest


def test_the_readme_names_every_page_of_docs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in readme] == []
