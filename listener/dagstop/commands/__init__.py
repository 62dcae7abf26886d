"""The command line: one module for each group of commands, `common` for what they share."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

import dagstop
from dagstop.errors import DagstopError

_HOME = {
    "install": "database",
    "uninstall": "database",
    "listen": "listen",
    "page": "page",
    "check": "check",
    "config": "config",
    "status": "orders",
    "history": "orders",
    "forget": "forget",
    "ps": "ps",
    "explain": "explain",
    "stop": "stop",
    "policy": "policy",
    "plugin": "plugin",
    "systemd": "systemd",
    "completion": "completion",
}


class _Commands(click.Group):
    """Imports a command's module only when it is asked for: the daemon never loads Alembic."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_HOME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HOME:
            return None
        module = importlib.import_module(f"dagstop.commands.{_HOME[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        # every option is DAGSTOP_<OPTION>, whichever command it belongs to
        command.context_settings.setdefault("auto_envvar_prefix", "DAGSTOP")
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(dagstop.__version__, message="dagstop %(version)s")
def cli() -> None:
    """The kill switch for Apache Airflow: a DAG run marked failed stops, everywhere.

    Every option can also be set as DAGSTOP_<OPTION>, for example DAGSTOP_DATABASE_URL.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run a command. Exit codes: 0 done, 1 not so or failed (one line says why), 2 wrong usage."""
    try:
        return cli.main(arguments, prog_name="dagstop", standalone_mode=True)
    except DagstopError as exc:
        click.echo(f"dagstop: {exc}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
