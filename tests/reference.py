"""docs/reference.md, made from the code: `make docs` writes it, tests/house/test_docs.py compares."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from dagstop import errors, sql
from dagstop.commands import cli
from dagstop.settings import SETTINGS

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

_HEAD = """\
# Reference

Made from the code by `make docs`: edit it there. [page.md](page.md#prometheus) has the metrics.

Exit codes of every command: 0 success; 1 failure or failed check, stderr says why; 2 wrong usage.
"""
_OBJECT = re.compile(r"comment on (table|view) dagstop\.(\w+) is '((?:[^']|'')*)'")
_COLUMN = re.compile(r"comment on column dagstop\.(\w+)\.(\w+) is '((?:[^']|'')*)'")


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_commands(), *_settings(), *_tables(), *_errors()]) + "\n"


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    context = click.Context(cli, info_name="dagstop")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=f"dagstop {name}", auto_envvar_prefix="DAGSTOP")
        yield f"### dagstop {name}\n"
        arguments = [p.make_metavar(inner) for p in command.params if isinstance(p, click.Argument)]
        yield f"`{' '.join(['dagstop', name, *arguments, '[OPTIONS]'])}`\n"
        yield inspect.cleandoc(command.help or "").replace("\n\n", "\n\n") + "\n"
        options = [p for p in command.params if isinstance(p, click.Option)]
        if options:
            yield "| option | variable | default | means |\n|---|---|---|---|"
            yield from (_option(option, inner) for option in options)
            yield ""


def _option(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.metavar:
        names += f" {option.metavar}"
    given = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    variables = given or [f"DAGSTOP_{(option.name or '').upper()}"]
    shown = ", ".join(f"`{name}`" for name in variables)
    default = "" if option.is_flag or not option.show_default else f"{option.default}"
    return f"| {names} | {shown} | {default} | {_cell(option.help or '')} |"


def _settings() -> Iterator[str]:
    yield "## Settings in the database\n"
    yield "One row each in `dagstop.setting`, read at every use: an UPDATE there takes effect at once.\n"
    yield "| setting | default | means |\n|---|---|---|"
    for setting in SETTINGS:
        if setting.in_database:
            default = f"`{setting.default}`" if setting.default else "none"
            yield f"| `{setting.name}` | {default} | {_cell(setting.meaning)} |"
    yield ""


def _tables() -> Iterator[str]:
    text = "\n".join(sql.read(file) for file in sql.INSTALL_FILES)
    columns = _COLUMN.findall(text)
    yield "## Tables and views of schema dagstop\n"
    for kind, name, means in sorted(_OBJECT.findall(text), key=lambda found: found[1]):
        yield f"### dagstop.{name} ({kind})\n\n{_plain(means)}\n"
        own = [(column, said) for table, column, said in columns if table == name]
        if own:
            yield "| column | is |\n|---|---|"
            yield from (f"| `{column}` | {_plain(said)} |" for column, said in own)
            yield ""


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield "The message of each error, if the command has nothing more specific to say.\n"
    yield "| error | means |\n|---|---|"
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.DagstopError):
            yield f"| {name} | {_cell(' '.join((inspect.getdoc(kind) or '').split()))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(quoted: str) -> str:
    """A literal of SQL as text."""
    return _cell(quoted.replace("''", "'"))


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
