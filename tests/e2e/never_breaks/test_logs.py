"""Who caused a deadlock, according to the Postgres log."""

from __future__ import annotations

import pytest

from tests.e2e.never_breaks.logs import deadlocks

LOG = """\
2024-01-02 03:04:04 UTC [727] LOG:  checkpoint starting: time
2024-01-02 03:04:05 UTC [727] ERROR:  deadlock detected
2024-01-02 03:04:05 UTC [727] DETAIL:  Process 727 waits for ShareLock on transaction 7248; blocked by process 1026.
\tProcess 1026 waits for ShareLock on transaction 7262; blocked by process 727.
\tProcess 727: UPDATE task_instance SET state='skipped' WHERE task_instance.task_id = 'b2'
\tProcess 1026: UPDATE dag_run SET {columns} WHERE dag_run.id = 143
2024-01-02 03:04:05 UTC [727] HINT:  See server log for query details.
2024-01-02 03:04:05 UTC [727] CONTEXT:  {context}
2024-01-02 03:04:05 UTC [727] STATEMENT:  UPDATE task_instance SET state='skipped'
\tWHERE task_instance.task_id = 'b2'
2024-01-02 03:04:06 UTC [727] LOG:  checkpoint complete
"""
OWN = "last_scheduling_decision='2024-01-02'::timestamptz, updated_at='2024-01-02'::timestamptz"
TUPLE = 'while updating tuple (15,38) in relation "task_instance"'


@pytest.mark.parametrize(
    ("columns", "context", "told"),
    [
        (OWN, TUPLE, 0),
        (f"state='failed', {OWN}", TUPLE, 1),
        (f"{OWN}, state='failed'", TUPLE, 1),
        (OWN, f"{TUPLE}\n\tPL/pgSQL function dagstop.fence() line 50 at assignment", 1),
    ],
)
def test_only_airflows_own_deadlock_is_passed_over(columns: str, context: str, told: int) -> None:
    found = deadlocks(LOG.format(columns=columns, context=context) * 2)
    assert len(found) == 2 * told
    assert all("Process 727: UPDATE task_instance" in text and "checkpoint" not in text for text in found)
