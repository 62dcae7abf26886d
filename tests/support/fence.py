"""A fence for a killer that sees the whole machine: it runs as a user that nothing else uses.

The kernel tells of forks in the initial pid namespace only, where everything of the machine lives. There a
listener under test has a uid of its own and no CAP_KILL: the kernel itself refuses each signal to whatever
the test did not start as that user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.tasks import Tasks
from tests.support.watch import wait_until

_FIRST = 1_700_000_000  # far from all that a distribution, a container or a directory service gives out


def is_initial() -> bool:
    """True in the initial pid namespace (PROC_PID_INIT_INO), of whose processes the kernel tells."""
    return os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"


class FenceError(RuntimeError):
    """A fence cannot be made here."""


class Fence:
    """A user of the test's own and a folder that is theirs; all their processes end with it."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            raise FenceError("a user of the test's own needs root and Debian's util-linux")
        self.uid = _FIRST + os.getpid()
        if self.living():
            raise FenceError(f"there are processes of uid {self.uid} already")
        self.home = Path(tempfile.mkdtemp(prefix="dagstop-fence-"))
        os.chown(self.home, self.uid, self.uid)
        self.home.chmod(0o755)

    def within(self, *, told: bool = False, reads: bool = False) -> list[str]:
        """The words before a command that is to run inside.

        told: with CAP_NET_ADMIN, to be told of forks. reads: with CAP_SYS_PTRACE, as a listener needs it on
        Airflow 3, whose supervisors nobody may read; it gives no right to signal.
        """
        rights = "-all" + ",+net_admin" * told + ",+sys_ptrace" * reads
        words = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--no-new-privs"]
        return [*words, f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}"]

    def living(self) -> list[int]:
        """The pids of all processes of that user, zombies left out."""
        return [pid for pid in _pids() if self._is_inside(pid)]

    def commands(self) -> list[str]:
        """The command lines of those processes."""
        return [_command(pid) for pid in _pids() if self._is_inside(pid)]

    def end(self) -> None:
        """End them all, by one of them: what is not theirs it cannot signal."""
        end = "kill -KILL -1"  # kill(2): every process that the caller may signal

        def ended() -> bool:
            if self.living():
                subprocess.run([*self.within(), "sh", "-c", end], cwd="/")
            return not self.living()

        wait_until(ended, 20, lambda: f"still there: {self.commands()}")

    def __enter__(self) -> Fence:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        shutil.rmtree(self.home)

    def _is_inside(self, pid: int) -> bool:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return False
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        return str(self.uid) in facts["Uid"].split() and facts["State"].split()[0] not in "ZX"


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except OSError:
        return ""


class FencedTasks(Tasks):
    """Tasks that run as the fence's user."""

    def __init__(self, fence: Fence) -> None:
        super().__init__(fence.home)
        self._fence = fence

    def start(
        self, words: list[str], environment: Mapping[str, str], *, session: bool, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """As `Tasks.start`; the folder is the root where none is named."""
        within: Sequence[str] = self._fence.within()
        return super().start([*within, *words], environment, session=session, folder=folder or Path("/"))
