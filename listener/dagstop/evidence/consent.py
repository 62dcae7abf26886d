"""Which containers of this machine the operator named: `--container KIND=PATTERN`. Pure.

Only the operator of a machine opens a container to a listener. The database's word alone does not: who owns
one Airflow's database could write the host name of another one's container into a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dagstop.errors import DagstopError
from dagstop.host.containers import Container
from dagstop.host.places import cgroup_paths

KINDS = ("compose", "image", "cgroup", "kubernetes")
BY_ENGINE = frozenset({"compose", "image"})
"""What only a container engine can tell of a container."""


@dataclass(frozen=True, slots=True)
class Selector:
    """One `--container`: a pattern (* and ?) for one fact of a container."""

    kind: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.kind}={self.pattern}"

    def names(self, cgroups: str, container: Container | None, kubernetes: str | None) -> bool:
        """True for a container of which this is known; kubernetes: the namespace that it shows inside."""
        facts: Iterable[str | None]
        if self.kind == "cgroup":
            facts = cgroup_paths(cgroups)
        elif self.kind == "kubernetes":
            facts = (container.kubernetes if container is not None else None, kubernetes)
        elif container is None:
            facts = ()
        else:
            facts = (container.project,) if self.kind == "compose" else (container.image,)
        return any(fact is not None and fnmatchcase(fact, self.pattern) for fact in facts)


def selectors(words: Sequence[str]) -> tuple[Selector, ...]:
    """What `--container` says. Raises DagstopError for what names nothing, or everything."""
    return tuple(_selector(word) for word in words)


def _selector(word: str) -> Selector:
    kind, _, pattern = word.partition("=")
    kind, pattern = kind.strip(), pattern.strip()
    if kind not in KINDS or not pattern:
        kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
        raise DagstopError(
            f"--container {word!r}: write KIND=PATTERN, where KIND is {kinds} (--container compose=airflow)"
        )
    if not pattern.strip("*?/"):
        raise DagstopError(f"--container {word!r} would name every container; name those of your Airflow")
    return Selector(kind, pattern)
