"""A --cidfile is read while its docker client runs, and by its path once that is gone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagstop.evidence import cidfiles
from dagstop.evidence.containers import Client
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity
from tests.support.fake_proc import process

CID = "c" * 64


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Stands for a docker client whose working directory is `tmp_path`."""
    with subprocess.Popen(["sleep", "7331"], cwd=tmp_path) as child:
        yield child
        child.kill()


def client_of(child: subprocess.Popen[bytes], cidfile: str | None) -> Client:
    stat = ProcFS().stat(child.pid)
    assert stat is not None
    return Client("name", cidfile, process(identity=Identity(child.pid, stat.start)))


@pytest.mark.parametrize("relative", [True, False])
def test_it_is_read_alive_and_after_the_clients_end(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, relative: bool
) -> None:
    client = client_of(sleeper, "cid" if relative else str(tmp_path / "cid"))
    assert cidfiles.read(client, None) == ""
    (tmp_path / "cid").write_text(CID)
    assert cidfiles.read(client, None) == CID
    path = cidfiles.locate(client)
    sleeper.kill()
    sleeper.wait()
    assert cidfiles.read(client, None) == ""
    assert cidfiles.read(client, path) == CID
    assert cidfiles.locate(client) is None


@pytest.mark.parametrize("text", ["", "c" * 63, "C" * 64, "c" * 65, "../" * 10, "é" * 32])
def test_what_is_no_id_is_none(sleeper: subprocess.Popen[bytes], tmp_path: Path, text: str) -> None:
    (tmp_path / "cid").write_text(text)
    assert cidfiles.read(client_of(sleeper, "cid"), None) == ""


def test_a_fifo_holds_nobody_up(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cid")
    assert cidfiles.read(client_of(sleeper, "cid"), str(tmp_path / "cid")) == ""


def test_nothing_is_read_for_a_client_without_one(sleeper: subprocess.Popen[bytes]) -> None:
    client = client_of(sleeper, None)
    assert (cidfiles.locate(client), cidfiles.read(client, None)) == (None, "")


def test_reading_leaves_no_file_open(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "cid").write_text(CID)
    client = client_of(sleeper, "cid")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        assert cidfiles.read(client, None) == CID
    assert len(os.listdir("/proc/self/fd")) == len(before)
