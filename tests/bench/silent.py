"""`dagstop` on a host where nobody forks, with a simulated /proc: `python -m tests.bench.silent ROOT listen ...`.

The kernel's filter lets only this process's own forks pass, so that what others do on the machine costs nothing
here, and what is left is what the listener does by itself.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from dagstop import daemon
from dagstop.__main__ import main
from dagstop.host import process_events
from dagstop.host.procfs import ProcFS

_LOAD, _EQUALS, _DONE = 0x20, 0x15, 0x06
_PARENT = 56  # where a fork's parent_tgid is
_ALL, _NOTHING = 0xFFFFFFFF, 0


def own_forks() -> list[tuple[int, int, int, int]]:
    """A classic BPF program: forks of this process only. Words are compared in network order."""
    fork, own = (
        int.from_bytes(struct.pack("=I", value), "big") for value in (process_events.FORK, os.getpid())
    )
    return [
        (_LOAD, 0, 0, 36),
        (_EQUALS, 0, 2, fork),
        (_LOAD, 0, 0, _PARENT),
        (_EQUALS, 1, 0, own),
        (_DONE, 0, 0, _NOTHING),
        (_DONE, 0, 0, _ALL),
    ]


if __name__ == "__main__":
    root = Path(sys.argv.pop(1))
    (root / "self").unlink(missing_ok=True)
    (root / "self").symlink_to(str(os.getpid()))
    process_events._filter = own_forks
    daemon.ProcFS = lambda: ProcFS(str(root))  # type: ignore[attr-defined,assignment,misc]
    main()
