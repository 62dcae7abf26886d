"""The network namespace in which the faults are played: a loopback of its own, whose packets may be dropped."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def loopback_up() -> None:
    """Bring `lo` up, as netdevice(7) has it: it is down in a new namespace, where only lo may be."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit(
            "Packets will be dropped: a network namespace of its own, `unshare --net`, is needed"
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP).ljust(40, b"\0"))
