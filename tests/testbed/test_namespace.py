"""The namespace that the tests run in."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.watch import wait_until
from tests.testbed import proc

ROOT = Path(__file__).parents[2]


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.testbed.namespace", "sh", "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_it_gives_the_exit_code_and_shows_only_its_own_processes() -> None:
    with start("echo $$ $DAGSTOP_TEST_NAMESPACE; ls /proc | grep -c '^[0-9]'; exit 7") as process:
        output, _ = process.communicate(timeout=30)
    own_pid, mark, seen = output.split()
    assert (own_pid, mark) == ("2", "1")
    assert int(seen) <= 4  # pid 1, the shell, ls and grep
    assert process.returncode == 7


def test_it_ends_what_the_command_leaves_behind() -> None:
    with start("setsid sleep 7101.5 > /dev/null & sleep 0.1") as process:
        assert process.wait(30) == 0
    assert proc.find("sleep", "7101.5") == []


def test_it_passes_sigterm_on_and_reports_the_signal() -> None:
    with start("echo ready; exec sleep 7102.5") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


def test_it_ends_when_it_is_killed_itself() -> None:
    with start("echo ready; sleep 7103.5") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait(30)
        wait_until(lambda: not proc.find("sleep", "7103.5"), 10, lambda: str(proc.find("sleep", "7103.5")))
