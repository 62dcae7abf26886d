"""Calls of the kernel that Python has no function for, by number: the same on every architecture."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Any

OPENAT2, PIDFD_GETFD = 437, 438


def call(number: int, *arguments: Any) -> int:
    """What it gives. Raises OSError."""
    found = int(_syscall()(number, *arguments))
    if found < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return found


@lru_cache(maxsize=1)
def _syscall() -> Any:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function
