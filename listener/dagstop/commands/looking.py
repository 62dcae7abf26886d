"""The host as the listener sees it, for the commands that look and signal nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dagstop.commands.listen import uids
from dagstop.config import DEFAULT_DOCKER, default_state_dir
from dagstop.evidence import memory
from dagstop.evidence.containers import Container, read_client
from dagstop.evidence.surroundings import trusted_uids
from dagstop.evidence.ties import Ties
from dagstop.evidence.watch import Watch
from dagstop.outside.engine import Engine, EngineUnreachable
from dagstop.outside.procfs import ProcFS


def look(homes: Sequence[str], task_users: Sequence[str], proc: ProcFS) -> tuple[Watch, Ties]:
    """The host as the listener sees it, with what its listener remembers where we may read that."""
    proc.must_be_ours()
    known = uids(task_users)
    watch = Watch(proc, trusted_uids=lambda: trusted_uids(homes, known), own_pid=os.getpid())
    ties = Ties(proc)
    with suppress(OSError):
        remembered = memory.load(Path(default_state_dir()), proc.boot_id())
        watch.restore(remembered.labels, remembered.folders)
        ties.restore(remembered.clients)
    watch.look()
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
        except EngineUnreachable as exc:
            problems.append(str(exc))
        finally:
            engine.close()
    return found, problems
