"""What a listener was told: one frozen value, made by the command line, read everywhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from dagstop.settings import seconds

DEFAULT_DOCKER = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """Every setting of `dagstop listen`; each is an option and a DAGSTOP_* variable."""

    database_url: str
    airflow_homes: tuple[str, ...]  # the Airflows of this host that use this database
    airflow_urls: tuple[str, ...] = ()  # their own spellings of the metadata database
    docker_urls: tuple[str, ...] = (DEFAULT_DOCKER,)
    task_users: tuple[int, ...] = ()  # uids besides the homes' owners whose tasks may be killed
    host: str = ""
    state_dir: str | None = None
    grace: float = seconds("grace_seconds")  # seconds between SIGTERM and SIGKILL
    tick: float = seconds("tick")  # seconds between two looks for new processes
    sweep: float = seconds("sweep")  # seconds between two readings of the orders in silence
    containers: tuple[str, ...] = ()  # selectors of the containers in which this Airflow runs
    dry_run: bool = False
    once: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)  # parameter -> option, environment or default

    @property
    def host_name(self) -> str:
        return self.host or socket.gethostname()

    @property
    def host_names(self) -> frozenset[str]:
        """The names under which Airflow may know this host; some installs write `localhost`."""
        return frozenset({self.host_name, socket.gethostname(), socket.getfqdn(), "localhost"})


def default_state_dir() -> str:
    """Where a listener keeps what it remembers: systemd's StateDirectory, or the user's own."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return given.split(":", 1)[0]
    if os.geteuid() == 0:
        return "/var/lib/dagstop"
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "dagstop")
