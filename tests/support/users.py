"""Users of a test's own, with a sudo among them. Needs root, and the mount namespace of the tests.

The files that name them lie over the machine's in that namespace only: whatever ends the tests ends the
users.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.support.overlays import Overlays
from tests.support.watch import wait_until
from tests.testbed import proc


class Users:
    """Users by name; `allowed` is what sudoers says of them."""

    def __init__(self, uids: dict[str, int], allowed: Sequence[str]) -> None:
        assert os.environ.get("DAGSTOP_TEST_NAMESPACE"), "run the tests through tests.testbed.namespace"
        self.uids = uids
        self._overlays = Overlays()
        try:
            self._make(allowed)
        except BaseException:
            self.remove()
            raise

    def _make(self, allowed: Sequence[str]) -> None:
        passwd, group, shadow = [], [], []
        for name, uid in self.uids.items():
            home = self._overlays.folder / name
            home.mkdir()
            os.chown(home, uid, uid)
            passwd.append(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n")
            group.append(f"{name}:x:{uid}:\n")
            shadow.append(f"{name}:*:19000:0:99999:7:::\n")
        for name, lines in (("passwd", passwd), ("group", group), ("shadow", shadow)):
            self._overlays.lay(Path("/etc", name), Path("/etc", name).read_text() + "".join(lines))
        self._overlays.lay(Path("/etc/sudoers"), "".join(f"{line}\n" for line in allowed))

    def let_in(self, path: Path) -> None:
        """As `Overlays.let_in`."""
        self._overlays.let_in(path)

    def processes(self, *names: str) -> list[proc.Process]:
        """The processes of these users; of all users, if none is named."""
        uids = {self.uids[name] for name in names or self.uids}
        return [p for p in proc.everyone() if p.state not in "ZX" and _uid(p.pid) in uids]

    def kill(self) -> None:
        """Kill all processes of these users."""
        while left := self.processes():
            proc.send(left, signal.SIGKILL)
            wait_until(lambda: not any(p.alive() for p in left), 10, lambda: f"still there: {left}")

    def remove(self) -> None:
        """End all that runs as these users, and take the files away."""
        try:
            self.kill()
        finally:
            self._overlays.remove()

    def __enter__(self) -> Users:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _uid(pid: int) -> int | None:
    """The real one: sudo's children have changed it by then."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None
