"""`dagstop systemd`."""

from __future__ import annotations

import os
import re
import sys
from importlib.resources import files

import click

from dagstop.errors import DagstopError
from dagstop.evidence.consent import selectors

ROOT = "CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_NET_ADMIN"
USER = """CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_NET_ADMIN
AmbientCapabilities=CAP_KILL CAP_SYS_PTRACE CAP_NET_ADMIN
User={user}
SupplementaryGroups=docker"""

INSIDE = "CAP_DAC_OVERRIDE"


@click.command()
@click.option(
    "--user",
    metavar="NAME",
    help="Run as this user instead of root; the user must be able to read airflow.cfg.",
)
@click.option(
    "--container",
    "containers",
    metavar="KIND=PATTERN",
    multiple=True,
    help="Containers in which this Airflow runs, as in `dagstop listen`; repeatable.",
)
@click.option("--page", is_flag=True, help="Print the unit of `dagstop page`, for dagstop-page.service.")
def systemd(user: str | None, containers: tuple[str, ...], page: bool) -> None:
    """Print a systemd unit for `dagstop listen`.

    It belongs in /etc/systemd/system/dagstop.service.

    With --user it does not run as root, but with three capabilities and the docker group (delete that
    line if there is no Docker). It stops the same, but reads a --cidfile only where that user may.

    With --container and --user it has a fourth capability, CAP_DAC_OVERRIDE, to read files in those
    containers. For `compose=` and `image=` it needs the docker group.

    The kernel tells of each fork only to a process that has CAP_NET_ADMIN. The listener drops the
    capability once it has subscribed. If you delete it from the unit, the listener looks for new
    processes every 0.25 s instead.
    """
    if user is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
        raise DagstopError(f"--user {user!r} is not a user's name")
    if page and user is not None:
        raise click.UsageError("--page and --user exclude each other: systemd creates the page's user")
    if page and containers:
        raise click.UsageError("--page and --container exclude each other: the page stops nothing")
    selectors(containers)  # a bad one ends it here
    name = "dagstop-page.service" if page else "dagstop.service"
    template = (files("dagstop.commands") / name).read_text(encoding="utf-8")
    program = os.path.join(os.path.dirname(sys.executable), "dagstop")
    if user is not None:
        template = template.replace(ROOT, USER.format(user=user))
        if containers:
            template = template.replace(
                "CAP_SYS_PTRACE CAP_NET_ADMIN", f"CAP_SYS_PTRACE {INSIDE} CAP_NET_ADMIN"
            )
    words = "".join(f" --container {_quoted(word)}" for word in containers)
    template = template.replace("{dagstop} listen", f"{{dagstop}} listen{words}")
    click.echo(template.replace("{dagstop}", program), nl=False)


def _quoted(word: str) -> str:
    """A word of ExecStart=. Raises DagstopError."""
    if not word.isprintable():
        raise DagstopError(f"--container {word!r} has a character that no unit can hold")
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if re.search(r"[\s\"'\\;]", word) else word
