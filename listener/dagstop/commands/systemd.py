"""`dagstop systemd`."""

from __future__ import annotations

import os
import re
import sys
from importlib.resources import files

import click

from dagstop.errors import DagstopError

ROOT = "CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID"
USER = """CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE
AmbientCapabilities=CAP_KILL CAP_SYS_PTRACE
User={user}
SupplementaryGroups=docker"""


@click.command()
@click.option(
    "--user", metavar="NAME", help="Run as this user instead of root; it must be able to read airflow.cfg."
)
def systemd(user: str | None) -> None:
    """Print a systemd unit for `dagstop listen`, for /etc/systemd/system/dagstop.service.

    With --user it runs without root, with two capabilities and group docker (delete that line where
    there is no Docker): it stops the same, but reads a --cidfile only where that user may.
    """
    if user is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
        raise DagstopError(f"--user {user!r} is not a user's name")
    template = (files("dagstop.commands") / "dagstop.service").read_text(encoding="utf-8")
    program = os.path.join(os.path.dirname(sys.executable), "dagstop")
    if user is not None:
        begin = template.index("# The last two let")
        template = template[:begin] + template[template.index(ROOT) :].replace(ROOT, USER.format(user=user))
    click.echo(template.replace("{dagstop}", program), nl=False)
