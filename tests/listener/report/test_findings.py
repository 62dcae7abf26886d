"""What a report says of what it names."""

from __future__ import annotations

import os
import subprocess

from dagstop.evidence.watch import Watch
from dagstop.host.procfs import ProcFS
from dagstop.kill.endings import Endings
from dagstop.model import Decision, Verdict
from dagstop.report.findings import CaseFacts, findings
from tests.support.fake_proc import at, order


def test_what_died_before_its_signal_says_so() -> None:
    proc = ProcFS()
    pool = Endings(proc)
    watch = Watch(proc, trusted_uids=frozenset, own_pid=os.getpid())
    child = subprocess.Popen(["sleep", "7603"])
    ending = pool.take(watch.look()[child.pid])
    assert ending is not None
    verdict = Verdict(Decision.KILL, "of the stopped run", ("environment",))
    child.kill()
    child.wait()
    pool.stop(ending, hard=False)
    result = findings(
        CaseFacts(order(), [(ending, verdict)]), pool, lambda moment: moment, lambda process: at(-10), ()
    )
    (item,) = result.processes
    assert item["signals"] == [] and item["died_at"] is not None
    assert item["noticed"] == "ended before it was signalled"
