"""A --cidfile is read while its docker client runs: it may be gone when it is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagstop.evidence.cidfiles import CidFiles
from dagstop.evidence.containers import Client
from dagstop.model import Identity
from dagstop.outside.procfs import ProcFS
from tests.support.fake_proc import process
from tests.support.watch import wait_until

CID = "c" * 64


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Stands for a docker client whose working directory is `tmp_path`."""
    with subprocess.Popen(["sleep", "7331"], cwd=tmp_path) as child:
        yield child
        child.kill()


def client_of(child: subprocess.Popen[bytes], cidfile: str) -> Client:
    stat = ProcFS().stat(child.pid)
    assert stat is not None
    return Client(None, cidfile, process(identity=Identity(child.pid, stat.start)))


@pytest.mark.parametrize("relative", [True, False])
def test_what_was_learned_outlives_the_file_and_the_client(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, relative: bool
) -> None:
    client = client_of(sleeper, "cid" if relative else str(tmp_path / "cid"))
    known = CidFiles()
    known.learn([client])  # not there yet: it is asked for again
    assert known.of(client) == ""
    (tmp_path / "cid").write_text(CID)

    def learned() -> bool:
        known.learn([client])
        return client.process.identity in known._known

    wait_until(learned, 5, lambda: "it is not learned")
    (tmp_path / "cid").unlink()
    sleeper.kill()
    sleeper.wait()
    assert known.of(client) == CID


def test_a_fifo_holds_nobody_up(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cid")
    assert CidFiles().of(client_of(sleeper, "cid")) == ""


def test_nothing_is_read_for_a_client_without_one(sleeper: subprocess.Popen[bytes]) -> None:
    assert CidFiles().of(Client("name", None, process(identity=Identity(sleeper.pid, 1)))) == ""
