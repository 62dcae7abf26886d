"""What a report says of what it names."""

from __future__ import annotations

import os
import subprocess

from dagstop.evidence.watch import Watch
from dagstop.kill.hunt import Hunt
from dagstop.kill.quarry import Quarries
from dagstop.model import Decision, Verdict
from dagstop.outside.procfs import ProcFS
from dagstop.report import findings
from tests.support.fake_proc import at, order


def test_what_died_before_its_signal_says_so() -> None:
    proc = ProcFS()
    pool, hunt = Quarries(proc), Hunt(order(), grace=10.0)
    watch = Watch(proc, trusted_uids=frozenset, own_pid=os.getpid())
    child = subprocess.Popen(["sleep", "7603"])
    quarry = pool.take(watch.look()[child.pid])
    assert quarry is not None
    hunt.quarries[quarry.identity] = quarry
    hunt.verdicts[quarry.identity] = Verdict(Decision.KILL, "of the stopped run", ("environment",))
    child.kill()
    child.wait()
    pool.stop(quarry, hard=False)
    result = findings(hunt, (), (), None, pool, lambda moment: moment, lambda process: at(-10), ())
    (item,) = result.processes
    assert item["signals"] == [] and item["died_at"] is not None
    assert item["noticed"] == "ended before it was signalled"
