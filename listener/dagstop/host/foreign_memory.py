"""The environment of other users' processes for a listener with CAP_SYS_PTRACE but not root's file rights.

/proc/PID/environ has the mode 0400 of its process's user, which CAP_SYS_PTRACE alone does not overrule;
process_vm_readv(2) asks for that capability only, and reads the same bytes.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_SYS_PTRACE = 1 << 1, 1 << 2, 1 << 19


class _Span(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def parse_capabilities(status: bytes) -> int:
    """CapEff of /proc/PID/status, a hexadecimal mask; 0 where there is none."""
    for line in status.split(b"\n"):
        if line.startswith(b"CapEff:"):
            try:
                return int(line[7:], 16)
            except ValueError:
                return 0
    return 0


def may_trace(status: bytes) -> bool:
    """Whether a process with that /proc/PID/status holds CAP_SYS_PTRACE."""
    return bool(parse_capabilities(status) & _CAP_SYS_PTRACE)


def needed(status: bytes) -> bool:
    """Whether a process with that /proc/PID/status must and may read memory instead of files."""
    held = parse_capabilities(status)
    return bool(held & _CAP_SYS_PTRACE) and not held & (_CAP_DAC_OVERRIDE | _CAP_DAC_READ_SEARCH)


def environment_span(stat: bytes, most: int) -> tuple[int, int]:
    """Address and length in bytes of a process's environment, from /proc/PID/stat; (0, 0) if unknown."""
    rest = stat[stat.rfind(b")") + 2 :].split()
    try:
        begin, end = int(rest[47]), int(rest[48])
    except (IndexError, ValueError):
        return 0, 0
    return (begin, min(end - begin, most)) if 0 < begin < end < 1 << 64 else (0, 0)


def read(pid: int, address: int, length: int) -> bytes:
    """Bytes of a process's memory; none where it is gone or may not be read.

    None either where a part is missing: it may be what tells another Airflow's process from ours.
    """
    into = ctypes.create_string_buffer(length)
    here, there = _Span(ctypes.addressof(into), length), _Span(address, length)
    got = _readv()(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return into.raw if got == length else b""


@lru_cache(maxsize=1)
def _readv() -> Any:
    function = ctypes.CDLL(None, use_errno=True).process_vm_readv
    function.restype = ctypes.c_ssize_t
    spans, number = ctypes.POINTER(_Span), ctypes.c_ulong
    function.argtypes = (ctypes.c_int, spans, number, spans, number, number)
    return function
