"""What the database alone can tell of an install: whether it is whole, and whether a run would be stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import connection as Connection

import dagstop
from dagstop import sql
from dagstop.database.asking import ask
from dagstop.report.words import gap, left
from dagstop.words import ago, counted

_MOST_RUNS = 20

_MOST_LACKING = 3


OBSERVE_ONLY = "observe only"
"""The name of the finding that says that nothing is stopped anywhere."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. Not ok makes the exit code 1; ok with something to `do` is a warning."""

    name: str
    ok: bool
    said: str
    do: str = ""

    @property
    def word(self) -> str:
        return "failed" if not self.ok else "warning" if self.do else "ok"


def in_database(connection: Connection, url: str) -> Iterator[Finding]:
    """What the database alone can tell; the page shows it too."""
    whole = list(_whole(connection, url))
    yield from whole
    if not all(finding.ok for finding in whole):
        return  # the other questions are put to what may be missing
    yield from _left_alone(connection, url)
    yield from _triggers(connection, url)
    yield from _listeners(connection, url)
    yield from _users(connection, url)
    yield from _faults(connection, url)
    yield from _left_running(connection, url)
    yield from _not_clear(connection, url)


def _left_alone(connection: Connection, url: str) -> Iterator[Finding]:
    values = {row["name"]: row["value"] for row in ask(connection, url, "settings")}
    if values.get("observe_only") == "on":
        said = "on: nothing is stopped in this database; orders are only reported on"
        yield Finding(OBSERVE_ONLY, False, said, "once you trust it: `dagstop config observe_only off`")
    if values.get("protected"):
        yield Finding("protected DAGs", True, f"never stopped: {values['protected']}")


def _triggers(connection: Connection, url: str) -> Iterator[Finding]:
    """A line for each that is not as installed; one for each table's others."""
    installed: dict[str, int] = {}
    for row in ask(connection, url, "trigger_health"):
        table, status = row["table_name"], row["status"]
        installed.setdefault(table, 0)
        if status == "installed":
            installed[table] += 1
        else:
            yield Finding(f"trigger {table}.{row['trigger_name']}", False, status, "run `dagstop install`")
    for table, count in installed.items():
        if count:
            yield Finding(f"{table} triggers", True, f"{count} installed")


def _whole(connection: Connection, url: str) -> Iterator[Finding]:
    """Objects, owners, grants and the role: a restore into another server, or a DROP, takes some of them.

    Of owners it says: Airflow's role could borrow the rights of another one by a trigger of its own.
    """
    values = {row["name"]: row["value"] for row in ask(connection, url, "settings")}
    schema = values.get("airflow_schema", "public")
    rows = ask(connection, url, "lacking", file="catalogue", schema=schema, **sql.whole())
    if "listener_role" not in values:  # an installer who may not create roles went without it
        rows = [row for row in rows if row["kind"] != "role"]
    if not rows:
        yield Finding("schema dagstop", True, "whole: objects, owners, grants")
        return
    do = "run `dagstop install`"
    if any(row["kind"] == "role" for row in rows):
        do += ", as a role that may create roles"
    more = f" and {len(rows) - _MOST_LACKING} more" if len(rows) > _MOST_LACKING else ""
    said = ", ".join(row["what"] for row in rows[:_MOST_LACKING]) + more
    yield Finding("schema dagstop", False, f"differs from what an install creates: {said}", do)


def _listeners(connection: Connection, url: str) -> Iterator[Finding]:
    listeners = ask(connection, url, "listeners")
    live = {row["host"] for row in listeners if row["live"]}
    if not live:
        yield Finding("listeners", False, "none is alive", "run `dagstop listen` on each host")
    for row in listeners:
        seen = f"seen {ago(row['seen_at'], row['db_now'])}, version {row['version']}"
        do = "" if row["live"] else f"start it; if the host is gone for good: `dagstop forget {row['host']}`"
        if row["gone"]:
            seen, do = f"gone: {seen}, and Airflow has run no task there since", ""
        if row["live"] and row["version"] != dagstop.__version__:
            do = f"this is {dagstop.__version__}: upgrade it when convenient"
        yield Finding(f"listener {row['host']}", row["live"] or row["gone"], seen, do)
        if row["live"] and (blind := row["detail"].get("could_not_look")):
            yield Finding(f"sight of {row['host']}", False, "; ".join(blind), GIVE_RIGHTS)
        if row["live"] and (refused := row["detail"].get("docker_refused")):
            do = "start the engine, or give the listener's user access to its socket"
            yield Finding(f"Docker of {row['host']}", True, "; ".join(refused), do)
        if row["live"] and (told := row["detail"].get("process_events")) is not None:
            yield _eyes(row["host"], told, row["detail"].get("not_told") or ())
        if row["live"]:
            yield from _containers(row["host"], row["detail"].get("places") or ())
    for row in ask(connection, url, "superuser_listeners"):
        said = f"logs in as superuser {row['role_name']}, so Airflow's role could take over its rights"
        do = "give it a login role that is a member of dagstop_listener"
        yield Finding(f"login of {row['host']}", True, said, do)
    refused = {
        place["hostname"]: f"{place['refused']} (listener {row['host']})"
        for row in listeners
        if row["live"]
        for place in row["detail"].get("places") or ()
        if place["refused"]
    }
    for host in without_listener(listeners, ask(connection, url, "task_hosts")):
        count = f"Airflow runs {host['tasks']} of its tasks there"
        if why := refused.get(host["hostname"]):
            do = "give that listener a --container that names it; see docs/containers.md"
            yield Finding(f"host {host['hostname']}", False, f"{count}, and {why}", do)
            continue
        do = (
            "run `dagstop listen` there (or with --host, if it has another name; for a container, on its"
            " machine with --container); if that host is gone for good, mark those tasks failed in Airflow"
        )
        yield Finding(f"host {host['hostname']}", False, count, do)


def _containers(host: str, places: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """The containers of its machine that the operator named, and what keeps one of them from being ours."""
    # Postgres and Redis of the same compose project run no Airflow
    named = [place for place in places if place["named_by"] and place.get("airflow", True)]
    ours = [place for place in named if not place["refused"]]
    if ours:
        kept = sum(place["kept_by"] is not None for place in ours)
        said = f"{len(ours)} ours" + (f", {kept} of them with a listener of their own" if kept else "")
        yield Finding(f"containers on {host}", True, said)
    for place in named:
        if place["refused"]:
            name = f"container {place['container'] or place['hostname']}"
            do = RIGHTS_INSIDE if place["unread"] else "see docs/containers.md; until then it is spared"
            yield Finding(f"{name} on {host}", False, place["refused"], do)


def _eyes(host: str, told: dict[str, Any], gaps: Sequence[dict[str, Any]]) -> Finding:
    """How its listener learns of processes; a fact, and no fault of the install."""
    name = f"forks on {host}"
    when = f"; nobody was told {gap(gaps[-1])}: reports of tasks that ran then say so" if gaps else ""
    if not told.get("told"):
        why, every = str(told.get("why")), told.get("every", 0)
        said = f"looks every {every:g} s; what leaves its parents between two looks is missed: {why}{when}"
        return Finding(name, True, said, TOLD if "CAP_NET_ADMIN" in why else "")
    said = "the kernel tells of each fork"
    if bursts := told.get("gaps"):
        said += (
            f"; {counted(told['lost'], 'event')} lost in {counted(bursts, 'burst')}, all was looked at then"
        )
    return Finding(name, True, said + when)


def _users(connection: Connection, url: str) -> Iterator[Finding]:
    """What they leave without parents and before a listener saw it, that listener would not believe."""
    for row in ask(connection, url, "listeners"):
        users = row["detail"].get("users_not_told", ())
        if row["live"] and users:
            said = f"tasks run there as {', '.join(users)}, and the listener does not know these users"
            do = "give it " + " ".join(f"--task-user {user}" for user in users)
            yield Finding(f"users on {row['host']}", True, said, do)


def without_listener(listeners: list[dict[str, Any]], hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those rows of query task_hosts that no row of query listeners stands for."""
    known = {name for row in listeners for name in _names(row)}
    return [host for host in hosts if host["hostname"] not in known]


def _names(row: dict[str, Any]) -> set[str]:
    """The names under which Airflow may know a listener's host; localhost is any."""
    return {row["host"], *row["detail"].get("host_names", ()), "localhost", ""}


def _faults(connection: Connection, url: str) -> Iterator[Finding]:
    faults = ask(connection, url, "recent_faults")
    if not faults:
        yield Finding("faults", True, "none in triggers in the last day")
        return
    last = faults[0]
    said = f"{len(faults)} in the last day, the last {ago(last['at'])} in {last['place']}: "
    yield Finding("faults", False, said + last["message"], "read dagstop.fault")


def _left_running(connection: Connection, url: str) -> Iterator[Finding]:
    """No fault of ours, but what an operator wants to know; a task cleared alone leaves such a run too."""
    for row in ask(connection, url, "running_in_failed_runs")[:_MOST_RUNS]:
        said = f"failed, and {row['tasks']} of its tasks run"
        do = "`dagstop stop` stops the run again, unless somebody cleared only these tasks"
        yield Finding(f"run {row['dag_id']} {row['run_id']}", True, said, do)


def _not_clear(connection: Connection, url: str) -> Iterator[Finding]:
    """No fault of the install either: what the latest orders left alive, or did not see dead."""
    for row in ask(connection, url, "not_clear", limit=_MOST_RUNS):
        what = " ".join(str(row[name]) for name in ("dag_id", "run_id", "task_id") if row[name])
        said = f"{what} on {row['host']}: {row['outcome']}: {left(row['detail'])}"
        do = "see `dagstop history` and, on that host, `dagstop explain`; `dagstop stop` stops it again"
        yield Finding(f"order {row['id']}", True, said, do)


TOLD = "run it as root, or with CAP_NET_ADMIN, to be told of each fork"
GIVE_RIGHTS = (
    "run the listener as root, or with CAP_SYS_PTRACE and CAP_KILL "
    "(`docker run --cap-add SYS_PTRACE`), or as the user of the tasks"
)
RIGHTS_INSIDE = (
    "run the listener as root in the machine's own pid namespace, with CAP_SYS_PTRACE, CAP_KILL and"
    " CAP_DAC_OVERRIDE; until then that container is spared"
)
