"""Whether only a task's `docker compose up` can have created a container. Pure.

How many containers an `up` creates is not known, so nothing is counted here. It created what came in its
time with the labels of its project, if it can have been nobody else: the kernel told of every process of
this host meanwhile, each was read, and no other client is among them that may have asked for that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from dagstop.evidence.containers import Client
from dagstop.evidence.creators import SLACK
from dagstop.evidence.unread import Heard
from dagstop.host.containers import Container
from dagstop.host.creations import Creation, Creations
from dagstop.host.procfs import ProcFS

CLOCK = 0.01
"""Seconds by which the engine's time of an event may differ from the kernel's: one machine's clocks."""
LATER = 2.0
"""Seconds after a creation in which a program that is connected to the engine may have asked for it."""
AGAIN = re.compile(r"[0-9a-f]{12}_")
"""Begins the name of what compose replaces, or replaces it with."""
_LABEL = "com.docker.compose."
_NOT_IN_A_NAME = re.compile(r"[^-_a-z0-9]")  # compose leaves it out

_WORDS = {
    "compose": ": what compose creates is not followed",
    "compose_unsure": ": its command line is not understood for certain",
    "compose_elsewhere": ": it was not seen connected to this engine",
    "compose_gap": ": the engine's events do not reach back that far",
    "compose_again": " in place of one that was there before",
    "compose_project": ": its project is not certain",
    "compose_failed": ": it ended with an error",
    "compose_works": ": it is still at work",
    "compose_untold": ": not every process of that time is known",
    "compose_unread": ", and so may a process that ended unread",
    "compose_beside": ", and so may another client",
    "compose_through": ", and so may another program, which was connected to this engine",
}
WORDS = {
    **{key: "docker compose, pid {1}, may have created it" + why for key, why in _WORDS.items()},
    "compose_before": "docker compose, pid {1}, may have started it: it was there before",
}
"""Why it is not certain."""


@dataclass(frozen=True, slots=True)
class Project:
    """What a compose may be at work on: any of these."""

    names: frozenset[str]
    folders: frozenset[str]
    named: bool  # its words or its environment say the name
    certain: bool  # its folder and its environment could be read

    def has(self, container: Container) -> bool:
        """True if a container may be of it."""
        name, folder = _project_of(container)
        return bool(name) and (name in self.names or folder in self.folders)

    def may_have(self, container: Container) -> bool:
        """False only if a compose at work on this cannot have created it."""
        return self.has(container) or not (self.named or self.certain)

    def surely_has(self, container: Container) -> bool:
        """True if what a compose at work on this creates looks like that."""
        name, folder = _project_of(container)
        return bool(name) and folder in self.folders and (not self.named or name in self.names)


def _project_of(container: Container) -> tuple[str, str | None]:
    labels = _labels(container)
    return labels.get(f"{_LABEL}project", ""), labels.get(f"{_LABEL}project.working_dir")


def _labels(container: Container) -> Mapping[str, str]:
    return container.shape.labels if container.shape is not None else {}


def read_project(client: Client, proc: ProcFS) -> Project | None:
    """What a compose may be at work on, by its words and its environment; None of another client."""
    ask, pid = client.compose, client.process.pid
    if ask is None:
        return None
    name = ask.project or proc.variable(pid, "COMPOSE_PROJECT_NAME") or ""
    files = ask.files or (proc.variable(pid, "COMPOSE_FILE") or "").split(os.pathsep)
    said = [os.path.dirname(file) for file in files if file] + ([ask.directory] if ask.directory else [])
    # a shell names its folder as it was asked for, the kernel without links
    here = {folder for folder in (proc.folder(pid), proc.variable(pid, "PWD")) if folder}
    folders = {os.path.normpath(os.path.join(base, folder)) for base in here for folder in said or ("",)}
    if not said:  # it looks for its file upwards
        folders |= {str(parent) for folder in here for parent in PurePath(folder).parents}
    names = frozenset({name, _NOT_IN_A_NAME.sub("", name.lower())} - {""})
    # at last its folder: what shows one lived while the rest was read
    certain = proc.environ(pid) is not None and bool(proc.folder(pid))
    return Project(names, frozenset(folders), bool(name), certain)


@dataclass(frozen=True, slots=True)
class Up:
    """A task's compose."""

    client: Client
    project: Project | None
    began: float | None  # when it executed compose, seconds since 1970, as the kernel told; None: it did not
    ended: bool
    failed: bool  # it ended with an error: what it was to create may have been there
    reached: bool  # it was seen connected to the engine, which is one of this host


def why_uncertain(
    up: Up,
    container: Container,
    creations: Creations | None,
    heard: Heard | None,
    rivals: Callable[[Creation], bool],
    strangers: Collection[float],
) -> str | None:
    """A key of WORDS; None: it is certain that the task's compose created it.

    rivals: whether another client of this host may have. strangers: when another program was seen connected
    to the engine, seconds since 1970.
    """
    said = _asked_for_another(up, container)
    if said is not None:
        return said
    at = container.created_at.timestamp()
    if up.began is None or heard is None or heard.since > up.began - CLOCK:
        return "compose_untold"
    if at < up.began + CLOCK:
        return "compose_before"
    made = creations.of(container.id) if creations is not None else None
    if creations is None or made is None or creations.known(up.began - SLACK, made.at) is None:
        return "compose_gap"
    if _replaces(container, made, creations.replaced(up.began - SLACK, made.at)):
        return "compose_again"
    if not heard.whole(up.began - CLOCK, made.at + CLOCK):
        return "compose_untold"
    if rivals(made):
        return "compose_beside"
    if heard.unknown_at(made.at, CLOCK):
        return "compose_unread"
    through = any(up.began <= moment <= made.at + LATER for moment in strangers)
    return "compose_through" if through else None


def _asked_for_another(up: Up, container: Container) -> str | None:
    """Why its words and its end leave it open what it created; None: they do not."""
    ask = up.client.compose
    if ask is None or ask.command != "up" or _labels(container).get(f"{_LABEL}oneoff", "False") != "False":
        return "compose"
    if not ask.sure:
        return "compose_unsure"
    if up.project is None or not up.project.certain or not up.project.surely_has(container):
        return "compose_project"
    if up.failed:
        return "compose_failed"
    if ask.detached and not up.ended:
        return "compose_works"  # how it ends may say that somebody else was there first
    return None if up.reached else "compose_elsewhere"


def _replaces(container: Container, made: Creation, gone: Iterable[Mapping[str, str]]) -> bool:
    """True if there was one of its service when it was created: compose renames or removes that one.

    gone: the labels of all that were renamed or removed meanwhile.
    """
    labels = _labels(container)
    mine = [labels.get(f"{_LABEL}{name}") for name in ("project", "service")]
    again = AGAIN.match(made.name) is not None or bool(labels.get(f"{_LABEL}replace"))
    return again or any([one.get(f"{_LABEL}{n}") for n in ("project", "service")] == mine for one in gone)
