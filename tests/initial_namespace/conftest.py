"""What these tests share: a fence, and whether the kernel tells of forks where they run."""

from __future__ import annotations

import pytest

from tests.support.fence import is_initial


@pytest.fixture
def initial() -> bool:
    """Whether the kernel tells of forks here."""
    return is_initial()
