"""One order under way on this host: all that the stages found out about it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from dagstop.evidence.containers import Client, Container
from dagstop.kill.containers import ContainerEnd
from dagstop.kill.hunt import Hunt
from dagstop.model import Verdict
from dagstop.report import Findings


@dataclass(slots=True)
class Work:
    """One order under way: its processes' hunt, and how far its containers are."""

    hunt: Hunt
    asked_engine: bool = False  # a pass over the engines is under way
    containers_clean: bool = False  # the last pass, begun after the last process died, found none
    ends: dict[str, ContainerEnd] = field(default_factory=dict)
    spared: dict[str, tuple[Container, Verdict]] = field(default_factory=dict)
    clients: dict[int, Client] = field(default_factory=dict)
    problem: str | None = None
    refreshed: float = field(default_factory=time.monotonic)
    next_look: float = 0.0
    next_glance: float = float("inf")  # its last process died: did it leave something behind?
    told: bool = False  # its first signals are on the way to the database
    earlier: Findings | None = None
