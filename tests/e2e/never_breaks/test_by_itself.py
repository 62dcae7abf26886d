"""A task that failed by itself: its callback and its mail finish before any of its processes is killed."""

from __future__ import annotations

import pytest

from tests.e2e.kinds import number_of
from tests.e2e.never_breaks.conftest import Mailbox
from tests.e2e.never_breaks.tasks import START_SECONDS
from tests.e2e.site import Site

pytestmark = pytest.mark.e2e


def test_what_fails_by_itself_ends_its_callback_and_its_mail(
    site: Site, mailbox: tuple[Mailbox, int]
) -> None:
    airflow, run = site.airflow, "breaks_6205"
    messages = mailbox[0].messages
    before = len(messages)
    done = airflow.home / "marks" / f"{number_of(run)}-callback_done"
    airflow.trigger("breaks", run)
    airflow.wait_for(done.exists, "through its callback", START_SECONDS)
    airflow.wait_for(lambda: len(messages) > before, "through its mail", START_SECONDS)
    failed = "SELECT 1 FROM dag_run WHERE dag_id = 'breaks' AND state = 'failed'"
    airflow.wait_for(lambda: bool(airflow.query(failed)), "its run failed", START_SECONDS)
    assert airflow.task_states(run) == {"breaks": "failed"}
    assert [message["To"] for message in messages[before:]] == ["ops@example.org"]
    orders = "SELECT 1 FROM dagstop.stop_order WHERE dag_id = 'breaks'"
    assert airflow.query(orders) != []  # there was something that could have cut it short
