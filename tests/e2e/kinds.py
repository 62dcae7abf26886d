"""The kinds of tasks that must stop, as `dags/matrix.py` makes them, and how each is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One row of the table: `sleeps` are the numbers in its processes' command lines.

    container: its processes live in a container; operator: that only the task's own Python process knows of.
    runner_only: that process does all. since: the first generation of Airflow (1, 2, 3) that has it.
    """

    name: str
    task_id: str
    sleeps: tuple[str, ...] = ()
    container: bool = False
    operator: bool = False
    since: int = 1

    @property
    def runner_only(self) -> bool:
        return not self.sleeps


KINDS = (
    Kind("children", "tree", ("6001", "6002")),
    Kind("ignores_term", "ignores_term", ("6003",)),
    Kind("nohup", "daemons", ("6004", "6005")),
    Kind("env_i", "daemons", ("6012",)),
    Kind("retries_left", "retries_left", ("6006",)),
    Kind("python", "python"),
    Kind("marks", "marks"),
    Kind("container", "container", ("6007",), container=True, operator=True),
    Kind("handles_term", "container_handles", ("6016",), container=True, operator=True),
    Kind("paused", "container_paused", ("6017",), container=True, operator=True),
    Kind("cidfile", "docker_run", ("6020",), container=True),
    Kind("named", "docker_run", ("6021",), container=True),
    Kind("detached", "docker_run", ("6022",), container=True),
    Kind("task_docker", "task_docker", ("6015",), container=True, operator=True, since=2),
    Kind("mapped", "mapped", ("6013",), since=2),
)
SIBLING = "6014"  # of the mapped task's other index, which an order about one index spares


def kinds_of(generation: int) -> Sequence[Kind]:
    """Those that an Airflow of that generation has."""
    return [kind for kind in KINDS if kind.since <= generation]


# of each release that takes its turn in CI: a process group, Airflow's own process, what on_kill ends, a container
FEW = ("children", "python", "marks", "container")


def tasks_of(generation: int) -> Sequence[str]:
    """The tasks that must stop, each once."""
    return list(dict.fromkeys(kind.task_id for kind in kinds_of(generation)))


def number_of(run_id: str) -> str:
    """What tells a run's processes from another's."""
    return "".join(c for c in run_id if c.isdigit())
