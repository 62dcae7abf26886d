"""`dagstop check`: is this install able to stop things?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click
import psycopg2
from psycopg2.extensions import connection as Connection

import dagstop
from dagstop import policy
from dagstop.commands.common import (
    Chosen,
    airflow_options,
    database_option,
    json_option,
    print_json,
    print_table,
    uids,
    url_of,
)
from dagstop.commands.looking import containers_of, kernel_tells
from dagstop.config import DEFAULT_DOCKER
from dagstop.database.asking import ask, open_database
from dagstop.database.connection import round_trip
from dagstop.database.failures import READ_ONLY_LOGIN, one_line, remedy
from dagstop.evidence.consent import selectors
from dagstop.evidence.sight import Trial, tried
from dagstop.evidence.site import trusted_uids
from dagstop.evidence.ties import Ties
from dagstop.host.engine import Engine, EngineUnreachable
from dagstop.host.procfs import ProcFS
from dagstop.install.health import GIVE_RIGHTS, TOLD, Finding, in_database
from dagstop.words import counted


@click.command()
@database_option
@airflow_options
@json_option
def check(
    database_url: str | None,
    chosen: Chosen,
    as_json: bool,
) -> None:
    """Check that this installation can stop runs.

    Exits 0 if all checks pass, 1 if not. The rights that it checks are those of its own user: run it
    as the user of the listener.
    """
    selectors(chosen.containers)
    url = url_of(database_url, chosen.airflow_homes)
    connection = open_database(url, "check")
    findings = [*_revision(connection, url), *_writable(connection, url)]
    if all(finding.ok for finding in findings):  # the other questions are put to this release's functions
        findings += [*_round_trip(connection, url), *in_database(connection, url)]
        findings += _podman(connection, url)
    findings += [*_homes(chosen), *_engines(chosen), *_policy(chosen), *_rights(chosen)]
    connection.close()
    good = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": good, "findings": [asdict(finding) for finding in findings]})
    else:
        print_table(
            ["", "WHAT", "SEEN", "TO DO"],
            [[f.word, f.name, f.said, f.do] for f in findings],
            "",
        )
        if sys.stdout.isatty():
            bad = sum(not finding.ok for finding in findings)
            click.echo("\nall is well" if good else f"\n{bad} of {len(findings)} failed")
    sys.exit(0 if good else 1)


def _revision(connection: Connection, url: str) -> Iterator[Finding]:
    from dagstop.install import head

    rows = ask(connection, url, "revision")
    found = rows[0]["version_num"] if rows else "none"
    ok = found == head()
    do = ""
    if not ok:
        do = f"run `dagstop install`: this is dagstop {dagstop.__version__}, which brings {head()}"
    yield Finding("schema", ok, f"revision {found}", do)


def _writable(connection: Connection, url: str) -> Iterator[Finding]:
    if ask(connection, url, "read_only")[0]["read_only"]:
        yield Finding("writing", False, "this login's transactions are read-only", READ_ONLY_LOGIN)


def _round_trip(connection: Connection, url: str) -> Iterator[Finding]:
    channel = f"dagstop_check_{os.getpid()}"
    try:
        with connection.cursor() as cursor:
            cursor.execute(f'listen "{channel}"')
        took = round_trip(connection, url, channel)
    except psycopg2.Error as exc:
        do = remedy(exc).get("do", "see the server's log")
        yield Finding("LISTEN", False, one_line(exc, url), do)
        return
    if took is None:
        yield Finding(
            "LISTEN",
            False,
            "a NOTIFY to this session did not arrive",
            "connect to Postgres directly, or to a pooler in session mode; until then listeners poll",
        )
    else:
        yield Finding("LISTEN", True, f"round trip {took * 1000:.1f} ms")


_OTHER_HOME = "set AIRFLOW_HOME to the one that Airflow uses: a listener recognizes its processes by it"


def _has_config(home: str) -> bool:
    """Whether Airflow has left its configuration there; True too where nobody but others may look."""
    try:
        return os.stat(os.path.join(home, "airflow.cfg")) is not None
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _homes(chosen: Chosen) -> Iterator[Finding]:
    for home in chosen.airflow_homes:
        if not os.path.isdir(home):
            yield Finding("AIRFLOW_HOME", False, f"{home} is not a directory", _OTHER_HOME)
        elif "AIRFLOW_CONFIG" not in os.environ and not _has_config(home):
            yield Finding("AIRFLOW_HOME", True, f"there is no airflow.cfg in {home}", _OTHER_HOME)


def _policy(chosen: Chosen) -> Iterator[Finding]:
    """Warns of a cluster policy of an earlier release, by its file and by what it tagged."""
    do = "replace it with what `dagstop policy` prints, and restart Airflow"
    newest = policy.version(policy.text()) or 0
    for path, found in policy.installed(chosen.airflow_homes):
        if isinstance(found, OSError):
            said = f"{path} cannot be read: {found.strerror}"
            yield Finding("cluster policy", True, said, "run this as root")
        elif found is not None:
            said = f"{path} is of version {found}, this release's is {newest}"
            yield Finding("cluster policy", True, said, do if found < newest else "")
    containers, _ = containers_of(chosen.docker_urls, Ties(ProcFS()))
    old = [container.name for container in containers if container.of_earlier_policy]
    if old:
        said = f"an earlier one tagged {len(old)} containers here, {old[0]} for one: they are spared in doubt"
        yield Finding("cluster policy", True, said, do)


def _engines(chosen: Chosen) -> Iterator[Finding]:
    for docker_url in chosen.docker_urls or (DEFAULT_DOCKER,):
        engine = Engine(docker_url)
        if not engine.exists and not chosen.docker_urls:
            yield Finding("Docker", True, "no engine on this host")
            continue
        try:
            yield Finding(f"Docker {docker_url}", True, f"version {engine.version()}")
        except EngineUnreachable as exc:
            do = "start it, or name another with --docker-url"
            yield Finding(f"Docker {docker_url}", False, str(exc), do)
        finally:
            engine.close()


def _podman(connection: Connection, url: str) -> Iterator[Finding]:
    """Says whether a task's containers of podman die, if there are any containers of it."""
    proc = ProcFS()
    conmons = sum(proc.comm(pid) == "conmon" for pid in proc.pids())
    if not conmons:
        return
    said, do = "a task's die with its run, as processes: the kernel tells of each fork", ""
    if not kernel_tells(ask(connection, url, "listeners")):
        said, do = "a task's are named, not stopped: the listener is not told of forks", TOLD
    yield Finding("podman", True, f"{counted(conmons, 'container')}; {said}", do)


def _rights(chosen: Chosen) -> Iterator[Finding]:
    """What whoever runs this may do with the processes of this host, tried on what is there."""
    of_tasks, others = trusted_uids(chosen.airflow_homes, uids(chosen.task_users)), Trial()
    needed: dict[str, Trial] = {}
    for uid, trial in sorted(tried(ProcFS()).items()):
        if uid in of_tasks:
            needed[f"rights over uid {uid}"] = trial
        else:
            others.add(trial)
    for name, trial in needed.items():
        yield _right(name, trial, trial.good)
    # a user who is not root is not meant to reach others; of root's, those others are the only proof where
    # no task's user has a process
    yield _right("rights over others", others, others.good or bool(needed) or os.geteuid() != 0)


def _right(name: str, trial: Trial, ok: bool) -> Finding:
    said = (
        f"uid {os.geteuid()} can read {trial.read} of {counted(trial.tried, 'process')},"
        f" see the namespace of {trial.placed}, signal {trial.signalled}"
    )
    return Finding(
        name,
        ok,
        said if trial.tried else "there is no process here to try them on",
        "" if ok else _give_rights(),
    )


def _give_rights() -> str:
    """What to do; whoever is not root asks about their own rights, not about those of a listener of root."""
    return GIVE_RIGHTS if os.geteuid() == 0 else f"run this check as the listener's user; {GIVE_RIGHTS}"
