"""Containers read from outside: by whom they are led, what their cgroup says, files that lead nowhere else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dagstop.host import places
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity
from tests.support.fake_proc import FakeProc
from tests.support.watch import wait_until

ID, OTHER = "3f2a90c41b7d" + "0" * 52, "9b1c55d0e2aa" + "0" * 52


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """A container with init 400, a child, and what `docker exec` started."""
    proc = FakeProc(tmp_path)
    proc.add(300, argv=("containerd-shim",))
    proc.add(400, ppid=300, argv=("sh",), namespace="pid:[7]", inner=1, start=50)
    proc.add(410, ppid=400, argv=("bash",), namespace="pid:[7]", inner=8)
    proc.add(420, ppid=300, argv=("bash",), namespace="pid:[7]", inner=15)
    return proc


def test_the_init_of_what_lives_in_a_container(proc: FakeProc) -> None:
    for pid in (400, 410, 420):
        assert places.init_of(proc, pid) == Identity(400, 50)


def test_the_number_of_a_namespace_proves_nothing_without_its_init(proc: FakeProc) -> None:
    proc.end(400)
    assert places.init_of(proc, 410) is None


def test_a_container_within_a_container_is_not_looked_into(proc: FakeProc) -> None:
    proc.add(430, ppid=410, argv=("bash",), namespace="pid:[8]")
    (proc.path / "430" / "status").write_text("NSpid:\t430\t20\t1\n")
    assert places.init_of(proc, 430) is None


def test_a_process_of_the_host_has_none(proc: FakeProc) -> None:
    proc.add(500, argv=("bash",))
    assert places.init_of(proc, 500) is None


def test_an_init_whose_namespace_is_refused_leads_nothing(proc: FakeProc) -> None:
    proc.refused[(400, "ns/pid")] = 13
    assert places.init_of(proc, 410) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"0::/docker/{ID}\n", ID),
        (f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n", ID),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n", ID),
        (f"0::/../{ID}\n", ID),
        (f"0::/docker/{OTHER}/docker/{ID}\n", ID),
        (f"0::/docker/{ID}/init.scope\n", ID),
        (f"12:pids:/docker/{ID}\n0::/docker/{OTHER}\n", None),
        ("0::/user.slice/user-1000.slice\n", None),
        ("", None),
    ],
)
def test_the_container_in_a_cgroup(text: str, found: str | None) -> None:
    assert places.container_in(text) == found


@pytest.fixture
def inside(proc: FakeProc) -> Path:
    """The root of container 400; beside it what is not in it."""
    root = proc.path / "400" / "root"
    (root / "etc").mkdir(parents=True)
    (proc.path / "outside").write_text("of this host")
    return root


def test_a_file_inside(proc: FakeProc, inside: Path) -> None:
    (inside / "etc" / "hostname").write_text("worker\n")
    assert places.read_inside(proc, Identity(400, 50), "/etc/hostname") == b"worker\n"
    assert places.owner_inside(proc, Identity(400, 50), "/etc") == os.geteuid()


@pytest.mark.parametrize("up", ["..", "../../..", "/"])
def test_no_link_leads_out(proc: FakeProc, inside: Path, up: str) -> None:
    target = str(proc.path / "outside") if up == "/" else f"{up}/outside"
    (inside / "etc" / "hostname").symlink_to(target)
    with pytest.raises(FileNotFoundError):
        places.read_inside(proc, Identity(400, 50), "/etc/hostname")
    with pytest.raises(FileNotFoundError):
        places.owner_inside(proc, Identity(400, 50), "/etc/../../outside")


def test_a_link_within_is_followed_as_the_container_would(proc: FakeProc, inside: Path) -> None:
    (inside / "name").write_text("worker")
    (inside / "etc" / "hostname").symlink_to("/name")
    assert places.read_inside(proc, Identity(400, 50), "/etc/hostname") == b"worker"


def test_what_is_no_file_is_not_opened(proc: FakeProc, inside: Path) -> None:
    """A pipe would hold up the listener."""
    os.mkfifo(inside / "etc" / "hostname")
    with pytest.raises(OSError, match="not a regular file"):
        places.read_inside(proc, Identity(400, 50), "/etc/hostname")


def test_a_pid_that_was_given_out_again_is_not_read(proc: FakeProc, inside: Path) -> None:
    with pytest.raises(ProcessLookupError):
        places.owner_inside(proc, Identity(400, 51), "/etc")


def test_the_real_proc() -> None:
    own = ProcFS()
    assert own.inner_pids(os.getpid())[0] == os.getpid()
    assert places.init_of(own, os.getpid()) is None
    stat = own.stat(os.getpid())
    assert stat is not None
    assert places.owner_inside(own, Identity(os.getpid(), stat.start), "/etc") == os.stat("/etc").st_uid
    with subprocess.Popen(
        ["sleep", "100"], env={"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": "/opt/airflow"}
    ) as child:
        wait_until(lambda: own.variable(child.pid, "AIRFLOW_HOME") == "/opt/airflow", 20, lambda: "not seen")
        child.kill()
