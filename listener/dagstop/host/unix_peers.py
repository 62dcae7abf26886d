"""Which processes are connected to a unix socket, as the kernel's socket diagnosis tells (sock_diag(7))."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator

_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_SHOW_VFS, _SHOW_PEER = 0x2, 0x4  # what to show, of linux/unix_diag.h
_VFS, _PEER = 1, 2  # and under which attribute that comes
_ERROR, _DONE = 2, 3
_TIMEOUT = 1.0
_HEADER, _MESSAGE = struct.Struct("=IHHII"), 16
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def connected_to(path: str) -> frozenset[int]:
    """Inodes of the sockets whose other end is connected to the one at `path`; none if nobody may say.

    Only those of this network namespace. An accepted socket has the place in the file system of the one that
    accepted it.
    """
    try:
        place = os.stat(path)
        device = os.major(place.st_dev) << 20 | os.minor(place.st_dev)  # as the kernel itself spells it
        return frozenset(
            peer for inode, on, peer in _dump() if (inode, on) == (place.st_ino & 0xFFFFFFFF, device)
        )
    except (OSError, struct.error):
        return frozenset()


def sockets_of(root: str, pid: int) -> frozenset[int]:
    """Inodes of the sockets that a process has open; none if it is gone, or not ours to read."""
    found = set()
    try:
        for name in os.listdir(f"{root}/{pid}/fd"):
            try:
                match = _SOCKET.fullmatch(os.readlink(f"{root}/{pid}/fd/{name}"))
            except FileNotFoundError:
                continue
            if match:
                found.add(int(match.group(1)))
    except OSError:
        pass
    return frozenset(found)


def _dump() -> Iterator[tuple[int, int, int]]:
    """Of each unix socket that has a place and a peer: inode and device of the place, inode of the peer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as asking:
        asking.settimeout(_TIMEOUT)
        # unix_diag_req: family, protocol, states, inode, what to show, cookie
        body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_VFS | _SHOW_PEER, 0, 0)
        asking.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            answer, offset = asking.recv(1 << 16), 0
            while offset < len(answer):
                length, kind, _, _, _ = _HEADER.unpack_from(answer, offset)
                if kind == _DONE:
                    return
                if kind == _ERROR or length < _HEADER.size:
                    raise OSError("no answer from sock_diag")
                yield from _one(answer[offset + _HEADER.size + _MESSAGE : offset + length])
                offset += (length + 3) & ~3


def _one(attributes: bytes) -> Iterator[tuple[int, int, int]]:
    found, offset = {}, 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if length < 4:
            break
        found[kind] = attributes[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    if _VFS in found and _PEER in found:
        inode, device = struct.unpack_from("=II", found[_VFS])
        yield inode, device, struct.unpack_from("=I", found[_PEER])[0]
