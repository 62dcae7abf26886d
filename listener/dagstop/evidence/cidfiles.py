"""What a docker client of a task wrote to its `--cidfile`."""

from __future__ import annotations

import os
import re

from dagstop.evidence.containers import Client

_ID = re.compile(r"[0-9a-f]{64}")


def locate(client: Client) -> str | None:
    """The file's path on this host, asked while the client lives. None: no file, or a root of its own."""
    if client.cidfile is None:
        return None
    try:
        if os.readlink(f"/proc/{client.process.pid}/root") != "/":
            return None
        folder = os.readlink(f"/proc/{client.process.pid}/cwd")
    except OSError:
        return None
    return os.path.join(folder, client.cidfile)


def read(client: Client, path: str | None) -> str:
    """The container's full id; empty if there is none. `path`: where the file is once the client is gone."""
    if client.cidfile is None:
        return ""
    root = f"/proc/{client.process.pid}"
    as_seen = f"{root}/root{client.cidfile}"
    if not client.cidfile.startswith("/"):
        as_seen = f"{root}/cwd/{client.cidfile}"
    return _id_in(as_seen) or (_id_in(path) if path is not None else "")


def _id_in(path: str) -> str:
    try:
        # the path is the task's own word: it may be a FIFO, on which a plain open would hang
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 65).decode("ascii").strip()
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return ""
    return text if _ID.fullmatch(text) else ""
