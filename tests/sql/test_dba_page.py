"""What docs/dba.md tells a DBA to type is taken by psql, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.testbed.postgres import Server

PAGE = Path(__file__).parents[2] / "docs" / "dba.md"


@one_server
@shape_2
def test_each_statement_for_psql_runs(airflow_db: AirflowDatabase, server: Server) -> None:
    (script,) = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    airflow_db.add_run("etl", "1")
    airflow_db.add_task("load", dag_id="etl", run_id="1")
    server.psql(airflow_db.url, script)
    assert airflow_db.one("select state from dag_run") == "failed"
    assert airflow_db.one("select state from task_instance") == "queued"  # the bypass
    settings = dict(airflow_db.rows("select name, value from dagstop.setting"))
    assert (settings["fence_seconds"], settings["grace_seconds:etl"]) == ("120", "60")
