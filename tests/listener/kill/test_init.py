"""A container's init is signalled directly only if its cgroup is the container's."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dagstop.evidence.verdicts import start_of_init
from dagstop.host.containers import Container
from dagstop.host.engine import ContainerRefused
from dagstop.host.procfs import ProcFS
from dagstop.kill.containers import Pace, _init, end_container
from dagstop.model import Decision, Verdict

ID = "f" * 64


class Cgroups(ProcFS):
    """The real /proc, but every process is in the cgroup `text`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def cgroups(self, pid: int) -> str:
        return self.text


class Refusing(ProcFS):
    """The real /proc, of which no file named cgroup can be read."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def _bytes(self, pid: int | str, name: str) -> bytes:
        if name == "cgroup":
            raise OSError(self.number, os.strerror(self.number))
        return super()._bytes(pid, name)


class Engine:
    """Remembers what it was told; its container is as `there` says when looked at, and then ends."""

    def __init__(self, *there: Container) -> None:
        self.told: list[str] = []
        self.there = list(there)

    def signal(self, container: Container, name: str) -> None:
        self.told.append(name)

    def inspect(self, name: str) -> Container | None:
        return self.there.pop() if self.there else None


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "7301"])
    yield process
    process.kill()
    process.wait()


def container(pid: int) -> Container:
    facts: dict[str, Any] = {"name": "c", "image": "i", "paused": False, "tags": {}}
    created = datetime.now(timezone.utc)
    return Container(id=ID, pid=pid, created_at=created, started_at=created, restart_policy="no", **facts)


def test_a_pid_that_is_not_in_the_containers_cgroup_is_not_its_init(child: subprocess.Popen[bytes]) -> None:
    assert _init(ProcFS(), container(child.pid)) is None
    assert _init(Cgroups(f"0::/docker/{'e' * 64}\n"), container(child.pid)) is None
    for number in (errno.EACCES, errno.ENOENT, errno.ESRCH):
        assert _init(Refusing(number), container(child.pid)) is None
    for text in ("", "garbage", f"0::/{ID[:-1]}\n"):
        assert _init(Cgroups(text), container(child.pid)) is None


@pytest.mark.parametrize(
    "seconds", [-3600, -5, 100, 3600], ids=["long before", "before", "after", "long after"]
)
def test_a_pid_that_did_not_start_with_the_container_is_not_its_init(
    child: subprocess.Popen[bytes], seconds: int
) -> None:
    """In the container's cgroup, and another process all the same: of a container inside it, say."""
    proc = Cgroups(f"0::/docker/{ID}\n")
    started = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    learned = replace(container(child.pid), started_at=started)
    assert start_of_init(proc, learned) is None and _init(proc, learned) is None
    assert start_of_init(proc, replace(learned, started_at=None)) is None
    known = start_of_init(proc, container(child.pid))
    stat = proc.stat(child.pid)
    assert stat is not None and known == stat.start


def test_then_the_engine_is_told(child: subprocess.Popen[bytes]) -> None:
    engine = Engine(container(child.pid))
    verdict = Verdict(Decision.KILL, "")
    end = end_container(engine, container(child.pid), verdict, ProcFS(), grace=0.1)  # type: ignore[arg-type]
    assert engine.told == ["SIGTERM"] and end.died_at is not None
    assert child.poll() is None


def test_an_init_in_the_containers_cgroup_is_signalled_itself(child: subprocess.Popen[bytes]) -> None:
    engine = Engine()
    verdict = Verdict(Decision.KILL, "")
    proc = Cgroups(f"0::/docker/{ID}\n")
    end_container(engine, container(child.pid), verdict, proc, grace=0.1)  # type: ignore[arg-type]
    assert engine.told == [] and child.wait(5) == -9
    assert _init(proc, container(child.pid)) is None and not os.path.exists(f"/proc/{child.pid}")


def test_what_is_gone_by_then_is_not_said_to_be_signalled(child: subprocess.Popen[bytes]) -> None:
    engine = Engine()
    verdict = Verdict(Decision.KILL, "")
    end = end_container(engine, container(child.pid), verdict, ProcFS(), grace=0.1)  # type: ignore[arg-type]
    assert (end.signals, end.noticed) == ([], "ended before it was signalled") and end.died_at is not None
    assert engine.told == [] and child.poll() is None


class Ending(Engine):
    """Its container has just ended, and is about to be started again: the engine refuses what changes it."""

    def never_restart(self, container: Container) -> None:
        raise ContainerRefused("cannot update a stopped container")

    def signal(self, container: Container, name: str) -> None:
        super().signal(container, name)
        raise ContainerRefused("no such task")


@pytest.mark.parametrize("policy", ["no", "always"])
def test_what_is_between_two_lives_is_seen_dead(child: subprocess.Popen[bytes], policy: str) -> None:
    engine = Ending(replace(container(0), restart_policy=policy))  # what is inspected once it got the signal
    proc = Cgroups(f"0::/docker/{ID}\n")
    learned = replace(container(child.pid), restart_policy=policy)
    end = end_container(engine, learned, Verdict(Decision.KILL, ""), proc, grace=0.1)  # type: ignore[arg-type]
    assert (end.refused, engine.told) == (None, ["SIGKILL"]) and end.died_at is not None
    assert child.wait(5) == -9


class Slow(Engine):
    """Its container, of which the host shows nothing, ends a while after its SIGTERM."""

    def __init__(self, pace: GivenTime, ends_after: float) -> None:
        super().__init__()
        self.pace = pace
        self.ends_at = pace.seconds + ends_after

    def inspect(self, name: str) -> Container | None:
        return container(0) if self.pace.seconds < self.ends_at else None


class GivenTime(Pace):
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:  # type: ignore[override]
        self.seconds += seconds


@pytest.mark.parametrize(("ends_after", "told"), [(0.5, ["SIGTERM"]), (99, ["SIGTERM", "SIGKILL"])])
def test_the_engine_is_asked_some_times_a_second(ends_after: float, told: list[str]) -> None:
    """And SIGKILL comes after one grace. In given time: nothing here sleeps."""
    pace = GivenTime()
    engine = Slow(pace, ends_after)
    verdict = Verdict(Decision.KILL, "")
    end_container(engine, container(0), verdict, ProcFS(), grace=10, patience=20, pace=pace)  # type: ignore[arg-type]
    took = pace.seconds - 1000.0
    assert engine.told == told
    assert took <= ends_after + 0.3 if told == ["SIGTERM"] else 30 <= took < 30.3
