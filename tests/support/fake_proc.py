"""A folder that looks like /proc, and orders, rows and processes in a few words."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from dagstop.evidence.site import Site
from dagstop.evidence.watch import Watch
from dagstop.host.process_events import EXEC, EXIT, FORK, RENAMED, Batch, Event, ProcessEvents
from dagstop.host.procfs import TICKS_PER_SECOND, ProcFS
from dagstop.model import Identity, Label, Process, Role, StopOrder, Target

HOME = "/opt/airflow"
URL = "postgresql://airflow:secret@db.example:5432/airflow"
KEY = "db.example:5432/airflow"
DATE = datetime(2026, 11, 22, 9, 17, 13, 497594, tzinfo=timezone.utc)
ORDERED = datetime(2026, 11, 22, 10, 0, tzinfo=timezone.utc)
UUID = "01a2028e-bb1a-7ed7-97b1-6932365247ce"
UID = 50000
LISTENER = 90


def at(seconds: float) -> datetime:
    """So many seconds after the order was written."""
    return ORDERED + timedelta(seconds=seconds)


class FakeProc(ProcFS):
    """Processes are files under `root`; `now` is the clock, in ticks since boot."""

    def __init__(self, root: Path) -> None:
        self.refused: dict[tuple[int | str, str], int] = {}
        """(pid, file) -> errno: the tests may be root, who reads all."""
        super().__init__(str(root))
        self.path = root
        self.now = 1000
        self.add(1, ppid=0, argv=("/sbin/init",), start=1, uid=0)
        self.add(LISTENER, ppid=1, argv=("/opt/dagstop/bin/python", "dagstop", "listen"), start=2, uid=0)

    def _bytes(self, pid: int | str, name: str) -> bytes:
        self._refuse(pid, name)
        return super()._bytes(pid, name)

    def _link(self, pid: int, name: str) -> str:
        self._refuse(pid, name)
        return super()._link(pid, name)

    def _refuse(self, pid: int | str, name: str) -> None:
        if number := self.refused.get((pid, name)):
            raise OSError(number, os.strerror(number), f"{self.root}/{pid}/{name}")

    def now_ticks(self) -> int:
        return self.now

    def add(
        self, pid: int, *, ppid: int = 1, pgid: int | None = None, sid: int | None = None,
        argv: Sequence[str] = (), start: int | None = None, environ: Mapping[str, str] | bytes = b"",
        uid: int = UID, state: str = "S", namespace: str = "pid:[1]", terminal: int = 0, inner: int | None = None,
    ) -> int:  # fmt: skip
        """A new process; without pgid and sid it leads both. A title is an argv of one word.

        inner: its pid in its container.
        """
        self.now += 10
        folder = self.path / str(pid)
        (folder / "ns").mkdir(parents=True)
        self.becomes_user(pid, uid, inner)
        (folder / "ns" / "pid").symlink_to(namespace)
        facts = [ppid, pid if pgid is None else pgid, pid if sid is None else sid]
        self._stat(pid, state, facts, self.now if start is None else start, terminal)
        self.become(pid, argv, environ)
        return pid

    def works_in(self, pid: int, folder: str) -> None:
        """chdir(2), or what the kernel says of a folder that is deleted since."""
        (self.path / str(pid) / "cwd").unlink(missing_ok=True)
        (self.path / str(pid) / "cwd").symlink_to(folder)

    def becomes_user(self, pid: int, uid: int, inner: int | None = None) -> None:
        """setuid(2). inner: its pid in the container that it lives in."""
        below = "" if inner is None else f"\t{inner}"
        text = f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{pid}{below}\nSigIgn:\t0\nSigCgt:\t0\n"
        (self.path / str(pid) / "status").write_text(text)

    def become(self, pid: int, argv: Sequence[str], environ: Mapping[str, str] | bytes | None = None) -> None:
        """execve(2) or setproctitle: other words, and another environment if one is given."""
        folder = self.path / str(pid)
        (folder / "cmdline").write_bytes("".join(f"{word}\0" for word in argv).encode())
        (folder / "comm").write_text((os.path.basename(argv[0]) if argv else "x")[:15] + "\n")
        if environ is not None:
            if not isinstance(environ, bytes):
                environ = "".join(f"{name}={value}\0" for name, value in environ.items()).encode()
            (folder / "environ").write_bytes(environ)

    def becomes_zombie(self, pid: int) -> None:
        """Ended, and nobody has asked for its exit status: it has no words and shows no namespace."""
        stat = self.stat(pid)
        assert stat is not None
        self.become(pid, (), b"")
        (self.path / str(pid) / "ns" / "pid").unlink()
        self._stat(pid, "Z", [stat.ppid, stat.pgid, stat.sid], stat.start)

    def end(self, pid: int, adopted_by: int = 1) -> None:
        """Gone, its children adopted."""
        shutil.rmtree(self.path / str(pid))
        for other in self.pids():
            stat = self.stat(other)
            if stat is not None and stat.ppid == pid:
                self._stat(other, stat.state, [adopted_by, stat.pgid, stat.sid], stat.start)

    def _stat(self, pid: int, state: str, facts: Sequence[int], start: int, terminal: int = 0) -> None:
        words = " ".join(map(str, [*facts, terminal, *["0"] * 14, start, 0]))
        (self.path / str(pid) / "stat").write_text(f"{pid} (a ) b) {state} {words}\n")


class RealClock(FakeProc):
    """Its processes started so many seconds ago by the real clock."""

    def ago(self, seconds: float) -> int:
        return ProcFS.now_ticks(self) - int(seconds * TICKS_PER_SECOND)


class FakeEvents(ProcessEvents):
    """A kernel that tells what the test says; `proc` is the clock."""

    def __init__(self, proc: FakeProc) -> None:
        self.lost = self.gaps = 0
        self._proc = proc
        self._told: list[Event] = []
        self._full = False

    def forked(self, parent: int, child: int) -> None:
        self._tell(FORK, child, parent)

    def executed(self, pid: int) -> None:
        self._tell(EXEC, pid)

    def renamed(self, pid: int) -> None:
        self._tell(RENAMED, pid)

    def ended(self, pid: int, status: int = 0) -> None:
        self._tell(EXIT, pid, status=status)

    def overflows(self) -> None:
        """Something that nobody is told of has happened."""
        self._full = True
        self.lost += 1
        self.gaps += 1

    def _tell(self, kind: int, pid: int, parent: int = 0, status: int = 0) -> None:
        """In the moment in which what `FakeProc.add` adds next has started."""
        ahead = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        at = (self._proc.now + 10) * 10**9 // TICKS_PER_SECOND
        self._told.append(Event(kind, pid, parent, at - ahead, status))

    def read(self) -> Batch:
        told, self._told, lost, self._full = self._told, [], self._full, False
        return Batch(told, lost)


def watch_of(proc: FakeProc, *, trusted: Sequence[int] = (UID,), **more: Any) -> Watch:
    """more: as `Watch` has it."""
    return Watch(proc, trusted_uids=lambda: frozenset(trusted), own_pid=LISTENER, **more)


def tags(dag: str = "d", run: str = "r", task: str = "t", **more: str) -> dict[str, str]:
    """What Airflow 2.x gives a bash child."""
    return {
        "AIRFLOW_HOME": HOME,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": URL,
        "AIRFLOW_CTX_DAG_ID": dag,
        "AIRFLOW_CTX_TASK_ID": task,
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "AIRFLOW_CTX_DAG_RUN_ID": run,
        **more,
    }


def row(task: str = "t", state: str | None = "running", **more: Any) -> Target:
    facts: dict[str, Any] = {
        "map_index": -1, "try_number": 1, "job_id": 7, "ti_id": None, "hostname": "worker", "pid": 500,
        "started_at": at(-60),
    }  # fmt: skip
    return Target(task_id=task, state=state, **{**facts, **more})


def order(**more: Any) -> StopOrder:
    facts: dict[str, Any] = {
        "id": 1, "kind": "run", "dag_id": "d", "run_id": "r", "logical_date": DATE, "task_id": None,
        "map_index": None, "self_reported": False, "created_at": ORDERED, "db_now": at(1),
        "settle_seconds": 10.0, "targets": (row(),), "present": (row(state="failed"),),
    }  # fmt: skip
    return StopOrder(**{**facts, **more})


def process(label: Label | None = None, **more: Any) -> Process:
    """A trusted process of the run, as bash children of 2.x are."""
    if label is None:
        label = Label(dag_id="d", run_id="r", task_id="t", airflow_home=HOME)
    facts: dict[str, Any] = {
        "identity": Identity(600, 100), "ppid": 1, "pgid": 600, "sid": 600, "state": "S", "uid": UID,
        "argv": ("sleep", "1"), "environ": {}, "role": Role.OTHER, "title": None, "label": label,
        "evidence": ("environment",), "trusted": True,
    }  # fmt: skip
    return Process(**{**facts, **more})


def site(**more: Any) -> Site:
    facts: dict[str, Any] = {
        "homes": frozenset({HOME}),
        "databases": frozenset({KEY}),
        "untouchable": frozenset({0, 1, 2, LISTENER}),
    }
    return Site(**{**facts, **more})
