"""What a report says of what it names."""

from __future__ import annotations

import os
import subprocess

from dagstop.evidence.watch import Watch
from dagstop.host.procfs import ProcFS
from dagstop.kill.endings import Endings
from dagstop.kill.hunt import Hunt
from dagstop.model import Decision, Verdict
from dagstop.report.findings import findings
from tests.support.fake_proc import at, order


def test_what_died_before_its_signal_says_so() -> None:
    proc = ProcFS()
    pool, hunt = Endings(proc), Hunt(order(), grace=10.0)
    watch = Watch(proc, trusted_uids=frozenset, own_pid=os.getpid())
    child = subprocess.Popen(["sleep", "7603"])
    ending = pool.take(watch.look()[child.pid])
    assert ending is not None
    hunt.endings[ending.identity] = ending
    hunt.verdicts[ending.identity] = Verdict(Decision.KILL, "of the stopped run", ("environment",))
    child.kill()
    child.wait()
    pool.stop(ending, hard=False)
    result = findings(hunt, (), (), None, pool, lambda moment: moment, lambda process: at(-10), ())
    (item,) = result.processes
    assert item["signals"] == [] and item["died_at"] is not None
    assert item["noticed"] == "ended before it was signalled"
