"""The Docker engine: only the calls that dagstop uses, each with a time limit.

The docker package is imported on first use: a host without an engine never pays for it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from dagstop.airflow_names import airflow_of
from dagstop.host.containers import Airflow, Container, Shape
from dagstop.host.creations import Creations, event_at

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT = 15
"""Seconds that a call may take before the engine counts as dead."""
EVENTS_TIMEOUT = 2
"""Seconds for the question what has ended, which an engine with a slow clock answers late."""
REMEMBERED = 1000
"""Containers that are known still when they are removed: what an order's signals ended need not be there
when the engine is asked for the order."""

CHANGING = frozenset(("create", "start", "die", "rename", "update", "destroy", "pause", "unpause"))
"""Events of containers after which a listing shows something else."""

NEVER: Any = {"Name": "no", "MaximumRetryCount": 0}
"""A restart policy."""

Result = TypeVar("Result")


class EngineUnreachable(Exception):
    """The engine does not answer; containers may still run."""


class ContainerRefused(Exception):
    """The engine answered a stop or kill with an error."""


class Engine:
    """One Docker engine, by its URL (unix:///... or tcp://...)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: APIClient | None = None
        self._known: dict[str, Container] = {}
        self._lately: dict[str, Container] = {}  # what was in a listing, the oldest first
        self._listed_at = 0.0  # when the listing that gave `_known` began, monotonic seconds
        self._changed_at = float("inf")  # when the events told of a change; inf while they are not followed
        self._listing = threading.Lock()
        self.creations = Creations()

    @property
    def exists(self) -> bool:
        """False if its unix socket is not there: no engine is installed or it was never started."""
        return not self.local or os.path.exists(self.url[len("unix://") :])

    @property
    def local(self) -> bool:
        """True of a unix socket's."""
        return self.url.startswith("unix://")

    def version(self) -> str:
        return str(self._call(lambda client: client.version()["Version"]))

    def learn(self) -> None:
        """List ahead of need, unless that is under way: a hanging engine must not gather threads."""
        if self._listing.acquire(blocking=False):
            try:
                self._list()
            finally:
                self._listing.release()

    def listed(self) -> list[Container]:
        """What the last listing showed."""
        return list(self._known.values())

    @property
    def current(self) -> bool:
        """True if the last listing holds still, by the engine's own events.

        A network may lose their stream and nobody is told: only a local engine is believed.
        """
        return self.local and self._changed_at < self._listed_at

    def running(self, since: float = float("inf")) -> list[Container]:
        """Every running or paused container, with its tags.

        A listing begun after `since` (monotonic seconds) will do; if that is finite, a `current` one too.
        """
        if since < float("inf") and self.current:
            return list(self._known.values())
        with self._listing:
            if self._listed_at < since:
                self._list()
            return list(self._known.values())

    def ended(self, since: datetime) -> list[tuple[Container, datetime]]:
        """What ended since then by this host's clock, with the engine's word of when.

        Without what is removed by then and was in no listing. Never raises: only reports ask for it.
        """
        deaths = self._deaths(since).items()
        return [(was, at) for ident, at in deaths if (was := self._what_was(ident)) is not None]

    def seen(self) -> dict[str, Container]:
        """What was in a listing lately, by id; it may have ended since."""
        return dict(self._lately)

    def ask_creations(self) -> None:
        """Bring `creations` up to date, as far as the engine still knows. Never raises."""
        asked_at = time.time()
        answer = self._events({"since": "1", "until": f"{asked_at:.6f}"})
        try:
            if answer is not None:
                self.creations.answered([json.loads(line) for line in answer.splitlines()], asked_at)
        except (ValueError, KeyError, TypeError):
            return

    def follow(self, told: Callable[[str], None]) -> None:
        """Read the engine's events until the stream is lost. Blocks, so it needs a thread.

        told: the action of each event of a container; "begun" before the first, "lost" after the last.
        Raises EngineUnreachable if there is no stream.
        """
        from docker import APIClient
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        begun = False
        try:
            client = APIClient(base_url=self.url, version="auto", timeout=TIMEOUT)
            asked_at = time.time()
            try:
                stream = client.events(since=int(asked_at), decode=True)
                self.creations.begun(asked_at)
                self._changed_at, begun = time.monotonic(), True
                told("begun")
                for event in stream:
                    self.creations.heard(event)
                    if event.get("Type") != "container":
                        continue
                    action = str(event.get("Action", "")).partition(":")[0]
                    if action in CHANGING:
                        self._changed_at = time.monotonic()
                    told(action)
            finally:
                self._changed_at = float("inf")
                self.creations.ended()
                client.close()
                if begun:
                    told("lost")
        except (DockerException, RequestException, OSError, ValueError, KeyError, TypeError) as exc:
            raise EngineUnreachable(f"Docker engine at {self.url}: {_short(exc)}") from exc

    def _what_was(self, ident: str) -> Container | None:
        """A container that ended, as a listing had it or as the engine has it still; None if neither does."""
        from docker.errors import APIError

        if ident in self._lately:
            return self._lately[ident]
        try:
            facts = self._facts(ident)
        except (EngineUnreachable, APIError):
            return None
        return _container(facts) if facts is not None and not _runs(facts) else None

    def _deaths(self, since: datetime) -> dict[str, datetime]:
        """Ids of what ended since then, and when; the engine remembers 256 events (moby, daemon/events)."""
        filters = json.dumps({"type": ["container"], "event": ["die"]})
        asked = {"since": f"{since.timestamp():.6f}", "until": f"{time.time():.6f}", "filters": filters}
        try:
            deaths = [json.loads(line) for line in (self._events(asked) or "").splitlines()]
            return {d["id"]: datetime.fromtimestamp(event_at(d), timezone.utc) for d in deaths}
        except (ValueError, KeyError, TypeError):
            return {}

    def _events(self, asked: dict[str, str]) -> str | None:
        """Events of the past, one a line; None if there is no answer."""
        from requests.exceptions import RequestException

        def ask(client: APIClient) -> str | None:
            try:  # not client.events(), which has no time limit
                answer = client.get(f"{client.base_url}/events", params=asked, timeout=EVENTS_TIMEOUT)
            except RequestException:
                return None
            return answer.text if answer.ok else None

        try:
            return self._call(ask)
        except EngineUnreachable:
            return None

    def _list(self) -> None:
        """One call, and one for each container that is new."""
        begun = time.monotonic()
        listed = self._call(lambda client: client.containers())
        found: dict[str, Container] = {}
        for row in listed:
            paused = "(Paused)" in str(row.get("Status", ""))
            known = self._known.get(row["Id"])
            if known is None or known.paused != paused:
                known = self.inspect(row["Id"])
            if known is not None:
                found[known.id] = known
        self._known, self._listed_at = found, begun
        lately = {i: container for i, container in self._lately.items() if i not in found} | found
        self._lately = dict(list(lately.items())[-max(REMEMBERED, len(found)) :])

    def inspect(self, name: str) -> Container | None:
        """A running container by id or name; None if it is gone or has ended."""
        facts = self._facts(name)
        return _container(facts) if facts is not None and _runs(facts) else None

    def _facts(self, name: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        try:
            facts: dict[str, Any] = self._call(lambda client: client.inspect_container(name))
        except NotFound:
            return None
        return facts

    def exec_process(self, ident: str) -> tuple[str, int, bool] | None:
        """Of what was to be run in a container: that one's id, its pid as the engine sees it (0 until it is

        there), and whether it has ended; None if the engine does not know it any more.
        """
        from docker.errors import NotFound

        try:
            facts = self._call(lambda client: client.exec_inspect(ident))
        except NotFound:
            return None
        ended = not facts.get("Running") and facts.get("ExitCode") is not None
        return str(facts["ContainerID"]), int(facts.get("Pid") or 0), ended

    def signal(self, container: Container, name: str) -> None:
        """Send a signal ("SIGTERM", "SIGKILL") to the container's init; one that is gone is fine."""
        self._tell(lambda client: client.kill(container.id, name))

    def unpause(self, container: Container) -> None:
        self._tell(lambda client: client.unpause(container.id))

    def never_restart(self, container: Container) -> None:
        """Overrule a restart policy, or the engine would start the container again."""
        self._tell(lambda client: client.update_container(container.id, restart_policy=NEVER))

    def _tell(self, call: Callable[[APIClient], Any]) -> None:
        from docker.errors import APIError, NotFound

        try:
            self._call(call)
        except NotFound:
            return
        except APIError as exc:
            if exc.status_code in {304, 409}:  # not running any more, not paused any more
                return
            raise ContainerRefused(str(exc.explanation or exc)) from exc

    def _call(self, call: Callable[[APIClient], Result]) -> Result:
        from docker import APIClient
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            if self._client is None:
                # "auto" asks the engine for its version: Engine 29 refuses what the oldest speak
                self._client = APIClient(base_url=self.url, version="auto", timeout=TIMEOUT)
            return call(self._client)
        except APIError:  # it answered; also a RequestException, so it comes first
            raise
        except (DockerException, RequestException, OSError) as exc:
            self.close()
            raise EngineUnreachable(f"Docker engine at {self.url}: {_short(exc)}") from exc

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _runs(facts: dict[str, Any]) -> bool:
    return any(facts["State"].get(state) for state in ("Running", "Paused", "Restarting"))


def _container(facts: dict[str, Any]) -> Container:
    state, config, host = facts["State"], facts["Config"], facts["HostConfig"]
    return Container(
        id=facts["Id"],
        name=facts["Name"].lstrip("/"),
        image=config.get("Image", ""),
        pid=int(state.get("Pid") or 0),
        created_at=_moment(facts["Created"]),
        paused=bool(state.get("Paused")),
        restart_policy=(host.get("RestartPolicy") or {}).get("Name") or "no",
        tags=_tags(config.get("Env") or [], config.get("Labels") or {}),
        started_at=_moment(state["StartedAt"]) if state.get("StartedAt") else None,
        airflow=_airflow(config.get("Env") or [], config.get("Labels") or {}),
        project=_project(config.get("Labels") or {}),
        kubernetes=(config.get("Labels") or {}).get("io.kubernetes.pod.namespace") or None,
        shape=Shape(
            command=tuple(config.get("Cmd") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            environment=dict(item.partition("=")[::2] for item in config.get("Env") or ()),
            labels=dict(config.get("Labels") or {}),
            remove=bool(host.get("AutoRemove")),
            tty=bool(config.get("Tty")),
            stdin=bool(config.get("OpenStdin")),
        ),
    )


_TAGS = ("AIRFLOW_CTX_", "DAGSTOP_", "AIRFLOW_TMP_DIR", "AIRFLOW_HOME")


def _tags(environment: list[str], labels: dict[str, str]) -> dict[str, str]:
    """AIRFLOW_CTX_*, DAGSTOP_*, AIRFLOW_HOME of a container; its environment wins over its labels."""
    pairs = [item.partition("=")[::2] for item in environment]
    merged = {**labels, **dict(pairs)}
    return {k: v for k, v in merged.items() if k.startswith(_TAGS)}


def _airflow(environment: list[str], labels: dict[str, str]) -> Airflow | None:
    """Which Airflow a container is a part of; None for what a task started, or what may be anything."""
    variables = dict(item.partition("=")[::2] for item in environment)
    home = variables.get("AIRFLOW_HOME")
    if not home or "AIRFLOW_CTX_DAG_ID" in variables or "AIRFLOW_CTX_DAG_ID" in labels:
        return None
    project, database = _project(labels), airflow_of(variables).database
    return Airflow(home, project, database) if project or database else None


def _project(labels: dict[str, str]) -> str | None:
    return next((labels[name] for name in _PROJECTS if labels.get(name)), None)


_PROJECTS = ("com.docker.compose.project", "com.docker.stack.namespace", "io.podman.compose.project")


def _moment(text: str) -> datetime:
    """The engine's RFC 3339 times carry nanoseconds, Python's carry microseconds."""
    head, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.fromisoformat(head).replace(tzinfo=timezone.utc)
    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction else moment


def _short(exc: BaseException) -> str:
    """Why there was no answer, in the kernel's words: the libraries between wrap them four times."""
    cause: BaseException | None = exc
    while cause is not None:
        for inner in (cause, *cause.args):
            if isinstance(inner, OSError) and inner.strerror:
                return inner.strerror
            if isinstance(inner, TimeoutError):
                return f"no answer within {TIMEOUT:g} s"
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(exc).split())[:200]
