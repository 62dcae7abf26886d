"""`check` says how a listener learns of processes; the listener's own right for that is gone by then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.fence import Fence
from tests.support.listener import Listener, dagstop
from tests.support.marks import one_server, shape_2
from tests.support.watch import wait_until

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]


@pytest.mark.parametrize("allowed", [True, False])
def test_check_says_how_forks_become_known(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, allowed: bool
) -> None:
    with Listener(airflow_db.url, fence.home, fence=fence.within(told=allowed)) as listener:
        query = "select detail ? 'process_events' from dagstop.listener"
        wait_until(lambda: airflow_db.rows(query) == [(True,)], 20, listener.log)
        said = dagstop("check", "--database-url", airflow_db.url, check=False).stdout
        (line,) = [line for line in said.splitlines() if "forks on host-1" in line]
        if initial and allowed:
            assert "the kernel tells of each fork" in line
        else:
            why = "CAP_NET_ADMIN is missing" if initial else "it runs in a pid namespace of its own"
            assert "looks every 0.25 s" in line and why in said.replace("\n", " "), said
        assert listener.process is not None
        (pid,) = [pid for pid in fence.living() if "listen" in Path(f"/proc/{pid}/cmdline").read_text()]
        status = Path(f"/proc/{pid}/status").read_text()
        rights = [
            line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm", "CapAmb"))
        ]
        assert rights == ["0" * 16] * 3
