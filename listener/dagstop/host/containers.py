"""A container as an engine describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dagstop.airflow_names import read_tags
from dagstop.model import Label


@dataclass(frozen=True, slots=True)
class Container:
    """One running or paused container as the engine describes it."""

    id: str
    name: str
    image: str
    pid: int  # of its init, as the engine sees it: another process to a listener in a container
    created_at: datetime
    paused: bool
    restart_policy: str
    tags: Mapping[str, str]  # AIRFLOW_CTX_*, DAGSTOP_* and AIRFLOW_HOME of its environment and labels
    started_at: datetime | None = None  # this life of it, by the engine's clock
    airflow: Airflow | None = None  # which Airflow it is a part of: a scheduler, a worker
    project: str | None = None  # of compose, or the stack of a swarm
    kubernetes: str | None = None  # the namespace of its pod
    shape: Shape | None = None  # how it was asked for
    runs: str | None = None  # this is not the container, but what a `docker exec` runs in it

    @property
    def label(self) -> Label | None:
        label = read_tags(self.tags)
        return label if label.names_a_run() else None

    @property
    def of_earlier_policy(self) -> bool:
        """True if a cluster policy of an earlier release tagged it."""
        return "DAGSTOP_AIRFLOW_HOME" in self.tags and "DAGSTOP_POLICY" not in self.tags


@dataclass(frozen=True, slots=True)
class Airflow:
    """What tells the Airflow that a container is a part of from another one."""

    home: str
    project: str | None  # of compose, or the stack of a swarm
    database: str | None  # as `database_key` writes it


@dataclass(frozen=True, slots=True)
class Shape:
    """How a container was asked for, as far as a command line can say it."""

    command: tuple[str, ...]
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    remove: bool
    tty: bool
    stdin: bool
