"""`dagstop systemd`."""

from __future__ import annotations

import os
import re
import sys
from importlib.resources import files

import click

from dagstop.errors import DagstopError

ROOT = "CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_NET_ADMIN"
USER = """CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_NET_ADMIN
AmbientCapabilities=CAP_KILL CAP_SYS_PTRACE CAP_NET_ADMIN
User={user}
SupplementaryGroups=docker"""


@click.command()
@click.option(
    "--user",
    metavar="NAME",
    help="Run as this user instead of root; the user must be able to read airflow.cfg.",
)
@click.option("--page", is_flag=True, help="Print the unit of `dagstop page`, for dagstop-page.service.")
def systemd(user: str | None, page: bool) -> None:
    """Print a systemd unit for `dagstop listen`.

    It belongs in /etc/systemd/system/dagstop.service.

    With --user it does not run as root, but with three capabilities and the docker group (delete that
    line if there is no Docker). It stops the same, but reads a --cidfile only where that user may.

    The kernel tells of each fork only to a process that has CAP_NET_ADMIN. The listener drops the
    capability once it has subscribed. If you delete it from the unit, the listener looks for new
    processes every 0.25 s instead.
    """
    if user is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
        raise DagstopError(f"--user {user!r} is not a user's name")
    if page and user is not None:
        raise click.UsageError("--page and --user exclude each other: systemd creates the page's user")
    name = "dagstop-page.service" if page else "dagstop.service"
    template = (files("dagstop.commands") / name).read_text(encoding="utf-8")
    program = os.path.join(os.path.dirname(sys.executable), "dagstop")
    if user is not None:
        template = template.replace(ROOT, USER.format(user=user))
    click.echo(template.replace("{dagstop}", program), nl=False)
