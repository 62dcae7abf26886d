"""Each file that says whose a process is: refused, gone, empty or garbage, it makes nobody ours."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import memory
from dagstop.evidence.match import judge
from dagstop.evidence.site import survey
from dagstop.evidence.watch import Watch
from dagstop.model import Decision, Verdict
from tests.support.fake_proc import (
    DATE,
    HOME,
    LISTENER,
    ORDERED,
    URL,
    UUID,
    FakeProc,
    order,
    row,
    tags,
    watch_of,
)

TWIN = 700
RUNNER = ("python", "/opt/airflow/bin/airflow", "tasks", "run", "d", "t", "r", "--job-id", "7", "--raw")
REFUSALS = (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)
GONE = (errno.ENOENT, errno.ESRCH)


def verdict(proc: FakeProc, watch: Watch, pid: int, **more: Any) -> Verdict | None:
    """What an order of the run does to it; None if it is not a candidate."""
    process = watch.processes.get(pid)
    if process is None or process.label is None:
        return None
    site = survey([HOME], [URL], watch.at_homes(), proc, LISTENER)
    asked = order(targets=(row(**more),), present=(row(state="failed", **more),), logical_date=DATE)
    return judge(asked, process, ORDERED, site)


def add_twin(proc: FakeProc, file: str) -> None:
    """A process that `file` alone tells from one of the run's."""
    other = {"AIRFLOW_HOME": "/srv/b"}
    if file == "ns/pid":
        proc.add(TWIN, argv=["airflow task runner: d t r 7"], namespace="pid:[2]")
    elif file == "environ":
        proc.add(TWIN, argv=RUNNER, environ=other)
    elif file == "cmdline":
        proc.add(TWIN, argv=("airflow", "tasks", "test", "d", "t", "r"), environ=tags())
    elif file == "status":
        proc.add(TWIN, argv=("sleep", "1"), environ=tags(), uid=1000)
    else:
        proc.add(TWIN, argv=("sleep", "1"), environ=tags())


def write(proc: FakeProc, file: str, data: bytes) -> None:
    path = proc.path / str(TWIN) / file
    path.unlink()
    if file == "ns/pid":
        path.symlink_to(data.decode() or "pid:[]")
    else:
        path.write_bytes(data)


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("file", ["ns/pid", "environ", "cmdline", "status", "stat"])
def test_what_is_refused_is_spared_and_said(proc: FakeProc, watch: Watch, file: str, number: int) -> None:
    add_twin(proc, file)
    proc.refused[TWIN, file] = number
    for _ in range(4):
        watch.look()
    seen = verdict(proc, watch, TWIN)
    if file == "stat":
        assert seen is None  # nobody signals a process without its start time
        return
    assert seen is not None and seen.decision is Decision.SPARE
    assert f"/proc/{TWIN}/{file}" in seen.reason, seen
    if file != "status":
        assert ("CAP_SYS_PTRACE" in seen.reason) == (number in (errno.EACCES, errno.EPERM))


@pytest.mark.parametrize("file", ["ns/pid", "status", "stat"])
@pytest.mark.parametrize("how", [*GONE, b"", b"\0garbage 7 7 7\n"], ids=str)
def test_what_is_gone_or_says_nothing_is_spared(
    proc: FakeProc, watch: Watch, file: str, how: int | bytes
) -> None:
    add_twin(proc, file)
    if isinstance(how, int):
        proc.refused[TWIN, file] = how
    else:
        write(proc, file, how.strip(b"\0"))
    watch.look()
    seen = verdict(proc, watch, TWIN)
    assert seen is None or seen.decision is Decision.SPARE


@pytest.mark.parametrize("how", [*GONE, b"", b"\xff\0garbage\0=\0"], ids=str)
@pytest.mark.parametrize("file", ["environ", "cmdline"])
def test_words_that_say_nothing_make_nobody_ours(
    proc: FakeProc, watch: Watch, file: str, how: int | bytes
) -> None:
    """A silent environment leaves the title, which counts only with the database's job id."""
    proc.add(
        TWIN,
        argv=RUNNER if file == "environ" else ("sleep", "1"),
        environ=tags() if file == "environ" else {},
    )
    if isinstance(how, int):
        proc.refused[TWIN, file] = how
    else:
        write(proc, file, how)
    watch.look()
    seen = verdict(proc, watch, TWIN, job_id=6)
    assert seen is None or seen.decision is Decision.SPARE


def test_what_can_be_read_again_is_judged_again(proc: FakeProc, watch: Watch) -> None:
    """The listener had no descriptor left for a moment: nothing is spared for good by that."""
    pid = proc.add(600, argv=RUNNER, environ=tags())
    proc.refused = {(pid, file): errno.EMFILE for file in ("ns/pid", "environ")}
    for _ in range(4):
        watch.look()
    seen = verdict(proc, watch, pid)
    assert seen is not None and seen.decision is Decision.SPARE
    proc.refused = {}
    watch.tick()
    seen = verdict(proc, watch, pid)
    assert seen is not None and seen.decision is Decision.KILL


def test_what_descends_from_the_runs_own_is_known_by_that(proc: FakeProc, watch: Watch) -> None:
    """Of a task under run_as_user an unprivileged listener reads neither namespace nor environment."""
    runner = proc.add(600, argv=RUNNER, environ=tags())
    child = proc.add(601, ppid=runner, pgid=600, sid=600, argv=("sudo", "x"), uid=0)
    proc.refused = {(child, file): errno.EACCES for file in ("ns/pid", "environ")}
    watch.look()
    seen = verdict(proc, watch, child)
    assert seen is not None and seen.decision is Decision.KILL


def test_a_uuid_needs_no_environment(proc: FakeProc, watch: Watch) -> None:
    pid = proc.add(600, argv=[f"airflow worker -- {UUID}"])
    proc.refused[pid, "environ"] = errno.EACCES
    watch.look()
    seen = verdict(proc, watch, pid, ti_id=UUID)
    assert seen is not None and seen.decision is Decision.KILL


@pytest.mark.parametrize("hidden", ["stat", "cmdline", "pid"])
def test_what_runs_under_something_unseen_is_spared(proc: FakeProc, watch: Watch, hidden: str) -> None:
    """A shell that somebody opened with a task's environment; its sshd is not shown (hidepid)."""
    proc.add(80, argv=("/usr/sbin/sshd",), uid=0)
    proc.add(81, ppid=80, argv=("bash",), environ=tags())
    proc.add(82, ppid=81, argv=("sleep", "1"), environ=tags())
    if hidden == "pid":
        (proc.path / "80").rename(proc.path / "hidden")
    else:
        proc.refused[80, hidden] = errno.EPERM
    for _ in range(3):
        watch.look()
    for pid in (81, 82):
        seen = verdict(proc, watch, pid)
        assert seen is not None and seen.decision is Decision.SPARE, pid
        assert "/proc/80" in seen.reason and "CAP_SYS_PTRACE" in seen.reason


def test_who_was_adopted_since_runs_under_nothing(proc: FakeProc, watch: Watch) -> None:
    proc.add(80, argv=("env",), environ={})
    proc.add(81, ppid=80, argv=("bash",), environ=tags())
    watch.look()
    proc.end(80)
    proc.become(81, ("bash", "-c", "x"))
    watch.look()
    seen = verdict(proc, watch, 81)
    assert seen is not None and seen.decision is Decision.KILL


def test_an_airflow_that_cannot_be_read_may_be_another_one(proc: FakeProc, watch: Watch) -> None:
    silent = {name: value for name, value in tags().items() if "AIRFLOW_HOME" != name}
    proc.add(80, argv=("python", "/srv/b/bin/airflow", "scheduler"), environ={"AIRFLOW_HOME": "/srv/b"})
    proc.add(81, argv=("bash",), environ=silent)
    proc.refused[80, "environ"] = errno.EACCES
    watch.look()
    seen = verdict(proc, watch, 81)
    assert seen is not None and seen.decision is Decision.SPARE
    assert "/proc/80/environ" in seen.reason
    proc.refused = {}
    (proc.path / "80" / "environ").write_bytes(f"AIRFLOW_HOME={HOME}\0".encode())
    watch.look()
    seen = verdict(proc, watch, 81)
    assert seen is not None and seen.decision is Decision.KILL


def test_what_can_be_read_no_more_says_so(proc: FakeProc, watch: Watch) -> None:
    """It has executed what its reader may not see: what it showed before was another program's."""
    proc.add(600, argv=("bash",), environ=tags())
    watch.tick()
    assert not watch.processes[600].unread
    proc.become(600, ("sudo", "x"))
    proc.refused[600, "environ"] = errno.EACCES
    watch.tick()
    assert "/proc/600/environ cannot be read" in watch.processes[600].unread["environ"]


def test_what_is_read_by_another_way_is_not_unread(
    proc: FakeProc, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be refused to who may read the process's memory."""
    proc.add(600, argv=("bash",), environ=tags())
    proc.refused[600, "environ"] = errno.EACCES
    monkeypatch.setattr(proc, "environ", lambda pid: tags() if pid == 600 else {})
    watch.look()
    seen = verdict(proc, watch, 600)
    assert not watch.processes[600].unread
    assert seen is not None and seen.decision is Decision.KILL


def test_a_database_that_ours_cannot_be_compared_with_is_anothers(proc: FakeProc, watch: Watch) -> None:
    """A URL of ours in a form that is not understood must not open the guard."""
    pid = proc.add(600, argv=("bash",), environ=tags())
    watch.look()
    site = survey([HOME], ["no url at all"], watch.at_homes(), proc, LISTENER)
    seen = judge(order(logical_date=DATE), watch.processes[pid], ORDERED, site)
    assert seen.decision is Decision.SPARE and "metadata database" in seen.reason


def test_what_was_unread_or_asked_to_be_spared_is_not_remembered(tmp_path: Path, proc: FakeProc) -> None:
    """After a restart a listener would take its memory's word for what it never could see."""
    watch = watch_of(proc)
    runner = proc.add(600, argv=RUNNER, environ={**tags(), "DAGSTOP_SPARE": "1"})
    proc.add(601, ppid=runner, pgid=600, sid=600, argv=("sleep", "1"))
    twin = proc.add(TWIN, argv=RUNNER, environ=tags())
    proc.refused[twin, "ns/pid"] = errno.EACCES
    proc.add(800, argv=RUNNER, environ=tags())
    watch.look()
    memory.save(tmp_path, "boot", watch.labelled())
    assert [identity.pid for identity in memory.load(tmp_path, "boot").processes] == [800]


@pytest.mark.parametrize("number", [*REFUSALS, *GONE], ids=errno.errorcode.get)
def test_a_working_directory_that_cannot_be_read_ties_to_nothing(
    proc: FakeProc, watch: Watch, number: int
) -> None:
    folder = "/tmp/airflowtmpk3_x9abc"
    bash = proc.add(600, argv=("bash",), environ=tags())
    proc.works_in(bash, folder)
    watch.look()
    daemon = proc.add(TWIN, argv=("sleep", "1"))
    proc.works_in(daemon, folder)
    proc.refused[daemon, "cwd"] = number
    watch.look()
    assert verdict(proc, watch, daemon) is None


@pytest.mark.parametrize("how", [*REFUSALS, *GONE, b"", b"garbage"], ids=str)
def test_who_may_have_a_terminal_is_a_person(proc: FakeProc, how: int | bytes) -> None:
    pid = proc.add(TWIN, argv=("bash",))
    assert not proc.has_terminal(pid)
    if isinstance(how, int):
        proc.refused[pid, "stat"] = how
    else:
        write(proc, "stat", how)
    assert proc.has_terminal(pid)
