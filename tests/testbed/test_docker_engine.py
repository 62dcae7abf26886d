"""The Docker engine of the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.watch import wait_until
from tests.testbed import proc
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = pytest.mark.usefixtures("docker_engine")  # skips them where there can be none


def test_it_runs_restarts_and_ends_containers_and_leaves_nothing() -> None:
    with Engine() as engine:
        client = engine.client()
        container = client.containers.run(
            IMAGE,
            ["sleep", "7201.5"],
            network_mode="none",
            detach=True,
            restart_policy={"Name": "always"},
        )
        container.reload()
        first = container.attrs["State"]["Pid"]
        os.kill(first, signal.SIGKILL)

        def restarted() -> bool:
            container.reload()
            state = container.attrs["State"]
            return bool(state["Running"] and state["Pid"] not in (0, first))

        wait_until(restarted, 20, lambda: str(container.attrs["State"]))
        engine.halt()
        assert proc.find("sleep", "7201.5"), "a dead engine leaves its containers alone"
        engine.start()
        assert [c.status for c in client.containers.list(ignore_removed=True)] == ["running"]
        client.close()
        folder = engine.folder
    assert proc.find(str(folder)) == []
    assert proc.find("sleep", "7201.5") == []
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
