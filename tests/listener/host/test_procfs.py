"""Reading /proc: the formats of proc(5), and what a process can put into them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.host.procfs import (
    TICKS_PER_SECOND,
    ProcFS,
    SignalMasks,
    Stat,
    parse_argv,
    parse_environ,
    parse_layout,
    parse_signal_masks,
    parse_stat,
)

REST = b" 1 4242 4242 0 -1 4194304 100 0 0 0 1 2 3 4 20 0 1 0 812345 1000 50 18446744073709551615\n"


@pytest.mark.parametrize("comm", [b"sleep", b"a b", b") R 1 2 3", b"(((", b"", b"x\ny", b"\xff) S 9 9 9"])
def test_a_command_name_cannot_forge_the_other_fields(comm: bytes) -> None:
    assert parse_stat(b"4242 (" + comm + b") S" + REST) == Stat("S", 1, 4242, 4242, 812345)


@pytest.mark.parametrize("data", [b"", b"4242 (x) S 1", b"4242 (x) S x" + REST, b"nonsense"])
def test_no_stat(data: bytes) -> None:
    assert parse_stat(data) is None


@pytest.mark.parametrize(
    ("ignored", "caught", "masks"),
    [
        (b"0000000001001000", b"0000000000006c04", SignalMasks(False, True)),  # runner, 2.11.2
        (b"0000000000000004", b"0000000000010002", SignalMasks(False, False)),  # bash -c
        (b"0000000000004004", b"0000000000000000", SignalMasks(True, False)),  # trap "" TERM
        (b"0000000000000000", b"0000000100006002", SignalMasks(False, True)),  # runner, 1.10.0
    ],
)
def test_what_sigterm_does(ignored: bytes, caught: bytes, masks: SignalMasks) -> None:
    status = b"Name:\tx\nSigBlk:\t0000000000010000\nSigIgn:\t" + ignored + b"\nSigCgt:\t" + caught + b"\n"
    assert parse_signal_masks(status) == masks


@pytest.mark.parametrize(
    ("pids", "blocked", "caught", "masks"),
    [
        (b"4242\t1", b"0", b"0", SignalMasks(True, False)),  # `sleep` in a container of podman
        (b"4242\t1", b"0", b"4000", SignalMasks(False, True)),
        (b"4242\t1", b"4000", b"0", SignalMasks(False, True)),  # tini waits for it
        (b"4242\t11", b"0", b"0", SignalMasks(False, False)),
        (b"1", b"0", b"0", SignalMasks(False, False)),  # the init of our own namespace
    ],
)
def test_what_sigterm_does_to_the_init_of_a_namespace(
    pids: bytes, blocked: bytes, caught: bytes, masks: SignalMasks
) -> None:
    status = b"NSpid:\t" + pids + b"\nSigBlk:\t" + blocked + b"\nSigIgn:\t0\nSigCgt:\t" + caught + b"\n"
    assert parse_signal_masks(status) == masks


@pytest.mark.parametrize("data", [b"", b"SigIgn:\t0\n", b"SigIgn:\tx\nSigCgt:\t0\n"])
def test_no_signal_masks(data: bytes) -> None:
    assert parse_signal_masks(data) is None


def test_only_what_dagstop_reads_of_an_environment() -> None:
    data = b"PATH=/\0AIRFLOW_HOME=/opt/airflow\0AIRFLOW_CTX_DAG_ID=a=b\0A=AIRFLOW\0DAGSTOP_AIRFLOW_HOME=/h\0"
    assert parse_environ(data) == {
        "AIRFLOW_HOME": "/opt/airflow", "AIRFLOW_CTX_DAG_ID": "a=b", "DAGSTOP_AIRFLOW_HOME": "/h"
    }  # fmt: skip


def test_of_doubles_the_first_counts() -> None:
    assert parse_environ(b"AIRFLOW_HOME=/a\0AIRFLOW_HOME=/b\0") == {"AIRFLOW_HOME": "/a"}


def test_a_title_that_ran_over_the_environment_gives_no_variable() -> None:
    data = b"ree', 'lab', 'AIRFLOW_HOME=/x', '-l']\0\0\0\0LC_ALL=C\0AIRFLOW_HOME=/opt/airflow\0AIRFLOW_X\0"
    assert parse_environ(data) == {"AIRFLOW_HOME": "/opt/airflow"}


@pytest.mark.parametrize(
    ("data", "argv"),
    [
        (b"", ()),
        (b"\0\0\0", ()),
        (b"sleep\x006001.4711\0", ("sleep", "6001.4711")),
        (b"airflow task runner: d t r 4\0\0\0\0\0", ("airflow task runner: d t r 4",)),
        (b"postgres: checkpointer                \0", ("postgres: checkpointer",)),
        (b"bash\0-c\0a\nb \xff\0", ("bash", "-c", "a\nb \ufffd")),
        (b"x\0\0y\0", ("x", "", "y")),
    ],
)
def test_words(data: bytes, argv: tuple[str, ...]) -> None:
    assert parse_argv(data) == argv


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda junk: b"1 (x) S " + junk + REST))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    parse_stat(data)
    parse_signal_masks(b"SigIgn:" + data)
    parse_environ(b"AIRFLOW" + data)
    parse_argv(data)


def test_this_process() -> None:
    proc, own = ProcFS(), os.getpid()
    stat = proc.stat(own)
    assert stat is not None and (stat.ppid, stat.pgid, stat.sid) == (os.getppid(), os.getpgrp(), os.getsid(0))
    assert own in proc.pids() and proc.uid(own) == os.geteuid()
    assert (proc.argv(own) or ("",))[0] and proc.comm(own)
    assert proc.pid_namespace(own)[0] == os.readlink("/proc/self/ns/pid")
    assert proc.boot_id() == proc.boot_id() != ""
    assert 0 < stat.start <= proc.now_ticks()


def test_start_times_and_the_clock_are_one_scale() -> None:
    proc = ProcFS()
    before = proc.now_ticks()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        stat = proc.stat(child.pid)
        child.communicate(b"\n")
    assert stat is not None
    assert before - 1 <= stat.start <= proc.now_ticks() + 1
    assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_SECOND - proc.now_ticks()) < 100


def test_a_large_environment_is_read_whole() -> None:
    environ = {f"FILL_{n}": "x" * 1000 for n in range(100)} | {"AIRFLOW_HOME": "/opt/airflow"}
    words = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it has exec'd
        assert ProcFS().environ(child.pid) == {"AIRFLOW_HOME": "/opt/airflow"}
        child.communicate(b"\n")


def test_what_is_gone_answers_nothing(tmp_path: Path) -> None:
    proc = ProcFS(str(tmp_path))
    assert proc.pids() == []
    assert proc.stat(7) is None and proc.signal_masks(7) is None and proc.pid_namespace(7)[0] is None
    assert proc.argv(7) == () and proc.environ(7) == {} and proc.comm(7) == "" and proc.uid(7) == -1
    assert proc.boot_id() == ""


def test_memory_of_another_container_is_another_boot(tmp_path: Path) -> None:
    ids = []
    for namespace in ("pid:[1]", "pid:[2]"):
        root = tmp_path / namespace
        (root / "self" / "ns").mkdir(parents=True)
        (root / "self" / "ns" / "pid").symlink_to(namespace)
        (root / "sys/kernel/random").mkdir(parents=True)
        (root / "sys/kernel/random/boot_id").write_text("b007\n")
        ids.append(ProcFS(str(root)).boot_id())
    assert len(set(ids)) == 2


def test_files_that_end_anywhere() -> None:
    """Of this very process, cut at each byte: never an error, never another session or parent."""
    proc, own = ProcFS(), os.getpid()
    stat, status = proc.read(own, "stat") or b"", proc.read(own, "status") or b""
    whole = parse_stat(stat)
    assert whole is not None
    for end in range(len(stat)):
        cut = parse_stat(stat[:end])
        # a start time that lacks digits is another process's, which nobody signals
        assert cut is None or (cut.state, cut.ppid, cut.pgid, cut.sid) == (
            whole.state,
            whole.ppid,
            whole.pgid,
            whole.sid,
        )
        assert cut is None or str(whole.start).startswith(str(cut.start))
    whole_line = status.index(b"\n", status.index(b"SigCgt:"))
    for end in range(len(status)):
        masks = parse_signal_masks(status[:end])
        assert end < whole_line or masks == parse_signal_masks(status)


def test_a_huge_environment_is_not_cut_before_what_tells_whose_it_is() -> None:
    environ = {f"FILL_{n}": "x" * 100_000 for n in range(14)} | {"AIRFLOW_HOME": "/srv/other"}
    words = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert ProcFS().environ(child.pid) == {"AIRFLOW_HOME": "/srv/other"}
        child.communicate(b"\n")


def test_a_fork_shares_its_memory_layout_and_an_exec_does_not() -> None:
    proc = ProcFS()
    own = proc.layout(os.getpid())
    assert own is not None
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        assert proc.layout(child) == own
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert proc.layout(child) is None
    twice = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    try:
        assert len({own, *(proc.layout(process.pid) for process in twice)}) == 3
    finally:
        for process in twice:
            process.communicate(b"\n")


def test_a_layout_that_is_not_at_random_proves_nothing(tmp_path: Path) -> None:
    words = ["setarch", "-R", sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert ProcFS().layout(process.pid) is None
        process.communicate(b"\n")
    assert ProcFS(str(tmp_path)).layout(1) is None  # nor does one of a kernel that does not say


def test_a_layout_that_is_not_shown_is_none() -> None:
    fields = [b"S", *[str(number).encode() for number in range(4, 53)]]
    assert parse_layout(b"5 (x) " + b" ".join(fields)) == (26, 28, 48, 50)
    assert parse_layout(b"5 (x) " + b" ".join([*fields[:45], b"0", *fields[46:]])) is None
    assert parse_layout(b"5 (x) S 1 2") is None and parse_layout(b"") is None
