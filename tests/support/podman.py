"""Podman as a task types it, where neither overlays nor systemd may be had."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from tests.testbed.docker_engine import IMAGE, image_archive

PODMAN = "podman --storage-driver vfs --cgroup-manager cgroupfs"
# a limit of its own where root may not raise those of others
LIMITS = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"


def import_image(
    words: str, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> None:
    """The image of the tests' engines, for the podman that these words call; before: what runs them."""
    subprocess.run(
        [*before, *words.split(), "import", "-", IMAGE],
        input=image_archive(), cwd="/", check=True, capture_output=True, env=environment,
    )  # fmt: skip
