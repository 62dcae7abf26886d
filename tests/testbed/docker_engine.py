"""A real Docker engine for the tests, on a socket and in a folder of its own. Needs root."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker

IMAGE = "dagstop-test"
_PACKAGES = {"dockerd": "docker.io", "containerd": "containerd", "busybox": "busybox-static"}
_LINKS = ("sh", "sleep", "true", "false", "cat", "echo", "kill", "ps", "env", "ls", "setsid")


class EngineError(RuntimeError):
    """The Docker engine of the tests cannot be started."""


class Engine:
    """dockerd with the image `dagstop-test`; `url` is what DOCKER_HOST would be. `stop()` it."""

    def __init__(self, start_timeout: float = 120) -> None:
        missing = [package for name, package in _PACKAGES.items() if shutil.which(name) is None]
        if missing:
            names = " ".join([*missing, "iptables"])
            raise EngineError(f"no Docker engine here: apt-get install {names}")
        if os.geteuid() != 0:
            raise EngineError("the Docker engine of the tests needs root")
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-docker-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[Path] = set()
        try:
            self.start(start_timeout)
            self._make_image()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self) -> docker.DockerClient:
        """A client of the Docker SDK; close it."""
        return docker.DockerClient(base_url=self.url, timeout=30)

    def start(self, timeout: float = 120) -> None:
        """Start the engine (again, after `halt`): the same socket, the same containers."""
        end = time.monotonic() + timeout
        self._process = self._begin()
        while not self._answers():
            if time.monotonic() > end:
                raise EngineError(f"dockerd does not start:\n{self.log()[-3000:]}")
            if self._process.poll() is not None:  # it waits 15 s for its containerd, no longer
                (self.folder / "pid").unlink(missing_ok=True)
                self._process = self._begin()
            time.sleep(0.05)

    def _begin(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/pid",
                    f"--host={self.url}",
                    "--bridge=none",
                    "--iptables=false",
                    "--live-restore",
                    f"--cgroup-parent=/{self.folder.name}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def halt(self) -> None:
        """End the engine with SIGKILL, as an accident would; containers and shims live on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            (self.folder / "pid").unlink(missing_ok=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped meanwhile (SIGSTOP): it takes connections and answers none, so that clients wait for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the engine, containerd, the shims, all containers; unmount and remove everything."""
        if self._process is not None:
            if self._process.poll() is None and self._answers():
                self.remove_containers()
                self._process.send_signal(signal.SIGTERM)
                try:
                    self._process.wait(20)
                except subprocess.TimeoutExpired:
                    pass
            self.halt()
            self._process = None
        self._end_processes()
        self._unmount()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_control_groups()

    def log(self) -> str:
        """What dockerd printed."""
        return (self.folder / "log").read_text(errors="replace")

    def _answers(self) -> bool:
        # not through the SDK: it leaves its socket to the garbage collector when nobody answers
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(f"{self.folder}/docker.sock")
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in probe.recv(64)
            except OSError:
                return False

    def remove_containers(self) -> None:
        """All that there are, also those that run."""
        client = self.client()
        try:
            for container in client.containers.list(all=True, ignore_removed=True):
                try:
                    container.remove(force=True)
                except docker.errors.APIError:  # one with --rm goes by itself
                    pass
        finally:
            client.close()

    def _make_image(self) -> None:
        client = self.client()
        try:
            client.api.import_image_from_data(image_archive(), repository=IMAGE, tag="latest")
        finally:
            client.close()

    def _end_processes(self) -> None:
        """SIGKILL whatever still names our folder in its command line, and its descendants."""
        end = time.monotonic() + 10
        while left := _family_of(str(self.folder)):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if time.monotonic() > end:
                raise EngineError(f"cannot end {left}")
            time.sleep(0.05)

    def _unmount(self) -> None:
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in sorted(points, reverse=True):
            if point.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", point], check=False)

    def _remove_control_groups(self) -> None:
        root = Path("/sys/fs/cgroup")
        for top in (root / self.folder.name, *root.glob(f"*/{self.folder.name}")):
            # bottom-up; others' groups come and go in between, and so do these
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    pass


def image_archive() -> bytes:
    """The files of the image, as a tar archive."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in _LINKS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "proc", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    return archive.getvalue()


def _family_of(marker: str) -> Sequence[int]:
    """Living processes that name `marker` in their arguments, and their descendants."""
    parents: dict[int, int] = {}
    family: set[int] = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        pid = int(name)
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if fields[0] == "Z" or pid == os.getpid():
            continue
        parents[pid] = int(fields[1])
        if marker in command:
            family.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family)
