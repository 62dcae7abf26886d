"""What each release left in a database, kept to prove that later ones upgrade it with orders in flight.

`make release-dump`, once a release is ready, writes its folder in expected/releases: a dump for each shape
of Airflow's tables, and the queries that its listeners send.
"""

from __future__ import annotations

from pathlib import Path

import dagstop
from dagstop import sql
from dagstop.install import install
from tests.support.airflow_tables import SHAPES, AirflowDatabase, schema_sql
from tests.testbed.postgres import Server, binaries

FOLDER = Path(__file__).parent / "expected" / "releases"
RELEASES = sorted(path.name for path in FOLDER.iterdir())
LONG = "999999999"  # seconds: what is open in a dump is open whenever a test reads it
# what a DBA has tuned, and keeps
SETTINGS = {
    "settle_seconds": "7", "order_seconds": LONG, "fence_seconds": LONG, "keep_seconds": LONG,
}  # fmt: skip
OPEN_RUN, OPEN_TASK, BEGUN, CLOSED = "open run", "open task", "begun", "closed"
HOST = "host of the dump"
AUDITOR = "dagstop_auditor"  # a role to which a DBA has granted something of ours
READ_ORDERS = "dagstop.open_orders(text, bigint[], integer)"


def restore(server: Server, version: str, shape: str) -> AirflowDatabase:
    """A new database as that release of dagstop left it, on Airflow's tables of that shape."""
    url = server.create_database()
    server.psql(url, _ROLES)
    server.psql(url, (FOLDER / version / f"{shape}.sql").read_text())
    return AirflowDatabase(url, shape)


def queries(version: str) -> dict[str, str]:
    """The named queries of that release."""
    return sql.named((FOLDER / version / "queries.sql").read_text())


_ROLES = f"""
do $$ begin create role dagstop_listener; exception when duplicate_object then null; end $$;
do $$ begin create role {AUDITOR} login; exception when duplicate_object then null; end $$;
"""


def _fill(db: AirflowDatabase) -> None:
    """Orders in flight and done, a refused write, a fault, and a DBA's settings and grants."""
    for name, value in SETTINGS.items():
        db.rows("update dagstop.setting set value = %s where name = %s", (value, name))
    db.rows(
        f"grant usage on schema dagstop to {AUDITOR}; grant select on dagstop.history, dagstop.fault to {AUDITOR};"
        f" grant execute on function {READ_ORDERS} to {AUDITOR}"
    )
    for number, run in enumerate((OPEN_RUN, OPEN_TASK, BEGUN, CLOSED)):
        db.add_running(run, tasks=(f"{run}: a", f"{run}: b"), number=number)
    db.set_task(f"{OPEN_TASK}: a", "failed")
    for run in (OPEN_RUN, BEGUN, CLOSED):
        db.set_run("failed", run)
    db.set_task(f"{OPEN_RUN}: b", "up_for_retry")  # refused
    db.rows("select dagstop.heartbeat(%s, gen_random_uuid(), %s, '{}')", (HOST, dagstop.__version__))
    for run, outcome in ((BEGUN, None), (CLOSED, "stopped")):
        db.rows(
            "select dagstop.write_report(o.id, %s, %s, now(), now(), '{\"processes\": []}')"
            " from dagstop.stop_order o where run_id = %s",
            (HOST, outcome, run),
        )
    db.rows("call dagstop.do_chores()")
    db.rows("insert into dagstop.fault (place, sqlstate, message) values ('fence', '42501', 'of long ago')")
    # a clock that is behind this one's must not see them in its future
    db.rows("update dagstop.stop_order set created_at = '2025-01-01 12:00:00+00'")


def write() -> None:
    """Write the folder of the release that this is."""
    if "dev" in dagstop.__version__:
        raise SystemExit(
            f"{dagstop.__version__} is not a release: set __version__ in listener/dagstop/__init__.py first"
        )
    folder = FOLDER / dagstop.__version__
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "queries.sql").write_text(sql.read("queries"))
    # the oldest server's: later ones read what it writes
    server = Server(binaries()[min(binaries())])
    try:
        for shape in SHAPES:
            db = AirflowDatabase(server.create_database(), shape)
            server.psql(db.url, _ROLES + schema_sql(shape))
            install(db.url)
            _fill(db)
            (folder / f"{shape}.sql").write_text(server.dump(db.url, "--no-owner", data=True) + "\n")
    finally:
        server.stop()


if __name__ == "__main__":
    write()
