"""Every fault of `make chaos`, and its leak test, with a few of everything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import missing, require_packages


@pytest.mark.server
def test_nothing_is_lost_nobody_hurt_and_no_report_untrue() -> None:
    if os.geteuid() != 0:
        missing(RuntimeError("only root can fill disks and drop packets"))
    require_packages("docker.io", "busybox-static", "iptables", "faketime")
    words = ["unshare", "--net", sys.executable, "-m", "tests.chaos", "--small"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
