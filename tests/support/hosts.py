"""Hosts with network, pid, mount and UTS namespaces of their own, plugged into one switch. Needs root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.testbed import proc

ADDRESS = "198.51.100.1"  # TEST-NET-2 of RFC 5737: nobody's
NETWORK = f"{ADDRESS}/24"
HOME = "/srv/airflow"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# pid 1 of a host: names it, gives it a /srv of its own, then only reaps
_INIT = f"""
import os, signal, socket, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
socket.sethostname(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "none", "/srv"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
os.makedirs({HOME!r} + "/tmp")
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


class HostsError(RuntimeError):
    """This machine does not let us make hosts."""


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise HostsError(f"{' '.join(words)}: {done.stderr.strip()}")


class Host:
    """One host: `enter` before a command's words makes it run there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started: list[subprocess.Popen[bytes]] = []
        words = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            [*words, sys.executable, "-c", _INIT, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != b"ready\n":
            raise HostsError(f"host {name} did not come up: {said!r}")
        (self.init,) = (p.pid for p in proc.everyone() if p.ppid == self._process.pid)
        self.enter = ["nsenter", f"--target={self.init}", "--net", "--pid", "--mount", "--uts"]

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Run a command there; it ends with the host."""
        with open(log or os.devnull, "ab") as output:
            process = subprocess.Popen(
                [*self.enter, *words], env={"PATH": os.environ["PATH"], **environment},
                cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self._started.append(process)
        return process

    def stop(self) -> None:
        """End all that runs there."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for process in self._started:
            process.wait(30)  # its command died with the host


class Switch:
    """A network of its own with hosts in it; ADDRESS is its own end of each cable."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise HostsError("only root can make network namespaces")
        missing = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
        if missing:
            raise HostsError(f"no {missing[0]}: apt-get install iproute2 util-linux")
        self.hosts: list[Host] = []
        own = os.readlink("/proc/self/ns/net")
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._namespace = f"/proc/{self._process.pid}/ns/net"
        until = time.monotonic() + 30
        while os.readlink(self._namespace) == own:
            if self._process.poll() is not None or time.monotonic() > until:
                raise HostsError("no network namespace could be made")
            time.sleep(0.01)
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", "switch", "type", "bridge")
        self._ip("addr", "add", NETWORK, "dev", "switch")
        self._ip("link", "set", "switch", "up")

    def _ip(self, *words: str) -> None:
        _run("nsenter", f"--net={self._namespace}", "ip", *words)

    def plug(self, host: Host) -> None:
        """Give a host its cable and its address."""
        self.hosts.append(host)
        self._ip("link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", str(host.init))
        self._ip("link", "set", host.name, "master", "switch", "up")
        address = f"{ADDRESS.rpartition('.')[0]}.{10 + len(self.hosts)}/24"
        _run(*host.enter, "ip", "addr", "add", address, "dev", "eth0")
        _run(*host.enter, "ip", "link", "set", "eth0", "up")

    @contextlib.contextmanager
    def cut_off(self, host: Host) -> Iterator[None]:
        """Inside, the host's packets are dropped silently."""
        self._ip("link", "set", host.name, "nomaster")
        try:
            yield
        finally:
            self._ip("link", "set", host.name, "master", "switch")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Inside, this thread and what it starts are at the switch."""
        with open("/proc/thread-self/ns/net") as own, open(self._namespace) as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def __enter__(self) -> Switch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.hosts:
            host.stop()
        self._process.kill()
        self._process.wait()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise HostsError(f"setns: {os.strerror(ctypes.get_errno())}")
