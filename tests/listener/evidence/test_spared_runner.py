"""What a runner started is spared with it: whatever it shows itself, and when the runner is gone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import memory
from dagstop.evidence.containers import Client, judge_container
from dagstop.evidence.match import judge
from dagstop.evidence.site import survey
from dagstop.evidence.watch import Watch
from dagstop.host.containers import Container
from dagstop.model import Decision, Verdict
from tests.support.fake_proc import (
    DATE,
    HOME,
    LISTENER,
    ORDERED,
    URL,
    FakeProc,
    at,
    order,
    row,
    tags,
    watch_of,
)

RUNNER, BASH, SLEEP, DAEMON = 500, 510, 511, 520
TITLE = "airflow task runner: d t r 6"


def asked(job: int | None) -> Any:
    return order(
        targets=(row(job_id=job, pid=None),),
        present=(row(job_id=job, pid=None, state="failed"),),
        logical_date=DATE,
    )


def verdicts(proc: FakeProc, watch: Watch, job: int | None = 7) -> dict[int, Verdict]:
    site = survey([HOME], [URL], watch.at_homes(), proc, LISTENER)
    begun = ORDERED - timedelta(seconds=60)
    return {p.pid: judge(asked(job), p, begun, site) for p in watch.labelled()}


@pytest.fixture
def tree(proc: FakeProc, watch: Watch) -> Watch:
    """A runner whose title alone says what it is, with children that name the run and our AIRFLOW_HOME."""
    proc.add(RUNNER, argv=[TITLE])
    proc.add(BASH, ppid=RUNNER, argv=("bash", "-c", "x"), environ=tags())
    proc.add(SLEEP, ppid=BASH, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    proc.add(DAEMON, ppid=RUNNER, argv=("daemon",), environ=tags())
    watch.tick()
    return watch


def test_its_children_are_spared_with_it(proc: FakeProc, tree: Watch) -> None:
    found = verdicts(proc, tree)
    assert {verdict.decision for verdict in found.values()} == {Decision.SPARE}
    assert set(found) == {RUNNER, BASH, SLEEP, DAEMON}
    for pid in (BASH, SLEEP, DAEMON):
        assert f"the runner {RUNNER} that started it is spared: nothing but its title" in found[pid].reason
    known = verdicts(proc, tree, job=6)
    assert {verdict.decision for verdict in known.values()} == {Decision.KILL}


def test_they_are_when_it_is_gone_and_they_left_its_session(proc: FakeProc, tree: Watch) -> None:
    proc.end(RUNNER)
    proc.become(DAEMON, ("daemon", "renamed"))
    proc.end(BASH)
    late = proc.add(530, sid=BASH, pgid=BASH, argv=("sleep", "2"))
    tree.look()
    found = verdicts(proc, tree)
    assert set(found) == {SLEEP, DAEMON, late}
    assert {verdict.decision for verdict in found.values()} == {Decision.SPARE}


def test_they_are_by_the_next_listener_too(proc: FakeProc, tree: Watch, tmp_path: Path) -> None:
    memory.save(tmp_path / "..", "boot", tree.labelled())
    proc.end(RUNNER)
    later = watch_of(proc)
    later.restore(memory.load(tmp_path / "..", "boot").processes)
    later.look()
    found = verdicts(proc, later)
    assert set(found) == {BASH, SLEEP, DAEMON}
    assert {verdict.decision for verdict in found.values()} == {Decision.SPARE}
    assert {verdict.decision for verdict in verdicts(proc, later, job=6).values()} == {Decision.KILL}


def test_a_container_of_its_docker_client_is(proc: FakeProc, tree: Watch) -> None:
    site = survey([HOME], [URL], tree.at_homes(), proc, LISTENER)
    container = Container("c" * 64, "name", "image", 0, at(-10), False, "no", {})
    client = Client("name", None, tree.processes[SLEEP])
    seen = judge_container(asked(7), container, client, at(-10), site)
    assert seen.decision is Decision.SPARE and f"the runner {RUNNER}" in seen.reason
    assert judge_container(asked(6), container, client, at(-10), site).decision is Decision.KILL


@pytest.mark.parametrize("why", ["asks", "user", "namespace", "home"])
def test_whatever_the_reason(proc: FakeProc, watch: Watch, why: str, tmp_path: Path) -> None:
    """Each child says of itself what would have it die, and the next listener knows better, too."""
    runner = ("python", "airflow", "tasks", "run", "d", "t", "r", "--job-id", "7", "--raw")
    environ = {
        "asks": {**tags(), "DAGSTOP_SPARE": "1"},
        "home": {**tags(), "AIRFLOW_HOME": "/srv/b"},
    }.get(why, tags())
    shown: dict[str, dict[str, Any]] = {"user": {"uid": 1000}, "namespace": {"namespace": "pid:[2]"}}
    more = shown.get(why, {})
    proc.add(RUNNER, argv=runner, environ=environ, **more)
    proc.add(BASH, ppid=RUNNER, argv=("bash", "-c", "x"), environ={**tags(), "DAGSTOP_SPARE": "0"})
    proc.add(SLEEP, ppid=BASH, pgid=BASH, sid=BASH, argv=("sleep", "1"))
    watch.look()
    found = verdicts(proc, watch)
    assert {pid: verdict.decision for pid, verdict in found.items()} == dict.fromkeys(
        (RUNNER, BASH, SLEEP), Decision.SPARE
    )
    memory.save(tmp_path / "..", "boot", watch.labelled())
    proc.end(RUNNER)  # and with it goes whatever speaks for its children
    later = watch_of(proc)
    later.restore(memory.load(tmp_path / "..", "boot").everything())
    later.look()
    again = verdicts(proc, later)
    assert {pid: (v.decision, v.reason) for pid, v in again.items()} == {
        pid: (found[pid].decision, found[pid].reason) for pid in (BASH, SLEEP)
    }


def test_an_orphan_that_is_seen_in_the_same_moment_is(proc: FakeProc, watch: Watch) -> None:
    """Its session alone says whose it is: at the first look, not only at the next one."""
    proc.add(RUNNER, argv=("python", "airflow", "tasks", "run", "d", "t", "r", "--job-id", "7", "--raw"),
             environ={**tags(), "DAGSTOP_SPARE": "1"})  # fmt: skip
    proc.add(DAEMON, pgid=RUNNER, sid=RUNNER, argv=("daemon",), environ=tags())
    watch.tick()
    assert verdicts(proc, watch)[DAEMON].decision is Decision.SPARE


def test_a_contradiction_is_remembered(proc: FakeProc, watch: Watch, tmp_path: Path) -> None:
    proc.add(RUNNER, argv=["airflow task runner: d t s 7"])
    proc.add(BASH, ppid=RUNNER, argv=("bash", "-c", "x"), environ=tags())  # which names run r
    watch.look()
    assert verdicts(proc, watch)[BASH].decision is Decision.SPARE
    memory.save(tmp_path / "..", "boot", watch.labelled())
    proc.end(RUNNER)
    later = watch_of(proc)
    later.restore(memory.load(tmp_path / "..", "boot").everything())
    later.look()
    found = verdicts(proc, later)[BASH]
    assert (found.decision, found.reason) == (
        Decision.SPARE,
        f"its run_id differs from that of child of {RUNNER}",
    )


def test_a_home_that_only_its_ancestors_showed_is_remembered(
    proc: FakeProc, watch: Watch, tmp_path: Path
) -> None:
    proc.add(490, argv=["airflow scheduler"], environ={"AIRFLOW_HOME": "/srv/b"})
    proc.add(RUNNER, ppid=490, argv=["airflow task runner: d t r 7"])
    watch.look()
    memory.save(tmp_path / "..", "boot", watch.labelled())
    proc.end(490)
    later = watch_of(proc)
    later.restore(memory.load(tmp_path / "..", "boot").everything())
    later.look()
    found = verdicts(proc, later)[RUNNER]
    assert (found.decision, found.reason) == (Decision.SPARE, "its AIRFLOW_HOME is /srv/b")


def test_what_its_supervisor_starts_beside_it_is_not(proc: FakeProc, watch: Watch) -> None:
    """A supervisor is spared because it ends with its task: that says nothing of what it runs."""
    words = ("python", "airflow", "tasks", "run", "d", "t", "r", "--local")
    proc.add(490, argv=words, environ=tags())
    proc.add(RUNNER, ppid=490, argv=["airflow task runner: d t r 7"])
    proc.add(BASH, ppid=RUNNER, argv=("bash", "-c", "x"), environ=tags())
    watch.look()
    found = verdicts(proc, watch)
    assert [found[pid].decision for pid in (490, RUNNER, BASH)] == [
        Decision.SPARE,
        Decision.KILL,
        Decision.KILL,
    ]
