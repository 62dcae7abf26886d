"""`dagstop systemd`."""

from __future__ import annotations

import os
import sys
from importlib.resources import files

import click


@click.command()
def systemd() -> None:
    """Print a systemd unit for `dagstop listen`, for /etc/systemd/system/dagstop.service."""
    template = (files("dagstop.commands") / "dagstop.service").read_text(encoding="utf-8")
    program = os.path.join(os.path.dirname(sys.executable), "dagstop")
    click.echo(template.replace("{dagstop}", program), nl=False)
