"""A container of rootful podman, which a task types with sudo: it dies with its run where the kernel tells.

What runs in it is the fence's user's; podman's conmon is root's, so nobody here may signal it, and it ends
by itself. The user and its sudo exist only in the mount namespaces of the tasks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_packages
from tests.support.airflow_tables import AirflowDatabase
from tests.support.fence import Fence
from tests.support.listener import Listener, dagstop, remembered, show
from tests.support.marks import one_server, shape_2
from tests.support.podman import LIMITS, PODMAN, import_image
from tests.support.tasks import Tasks, find, wait_for
from tests.support.watch import wait_until
from tests.testbed.docker_engine import IMAGE

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]
OURS, NOBODYS, REST = (f"{seconds}.{os.getpid()}" for seconds in (7791, 7792, 7793))
ENTRIES = {
    "passwd": "podder:x:{0}:{0}::/:/bin/sh\n",
    "shadow": "podder:*:19000:0:99999:7:::\n",
    "sudoers": "podder ALL=(root) NOPASSWD: ALL\n",
}


class Podman:
    """Rootful, with images and containers in a folder of its own, for the fence's user by sudo."""

    def __init__(self, fence: Fence) -> None:
        self.fence = fence
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-podman-"))
        self.folder.chmod(0o755)
        self.words = f"{PODMAN} --root {self.folder}/root --runroot {self.folder}/run"
        import_image(self.words)

    def line(self, seconds: str) -> str:
        """What starts a container that sleeps as the fence's user."""
        options = f"--name {name_of(seconds)} --network none --user {self.fence.uid} {LIMITS}"
        return f"sudo {self.words} run -d {options} {IMAGE} sleep {seconds}"

    def types(self, line: str, tasks: Tasks, environment: dict[str, str]) -> None:
        """Let the fence's user type it, in a mount namespace in which sudo knows that user."""
        lay = [self._lay(name, text) for name, text in ENTRIES.items()]
        become = f"setpriv --reuid={self.fence.uid} --regid={self.fence.uid} --clear-groups"
        words = " && ".join([*lay, f"exec {become} bash -c {shlex.quote(line)}"])
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", words]
        tasks.start(command, environment, session=True, folder=Path("/"))

    def _lay(self, name: str, text: str) -> str:
        """The command that lays the file over the machine's, which is as it was but for one more line."""
        theirs, ours = Path("/etc", name), self.folder / name
        before = "" if name == "sudoers" else theirs.read_text()
        ours.write_text(before + text.format(self.fence.uid))
        ours.chmod(0o440 if name == "sudoers" else theirs.stat().st_mode & 0o7777)
        return f"mount --bind {ours} {theirs}"

    def end(self) -> None:
        self.fence.end()
        wait_until(lambda: not self._running(), 60, lambda: str(self._running()))
        shutil.rmtree(self.folder)

    def _running(self) -> list[str]:
        """What works on the folder: conmon, and the podman that it starts to clean up."""
        lines = (path.parent for path in Path("/proc").glob("[0-9]*/cmdline"))
        return [line for folder in lines if str(self.folder) in (line := _words(folder))]


def name_of(seconds: str) -> str:
    """No other test of the machine has a container of that name."""
    return f"sleeps-{seconds}"


def _words(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def podman(fence: Fence) -> Iterator[Podman]:
    require_packages("sudo", "podman")
    found = Podman(fence)
    yield found
    found.end()


def test_a_container_of_rootful_podman_dies_with_its_run_and_nobodys_lives(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, podman: Podman
) -> None:
    airflow_db.add_running("run")
    go = fence.home / "go"
    listener = Listener(airflow_db.url, fence.home, fence=fence.within(told=True, reads=True))
    with Tasks(fence.home) as tasks:
        try:
            listener.start()
            line = f"until [ -e {go} ]; do sleep 0.1; done; {podman.line(OURS)}; exec sleep {REST}"
            podman.types(line, tasks, tasks.environment("dag", "run", "a"))
            podman.types(podman.line(NOBODYS), tasks, {"PATH": os.environ["PATH"]})
            (nobodys,) = wait_for(f"sleep {NOBODYS}", timeout=120)
            listener.wait_until_remembered(1)
            go.touch()
            (ours,) = wait_for(f"sleep {OURS}", timeout=120)
            wait_for(f"sleep {REST}", timeout=120)

            def known() -> bool:
                return ours in {row[0] for row in remembered(listener.state_dir, "labels")}

            if initial:
                wait_until(known, 60, listener.log)
            airflow_db.set_run("failed", "run")
            (report,) = listener.wait_for_reports(1, timeout=120)
            assert not find(f"sleep {REST}"), show(report)
            assert find(f"sleep {NOBODYS}") == [nobodys], show(report)
            lives = bool(find(f"sleep {OURS}"))
            assert not (initial and lives), show(report)
            options = ["--database-url", airflow_db.url, "--airflow-home", str(fence.home)]
            options += ["--state-dir", str(listener.state_dir)]
            said = dagstop("ps", *options, before=fence.within(reads=True)).stdout
            assert f"podman container {name_of(NOBODYS)}:" in said, said
            assert (f"podman container {name_of(OURS)}:" in said) is lives, said
        finally:
            print(listener.log())
            listener.kill()
