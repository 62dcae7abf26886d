"""What can be read, placed and signalled on a host is proven by trying; what cannot is named by its user."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence.sight import Trial, tried, unseen
from dagstop.model import Identity, Process
from tests.support.fake_proc import FakeProc, process

ME = os.geteuid()  # whose the folders of these tests are
OTHER = ME + 1
REFUSED = {"environ": "/proc/600/environ cannot be read: CAP_SYS_PTRACE is missing"}


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """A host on which nothing runs yet."""
    proc = FakeProc(tmp_path)
    for pid in proc.pids():
        proc.end(pid)
    return proc


def stranger(proc: FakeProc, pid: int, uid: int = ME, **more: Any) -> Process:
    """One that nobody could label."""
    proc.add(pid, argv=("sleep", "1"), uid=uid)
    one = process(identity=Identity(pid, 100), **{"unread": REFUSED, **more})
    one.label = more.get("label")
    return one


def test_what_was_refused_of_a_user_as_whom_tasks_run_is_named_by_user(proc: FakeProc) -> None:
    one, two = stranger(proc, 600), stranger(proc, 601)
    assert unseen([one], proc, [ME, 4711]) == [f"1 process of uid {ME}: {REFUSED['environ']}"]
    assert unseen([one, two], proc, [ME]) == [f"2 processes of uid {ME}: {REFUSED['environ']}"]


def test_what_may_not_be_the_runs_is_not_unseen(proc: FakeProc) -> None:
    assert unseen([stranger(proc, 600, uid=OTHER)], proc, [ME]) == []
    assert unseen([stranger(proc, 605)], proc, [OTHER]) == []
    assert unseen([stranger(proc, 601, unread={"cmdline": "x"})], proc, [ME]) == []
    assert unseen([stranger(proc, 602, argv=())], proc, [ME]) == []
    assert unseen([stranger(proc, 603, label=process().label)], proc, [ME]) == []
    undumpable = stranger(proc, 604, uid=OTHER)  # its files are another's
    assert unseen([undumpable], proc, [OTHER]) == []


def test_one_that_says_nothing_hides_no_other(proc: FakeProc) -> None:
    found = [stranger(proc, 600, argv=()), stranger(proc, 601)]
    assert len(unseen(found, proc, [ME])) == 1


def test_a_proc_that_hides_others_is_named_for_each_user_but_ones_own(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "hides_others", lambda: True)
    said = unseen([stranger(proc, 600)], proc, [OTHER + 1, ME, OTHER])
    assert [line.split(":")[0] for line in said] == [
        f"processes of uid {OTHER}",
        f"processes of uid {OTHER + 1}",
        f"1 process of uid {ME}",
    ]
    assert "hidepid" in said[0]


@pytest.fixture
def may_not(monkeypatch: pytest.MonkeyPatch) -> dict[int, type[OSError]]:
    """What a signal 0 to a pid of this test raises; nothing real is asked."""
    answers: dict[int, type[OSError]] = {}

    def kill(pid: int, number: int) -> None:
        assert number == 0
        if pid in answers:
            raise answers[pid]

    monkeypatch.setattr("dagstop.evidence.sight.os.kill", kill)
    return answers


def test_each_right_is_tried_by_itself(proc: FakeProc, may_not: dict[int, type[OSError]]) -> None:
    for pid in range(600, 604):
        proc.add(pid, argv=("sleep", "1"), uid=ME)
    assert tried(proc)[ME] == Trial(4, 4, 4, 4) and tried(proc)[ME].good
    proc.refused[600, "environ"] = errno.EACCES
    assert tried(proc)[ME] == Trial(4, 3, 4, 4) and not tried(proc)[ME].good
    proc.refused[601, "ns/pid"] = errno.EACCES
    assert tried(proc)[ME] == Trial(4, 3, 3, 4)
    may_not[602], may_not[603] = PermissionError, ProcessLookupError
    assert tried(proc)[ME] == Trial(4, 3, 3, 3)
    del proc.refused[600, "environ"]
    assert not tried(proc)[ME].good


def test_who_is_not_tried(
    proc: FakeProc, may_not: dict[int, type[OSError]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Itself, kernel threads, what is ending, and what made itself undumpable."""
    monkeypatch.setattr("dagstop.evidence.sight.os.getpid", lambda: 600)
    for pid in (600, 602):
        proc.add(pid, argv=("dagstop", "listen"), uid=ME)
    proc.add(601, uid=ME)
    proc.refused[602, "stat"] = errno.ESRCH
    proc.add(603, argv=("sleep", "1"), uid=OTHER)
    proc.add(604, argv=("sleep", "1"), uid=ME)
    proc.refused[604, "status"] = errno.ESRCH
    assert tried(proc) == {}
    for pid in (599, 605):  # before the others, and after them
        proc.add(pid, argv=("sleep", "1"), uid=ME)
    assert tried(proc) == {ME: Trial(2, 2, 2, 2)}


def test_of_one_user_a_few_are_enough(proc: FakeProc, may_not: dict[int, type[OSError]]) -> None:
    for pid in range(600, 630):
        proc.add(pid, argv=("sleep", "1"), uid=ME)
    assert tried(proc)[ME] == Trial(20, 20, 20, 20)


def test_trials_add_up() -> None:
    one = Trial()
    assert one == Trial(0, 0, 0, 0)
    one.add(Trial(1, 1, 0, 1))
    one.add(Trial(1, 0, 1, 1))
    assert one == Trial(2, 1, 1, 2) and not one.good
