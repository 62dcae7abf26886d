"""What these tests share: a fence, and whether the kernel tells of forks where they run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.support.fence import Fence, FenceError, is_initial


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
    """Whether the kernel tells of forks here."""
    return is_initial()
