"""Files and folders laid over the machine's, in the tests' own mount namespace, which ends with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType


class Overlays:
    """Nothing of the machine changes; `folder` is theirs."""

    def __init__(self) -> None:
        ours, parents = (os.readlink(f"/proc/{pid}/ns/mnt") for pid in ("self", os.getppid()))
        alone = os.environ.get("DAGSTOP_TEST_NAMESPACE") or ours != parents
        assert alone, "run the tests through tests.testbed.namespace, or unshare --mount"
        self.folder = Path(tempfile.mkdtemp(prefix="dagstop-overlays-"))
        self.folder.chmod(0o755)
        self._mounted: list[Path] = []

    def lay(self, path: Path, text: str) -> None:
        """Lay a text over a file, with the file's owner and mode."""
        found, ours = path.stat(), self.folder / path.name
        ours.write_text(text)
        os.chown(ours, found.st_uid, found.st_gid)
        ours.chmod(found.st_mode & 0o7777)
        self._mount(path, "--bind", str(ours))

    def let_in(self, path: Path) -> None:
        """Let any user reach `path`: root's home is usually closed, and Pythons are in it."""
        for number, folder in enumerate(reversed(path.parents)):
            if folder.stat().st_mode & 0o001:
                continue
            if not any(folder.is_relative_to(mounted) for mounted in self._mounted):
                above, work = self.folder / f"above-{number}-{folder.name}", self.folder / f"work-{number}"
                above.mkdir()
                work.mkdir()
                where = f"lowerdir={folder},upperdir={above},workdir={work}"
                self._mount(folder, "-t", "overlay", "overlay", "-o", where)
            folder.chmod(folder.stat().st_mode | 0o011)  # of the layer above

    def _mount(self, onto: Path, *words: str) -> None:
        subprocess.run(["mount", *words, str(onto)], check=True, capture_output=True)
        self._mounted.append(onto)

    def remove(self) -> None:
        """Unmount all, and take the folder away."""
        while self._mounted:
            subprocess.run(["umount", "--lazy", str(self._mounted.pop())], check=True)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Overlays:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
