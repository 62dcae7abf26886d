"""What it costs that the kernel tells of each fork: `python -m tests.bench.told`, as root.

In the initial pid namespace, behind tests.support.fence: the kernel tells of forks only there. Each row is
measured with the kernel's word and without, in turn, in one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dagstop.install import install
from tests.bench.stage import cpu_seconds, resident_mib
from tests.support.airflow_tables import schema_sql
from tests.support.fence import Fence
from tests.support.listener import Listener
from tests.testbed.postgres import Server, binaries

SECONDS = 10.0
SIZES = (400, 5000)
FORKS = 2000  # a second
CROWD = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(int(sys.argv[1])):
    if not os.fork():
        signal.pause()
print("there", flush=True)
signal.pause()
"""
STORM = """
import os, sys, time
rate, began, done = float(sys.argv[1]), time.monotonic(), 0
while True:
    while done < (time.monotonic() - began) * rate:
        try:
            os.posix_spawn("/dev/null/none", ["none"], {})
        except OSError:
            pass
        done += 1
    time.sleep(0.005)
"""


def main() -> None:
    """Print a table; a row is of a core's time."""
    server = Server(binaries()[max(binaries())])
    try:
        url = server.create_database()
        server.psql(url, schema_sql("2.11.2"))
        install(url)
        print(f"{'':44}{'told':>10}{'looks':>10}")
        with Fence() as fence:
            alone = len([name for name in os.listdir("/proc") if name.isdigit()])
            for size in SIZES:
                with _beside(fence, CROWD, str(max(0, size - alone)), until="there"):
                    _row(f"at rest, {size} processes", url, fence)
            with _beside(fence, STORM, str(FORKS)):
                _row(f"beside {FORKS} forks a second", url, fence)
    finally:
        server.stop()


def _row(name: str, url: str, fence: Fence) -> None:
    used: list[str] = []
    for told in (True, False):
        with Listener(url, fence.home, fence=fence.within(told=told)) as listener:
            assert listener.process is not None
            assert ("the kernel tells" in listener.log()) == told, listener.log()
            pid = listener.process.pid
            time.sleep(3)
            before, began = cpu_seconds(pid), time.monotonic()
            time.sleep(SECONDS)
            percent = 100 * (cpu_seconds(pid) - before) / (time.monotonic() - began)
            used.append(f"{percent:.2f} %")
            lost = listener.log().count("process events lost")
            mib = resident_mib(pid)
        listener.log_path.unlink()
        if lost:
            used[-1] += f" ({lost} gaps)"
    print(f"{name:44}{used[0]:>10}{used[1]:>10}   {mib:.0f} MiB", flush=True)


@contextmanager
def _beside(fence: Fence, program: str, argument: str, until: str = "") -> Iterator[None]:
    command = [*fence.within(), sys.executable, "-c", program, argument]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            if until:
                assert process.stdout is not None and process.stdout.readline().strip() == until
            yield
        finally:
            fence.end()


if __name__ == "__main__":
    main()
