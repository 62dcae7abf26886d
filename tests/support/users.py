"""Users of a test's own, with a sudo among them. Needs root, and the mount namespace of the tests.

The files that name them lie over the machine's in that namespace only: nothing of the machine changes, and
whatever ends the tests ends the users.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.support.watch import wait_until
from tests.testbed import proc


class Users:
    """Users by name; `allowed` is what sudoers says of them."""

    def __init__(self, uids: dict[str, int], allowed: Sequence[str]) -> None:
        assert os.environ.get("DAGSTOP_TEST_NAMESPACE"), "run the tests through tests.testbed.namespace"
        self.uids = uids
        self._mounted: list[Path] = []
        self._folder = Path(tempfile.mkdtemp(prefix="dagstop-users-"))
        self._folder.chmod(0o755)
        try:
            self._make(allowed)
        except BaseException:
            self.remove()
            raise

    def _make(self, allowed: Sequence[str]) -> None:
        passwd, group, shadow = [], [], []
        for name, uid in self.uids.items():
            home = self._folder / name
            home.mkdir()
            os.chown(home, uid, uid)
            passwd.append(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n")
            group.append(f"{name}:x:{uid}:\n")
            shadow.append(f"{name}:*:19000:0:99999:7:::\n")
        for name, lines in (("passwd", passwd), ("group", group), ("shadow", shadow)):
            self._lay_over(Path("/etc", name), Path("/etc", name).read_text() + "".join(lines))
        self._lay_over(Path("/etc/sudoers"), "".join(f"{line}\n" for line in allowed))

    def _lay_over(self, path: Path, text: str) -> None:
        found, ours = path.stat(), self._folder / path.name
        ours.write_text(text)
        os.chown(ours, found.st_uid, found.st_gid)
        ours.chmod(found.st_mode & 0o7777)
        self._mount(path, "--bind", str(ours))

    def _mount(self, onto: Path, *words: str) -> None:
        subprocess.run(["mount", *words, str(onto)], check=True, capture_output=True)
        self._mounted.append(onto)

    def let_in(self, path: Path) -> None:
        """Whoever it is may go to `path`: root's home is closed as a rule, and Pythons lie in it."""
        for number, folder in enumerate(reversed(path.parents)):
            if folder.stat().st_mode & 0o001:
                continue
            if not any(folder.is_relative_to(mounted) for mounted in self._mounted):
                above, work = self._folder / f"above-{number}-{folder.name}", self._folder / f"work-{number}"
                above.mkdir(), work.mkdir()
                where = f"lowerdir={folder},upperdir={above},workdir={work}"
                self._mount(folder, "-t", "overlay", "overlay", "-o", where)
            folder.chmod(folder.stat().st_mode | 0o011)  # of the layer above

    def processes(self, *names: str) -> list[proc.Process]:
        """All that lives as one of these users; as any of them, if none is named."""
        uids = {self.uids[name] for name in names or self.uids}
        return [p for p in proc.everyone() if p.state not in "ZX" and _uid(p.pid) in uids]

    def kill(self) -> None:
        """End all that runs as these users."""
        while left := self.processes():
            proc.send(left, signal.SIGKILL)
            wait_until(lambda: not any(p.alive() for p in left), 10, lambda: f"still there: {left}")

    def remove(self) -> None:
        """End all that runs as these users, and take the files away."""
        try:
            self.kill()
        finally:
            while self._mounted:
                subprocess.run(["umount", "--lazy", str(self._mounted.pop())], check=True)
            subprocess.run(["rm", "-rf", str(self._folder)], check=True)

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
