"""The host as the listener sees it, for the commands that look and signal nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dagstop.commands.common import Chosen, spellings, uids
from dagstop.config import DEFAULT_DOCKER, default_state_dir
from dagstop.errors import DagstopError
from dagstop.evidence import memory
from dagstop.evidence.consent import selectors
from dagstop.evidence.containers import read_client
from dagstop.evidence.places import Places
from dagstop.evidence.site import Site, survey, trusted_uids
from dagstop.evidence.ties import Ties
from dagstop.evidence.watch import Watch
from dagstop.host.containers import Container
from dagstop.host.engine import Engine, EngineUnreachable
from dagstop.host.procfs import ProcFS

state_dir_option = click.option(
    "--state-dir",
    envvar="DAGSTOP_STATE_DIR",
    metavar="DIR",
    help="Where this host's listener keeps its memory. [default: that of the running listener]",
)


def state_dir_of(option: str | None, listeners: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """The state directory of this database's listener on this host, and what keeps us from reading it.

    listeners: the rows of query listeners. Raises DagstopError if the one that is named is not there.
    """
    if option is not None and not os.path.isdir(option):
        raise DagstopError(f"--state-dir {option} is not a directory; pass the one that the listener uses")
    here = (detail["state_dir"] for detail in _here(listeners) if detail.get("state_dir"))
    found = option or next(here, None)
    folder = found or default_state_dir()
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        return folder, [f"the listener's memory in {folder} cannot be read: run this as the listener's user"]
    return folder, []


def listener_pid(listeners: Sequence[dict[str, Any]], proc: ProcFS) -> int | None:
    """The pid of this database's listener on this host, if it can be seen from here: it and what it runs
    under are never killed.
    """
    pids = (detail.get("pid") for detail in _here(listeners))
    # a listener in a container counts its pids otherwise
    return next((p for p in pids if isinstance(p, int) and "listen" in (proc.argv(p) or ())), None)


def host_names(listeners: Sequence[dict[str, Any]]) -> frozenset[str]:
    """Under which names Airflow may know this host."""
    said = (name for detail in _here(listeners) for name in detail.get("host_names", ()))
    return frozenset((socket.gethostname(), socket.getfqdn(), "localhost", *said))


def kernel_tells(listeners: Sequence[dict[str, Any]]) -> bool:
    """True if a listener of this host is told of each fork."""
    return any(detail.get("process_events", {}).get("told") is True for detail in _here(listeners))


def _here(listeners: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the living listeners of this host said with their last heartbeat."""
    names = {socket.gethostname(), socket.getfqdn()}
    return [
        row["detail"] for row in listeners if row["live"] and names & set(row["detail"].get("host_names", ()))
    ]


@dataclass(frozen=True, slots=True)
class Around:
    """What there is on this host, and what went wrong with an engine."""

    watch: Watch
    ties: Ties
    containers: list[Container]
    site: Site
    problems: list[str]


def look_around(chosen: Chosen, url: str, proc: ProcFS, state_dir: str, own_pid: int) -> Around:
    """The host as the listener sees it; own_pid: of the listener, or who is untouchable in its place."""
    urls = (url, *spellings(chosen.airflow_homes), *chosen.same_databases)
    users = uids(chosen.task_users)
    machine = {socket.gethostname(), socket.getfqdn(), "localhost"}
    places = Places(proc, selectors(chosen.containers), urls=urls, task_users=users, machine=machine)
    watch, ties = _look(chosen.airflow_homes, users, proc, state_dir, places)
    found, problems = containers_of(chosen.docker_urls, ties)
    around = places.survey(watch.processes, found)
    site = survey(chosen.airflow_homes, urls, watch.at_homes(), proc, own_pid, around)
    return Around(watch, ties, found, site, problems)


def _look(
    homes: Sequence[str], users: Sequence[int], proc: ProcFS, state_dir: str, places: Places
) -> tuple[Watch, Ties]:
    """The processes and docker clients, with what the listener remembers in its state directory."""
    proc.must_be_ours()
    watch = Watch(
        proc,
        trusted_uids=lambda: trusted_uids(homes, users),
        own_pid=os.getpid(),
        init_of=places.init_of if places.wanted else None,
    )
    ties = Ties(proc)
    with suppress(OSError):
        remembered = memory.load(Path(state_dir), proc.boot_id())
        watch.restore(remembered.everything(), remembered.folders)
        ties.restore(remembered.all_clients())
        watch.gaps.restore(remembered.gaps)
    for _ in range(2):  # whose session a process is in may be known only once all were read
        watch.look()
    watch.gaps.note_tasks(watch.labelled())
    ties.note(client for process in watch.labelled() if (client := read_client(process)))
    ties.note(client for process in watch.processes.values() if (client := read_client(process)))
    ties.read_cidfiles(wait=1.0)
    return watch, ties


def containers_of(docker_urls: Sequence[str], ties: Ties) -> tuple[list[Container], list[str]]:
    """All running containers, tied to their clients where that can be, and what went wrong with an engine."""
    found: list[Container] = []
    problems: list[str] = []
    for docker_url in docker_urls or (DEFAULT_DOCKER,):
        engine = Engine(docker_url)
        try:
            if engine.exists:
                begun = time.monotonic()
                running = engine.running()
                ties.tie(docker_url, running, begun)
                found += running
                ties.execs.drop_ended(engine)
        except EngineUnreachable as exc:
            problems.append(str(exc))
        finally:
            engine.close()
    return found, problems
