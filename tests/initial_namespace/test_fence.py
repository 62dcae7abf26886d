"""The fence that all the other tests here rely on."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.conftest import missing
from tests.support.fence import Fence, FenceError
from tests.support.watch import wait_until

pytestmark = pytest.mark.initial_namespace
REFUSED = "Operation not permitted"


def test_a_killer_inside_reaches_only_what_is_inside() -> None:
    try:
        fence = Fence()
    except FenceError as exc:
        missing(exc)
    with subprocess.Popen(["sleep", "100"]) as outside, fence:
        inside = subprocess.Popen([*fence.within(), "sleep", "100"])
        wait_until(lambda: fence.commands() == ["sleep 100"], 10, lambda: str(fence.commands()))

        def kill(allowed: bool, pid: int) -> str:
            within = fence.within(told=allowed, reads=allowed)
            command = [*within, "env", "LC_ALL=C", "kill", "-KILL", str(pid)]
            return subprocess.run(command, cwd="/", capture_output=True, text=True).stderr

        for allowed in (True, False):
            assert REFUSED in kill(allowed, outside.pid) and REFUSED in kill(allowed, os.getpid())
        assert kill(True, inside.pid) == ""
        assert inside.wait(10) == -signal.SIGKILL
        daemon = [*fence.within(), "sh", "-c", "setsid sleep 100 & setsid sleep 100 &"]
        subprocess.run(daemon, check=True)
        wait_until(lambda: fence.commands() == ["sleep 100"] * 2, 10, lambda: str(fence.commands()))
        fence.end()
        assert not fence.living() and outside.poll() is None
        outside.kill()


def test_nobody_inside_gets_more_rights() -> None:
    try:
        fence = Fence()
    except FenceError as exc:
        missing(exc)
    with fence:
        for told, rights in ((True, 1 << 12), (False, 0)):
            command = [*fence.within(told=told), "cat", "/proc/self/status"]
            said = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
            facts = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
            sets = [int(facts[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")]
            assert sets == [rights] * 4 and facts["NoNewPrivs"] == "1", said
