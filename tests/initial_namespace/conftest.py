"""What these tests share: a fence, and whether the kernel tells of forks where they run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.support.fence import Fence, FenceError


@pytest.fixture
def fence() -> Iterator[Fence]:
    try:
        made = Fence()
    except FenceError as exc:
        missing(exc)
    with made:
        yield made


@pytest.fixture
def initial() -> bool:
    """True in the initial pid namespace (PROC_PID_INIT_INO), of whose processes the kernel tells."""
    return os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"
