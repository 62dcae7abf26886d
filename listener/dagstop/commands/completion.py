"""`dagstop completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    For bash and zsh put `eval "$(dagstop completion bash)"` (or zsh) into ~/.bashrc (~/.zshrc); for fish
    write the output to ~/.config/fish/completions/dagstop.fish.
    """
    from dagstop.commands import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "dagstop", "_DAGSTOP_COMPLETE").source())
