"""A machine with a systemd of its own, over a copy of this one's files that vanishes with it.

Pid, mount, host name, IPC and cgroup namespaces, and an overlay on /: what happens inside changes
nothing outside. The network is this machine's, so that a Postgres of the tests can be reached.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_NEEDED = ("null", "zero", "full", "random", "urandom", "tty")
_NOT_STARTED = (
    "systemd-udevd", "systemd-logind", "systemd-networkd", "systemd-resolved", "systemd-timesyncd",
    "systemd-tmpfiles-setup", "systemd-tmpfiles-clean", "docker", "containerd",
)  # fmt: skip
_BOOT = """
set -e
mount -t tmpfs tmpfs {folder}
cd {folder}
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in dev run tmp; do mount -t tmpfs tmpfs $place; done
for node in {needed}; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir dev/shm dev/pts
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for place in {places}; do
    mkdir -p .$place
    mount --bind $place .$place
    mount -o remount,bind,ro .$place
done
chmod a+rx {above}  # of the copy: a user of its own is to reach them
# nothing of what this machine starts at boot, but the job
find etc/systemd/system -name '*.wants' -exec rm -rf {{}} +
rm -f etc/systemd/system/dbus-org.freedesktop.* etc/systemd/system/dagstop.service
for unit in {not_started}; do
    ln -sf /dev/null etc/systemd/system/$unit.service
done
cp {job} etc/systemd/system/job.service
touch job.out
mount --bind {output} job.out
exec env -i container=dagstop PATH=$PATH chroot . /lib/systemd/systemd --system --unit=job.service --log-target=null
"""
_JOB = """
[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
[Service]
Type=oneshot
WorkingDirectory={repository}
Environment={environment}
ExecStart={command}
ExecStopPost=/bin/sh -c 'systemctl --force --force poweroff >/dev/null 2>&1'
StandardOutput=append:/job.out
StandardError=append:/job.out
"""


class SystemdError(RuntimeError):
    """A machine with a systemd of its own cannot be started here."""


def run(command: list[str], seconds: float = 120, **environment: str) -> str:
    """Boot, run the command as root, power off; what it printed. Raises SystemdError."""
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists():
        raise SystemdError("a systemd of its own needs root and Debian's package systemd")
    with tempfile.TemporaryDirectory(prefix="dagstop-systemd-") as name, _cgroup() as group:
        folder = Path(name)
        output, job = folder / "output", folder / "job"
        (folder / "box").mkdir()
        output.touch()
        variables = " ".join(shlex.quote(f"{key}={value}") for key, value in environment.items())
        text = _JOB.format(repository=os.getcwd(), environment=variables, command=shlex.join(command))
        job.write_text(text)
        # an overlay has no other file systems in it, and /tmp is its own
        places = sorted(
            {Path(place).resolve() for place in (os.getcwd(), sys.prefix, sys.base_prefix)} - {Path("/usr")}
        )
        boot = _BOOT.format(
            folder=folder / "box",
            needed=" ".join(_NEEDED),
            not_started=" ".join(_NOT_STARTED),
            places=" ".join(map(str, places)),
            above=" ".join(f".{place}" for place in _above(places)),
            job=job,
            output=output,
        )
        words = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]

        def enter() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        try:
            done = subprocess.run(
                [*words, "sh", "-c", boot],
                preexec_fn=enter,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as exc:
            raise SystemdError(f"not done after {seconds} s: {output.read_text()}") from exc
        if said := output.read_text():
            return said
        raise SystemdError(f"it did not boot: {done.stdout}{done.stderr}")


def _above(places: Sequence[Path]) -> list[Path]:
    """The folders on the way to these, but none within one of them."""
    above = {parent for place in places for parent in place.parents[:-1]}
    return sorted(folder for folder in above if not any(folder.is_relative_to(place) for place in places))


@contextmanager
def _cgroup() -> Iterator[Path]:
    """A cgroup (v2) for the box alone."""
    hierarchy = Path(tempfile.mkdtemp(prefix="dagstop-cgroups-"))
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", hierarchy], check=True)
    group = hierarchy / f"dagstop-test-{uuid.uuid4()}"
    try:
        group.mkdir()
        yield group
        # its pid 1 is dead, and with it all else; the kernel may take a moment to see that
        for _ in range(100):
            _remove(group)
            if not group.exists():
                break
            time.sleep(0.05)
    finally:
        subprocess.run(["umount", "--lazy", hierarchy], check=True)
        hierarchy.rmdir()


def _remove(group: Path) -> None:
    """The folders alone: a cgroup's files go with it."""
    with suppress(OSError):
        for folder in [entry for entry in group.iterdir() if entry.is_dir()]:
            _remove(folder)
        group.rmdir()
