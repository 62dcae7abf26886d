"""Environments read from memory: the very bytes of /proc/PID/environ, or nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.host import foreign_memory
from dagstop.host.procfs import ProcFS


def test_the_same_bytes_as_the_file() -> None:
    words = [sys.executable, "-c", "print(flush=True); input()"]
    environ = {f"FILL_{n}": "x" * 1000 for n in range(100)} | {"AIRFLOW_HOME": "/opt/airflow"}
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        proc = ProcFS()
        span = foreign_memory.environment_span(proc.read(child.pid, "stat") or b"", 1 << 20)
        assert foreign_memory.read(child.pid, *span) == proc.read(child.pid, "environ")
        assert (
            foreign_memory.read(child.pid, span[0], 64 << 20) == b""
        )  # beyond what is mapped: not a part of it
        child.communicate(b"\n")
    assert foreign_memory.read(child.pid, *span) == b""


@pytest.mark.parametrize(
    ("held", "needed"),
    [
        ("0000000000080020", True),  # CAP_KILL, CAP_SYS_PTRACE
        ("000001ffffffffff", False),  # root
        ("0000000000080022", False),  # CAP_DAC_OVERRIDE as well
        ("0000000000000020", False),
        ("zz", False),
    ],
)
def test_when_files_do(held: str, needed: bool) -> None:
    assert foreign_memory.needed(f"Name:\tx\nCapEff:\t{held}\n".encode()) is needed
    assert foreign_memory.needed(b"") is False


@given(st.binary(max_size=400) | st.lists(st.integers(-5, 1 << 70), max_size=60).map(
    lambda numbers: b"1 (x) S " + " ".join(map(str, numbers)).encode()
))  # fmt: skip
def test_no_stat_leads_astray(data: bytes) -> None:
    begin, length = foreign_memory.environment_span(data, 1000)
    assert (begin, length) == (0, 0) or (begin > 0 and 0 < length <= 1000)
