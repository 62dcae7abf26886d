"""Order + container -> verdict. Pure. A container is known by its tags, or by its docker client.

Processes of a container descend from containerd-shim, not from the task, so that no process group
reaches them; what ties them to a task is what the cluster policy put into their environment and
labels, or the `--name` / `--cidfile` of the `docker run` that a task's own process executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dagstop.evidence.airflow_names import read_tags
from dagstop.evidence.match import judge
from dagstop.evidence.surroundings import Surroundings
from dagstop.model import Decision, Identity, Label, Process, Role, StopOrder, Verdict


@dataclass(frozen=True, slots=True)
class Container:
    """One running or paused container as the engine describes it."""

    id: str
    name: str
    image: str
    pid: int  # of its init on this host; 0 if the engine's processes are elsewhere
    created_at: datetime
    paused: bool
    restart_policy: str
    auto_remove: bool
    tags: Mapping[str, str]  # AIRFLOW_CTX_* and DAGSTOP_* of its environment and labels

    @property
    def label(self) -> Label | None:
        label = read_tags(self.tags)
        return label if label.names_a_run() else None


@dataclass(frozen=True, slots=True)
class Client:
    """A `docker run` process of a task: the container it names, and the task's own process."""

    name: str | None
    cidfile: str | None
    process: Process


def judge_container(
    order: StopOrder,
    container: Container,
    client: Client | None,
    created_at: datetime,
    around: Surroundings,
) -> Verdict:
    """As `judge`, for a container; created_at is on the database's clock."""
    label, evidence = container.label, ["container's AIRFLOW_CTX_* tags"]
    if client is not None:
        label = client.process.label
        evidence = [f"docker client {client.process.pid}", *client.process.evidence]
    if label is None:
        return Verdict(Decision.FOREIGN, "nothing ties it to a task")
    stand_in = Process(
        identity=Identity(-1, 0),
        ppid=0,
        pgid=0,
        sid=0,
        state="S",
        uid=-1,
        argv=(),
        environ={},
        role=Role.OTHER,
        title=None,
        label=label,
        evidence=tuple(evidence),
        # who may start containers is root on this host already; the tags carry AIRFLOW_HOME
        trusted=True,
    )
    verdict = judge(order, stand_in, created_at, around)
    if verdict.decision is Decision.SETTLE:
        return Verdict(Decision.KILL, verdict.reason, verdict.evidence)
    return verdict


def read_client(process: Process) -> Client | None:
    """What container a `docker run` (or podman, nerdctl) command line says it started."""
    argv = process.argv
    if len(argv) < 3 or argv[0].rsplit("/", 1)[-1] not in {"docker", "podman", "nerdctl"}:
        return None
    if "run" not in argv:
        return None
    options = _options(argv[argv.index("run") + 1 :])
    name, cidfile = options.get("--name"), options.get("--cidfile")
    return Client(name, cidfile, process) if name or cidfile else None


def _options(words: Sequence[str]) -> dict[str, str]:
    """The options of `docker run`, up to the image: what follows is the container's own command."""
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            break
        if equals:
            found[name] = value
        elif name not in _SWITCHES and not _SHORT_SWITCHES.fullmatch(name):
            found[name] = next(rest, "")
    return found


_SHORT_SWITCHES = re.compile(r"-[ditqP]+")
_SWITCHES = frozenset(
    "--detach --interactive --tty --rm --init --privileged --read-only --publish-all --quiet"
    " --no-healthcheck --oom-kill-disable --sig-proxy --disable-content-trust".split()
)
