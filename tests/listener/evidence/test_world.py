"""A host whose truth is known, its past played through a fake /proc: who is picked, and who must not be.

The truth is what the test built. It asks nothing of the code under test but the verdicts at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dagstop.evidence.index import Index
from dagstop.evidence.match import judge
from dagstop.evidence.site import survey
from dagstop.model import Decision, StopOrder
from tests.support.airflow_trees import CLOBBERED
from tests.support.fake_proc import (
    DATE,
    HOME,
    LISTENER,
    ORDERED,
    UID,
    URL,
    FakeProc,
    at,
    order,
    row,
    tags,
    watch_of,
)

STRANGER = 1000
FORMS = ("1.10.0", "1.10.15", "2.11.2", "3.3.2")
OURS = ("d", "r", "t")


@dataclass
class World:
    """The processes of a host, by what is true of each."""

    proc: FakeProc
    form: str
    mine: set[int] = field(default_factory=set)  # must be picked by an order for the run
    mine_of_u: set[int] = field(default_factory=set)  # the run's too, but of its other task
    spared: dict[int, str] = field(default_factory=dict)  # must never be, and why
    next_pid: int = 300

    def pid(self) -> int:
        self.next_pid += 1
        return self.next_pid

    def tree(
        self, dag: str, run: str, task: str, *, job: int, number: int = 1, home: str = HOME, uid: int = UID,
        depth: int = 2,
    ) -> dict[str, int]:  # fmt: skip
        """Supervisor, runner, bash and its descendants of one try, as that release shows them."""
        date = (DATE if run == "r" else DATE + timedelta(1)).isoformat()
        env = {"AIRFLOW_HOME": home, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": URL}
        child: Mapping[str, str] = {**tags(dag, run, task), "AIRFLOW_CTX_TRY_NUMBER": str(number), **env}
        words = ["python", "/opt/airflow/bin/airflow", "run", dag, task, date]
        uuid = f"01a2028e-bb1a-7ed7-97b1-{job:012d}"
        supervisor: Sequence[str] = [*words, "--local"]
        runner: Sequence[str] = [f"airflow task runner: {dag} {task} {date} {job}"]
        if self.form == "1.10.0":
            runner, child = [*words, "--job_id", str(job), "--raw"], env
        elif self.form == "2.11.2":
            argv = f"['airflow', 'tasks', 'run', '{dag}', '{task}', '{run}', '--local']"
            supervisor = [f"airflow task supervisor: {argv}"]
            runner = [f"airflow task runner: {dag} {task} {run} {job}"]
        elif self.form == "3.3.2":
            supervisor, runner = [f"airflow supervisor: {uuid}"], [f"airflow worker -- {uuid}"]
        shown: Any = env if self.form == "1.10.0" else CLOBBERED
        scheduler = self.proc.add(self.pid(), argv=["airflow scheduler"], environ=env, uid=uid)
        top = self.proc.add(self.pid(), ppid=scheduler, argv=supervisor, environ=shown, uid=uid)
        runs = self.proc.add(self.pid(), ppid=top, argv=runner, environ=shown, uid=uid)
        found = {"scheduler": scheduler, "supervisor": top, "runner": runs}
        above = runs
        for level in range(depth):
            leads = level % 2 == 0  # bash has its own session, what it starts shares it
            above_session: Any = {} if leads else {"pgid": above, "sid": above}
            above = self.proc.add(
                self.pid(), ppid=above, argv=("bash", f"step{level}"), environ=child, uid=uid, **above_session
            )
            found[f"child{level}"] = above
        self.spare(f"the scheduler above {dag} {run} {task}", scheduler)
        self.spare(f"the supervisor of {dag} {run} {task}", top)
        return found

    def spare(self, why: str, *pids: int) -> None:
        self.spared |= dict.fromkeys(pids, why)


def picked(world: World, watch: Any, asked: StopOrder, now: int) -> set[int]:
    """Whom the listener would signal, by the same steps as it takes."""
    processes = watch.processes
    site = survey([HOME], [URL], processes.values(), world.proc, LISTENER)
    found = set()
    for process in Index(watch.labelled(), lambda p: p.label).of(asked):
        started = ORDERED + timedelta(seconds=(process.identity.start - now) / 100)
        if judge(asked, process, started, site).decision in {Decision.KILL, Decision.SETTLE}:
            found.add(process.pid)
    return found


def recorded(world: World, tree: dict[str, int], task: str, job: int, **more: Any) -> Any:
    """The task instance's row as that release writes it: 1.10 knows the supervisor, later ones the runner."""
    uuid = f"01a2028e-bb1a-7ed7-97b1-{job:012d}" if world.form == "3.3.2" else None
    pid = tree["supervisor"] if world.form.startswith("1.10") else tree["runner"]
    return row(task, pid=pid, job_id=None if uuid else job, ti_id=uuid, **more)


OTHERS = ("another run", "another dag", "another Airflow", "a stranger's", "another task", "a later try")


@settings(max_examples=40)
@given(
    form=st.sampled_from(FORMS),
    others=st.permutations(OTHERS).flatmap(lambda all_: st.integers(0, 6).map(lambda n: all_[:n])),
    depth=st.integers(1, 4),
    dead=st.sets(st.sampled_from(["supervisor", "runner", "child0", "child1"])),
    kind=st.sampled_from(["run", "task"]),
    unseen=st.booleans(),
)
def test_the_runs_own_and_nobody_elses(
    form: str, others: list[str], depth: int, dead: set[str], kind: str, unseen: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(FakeProc(Path(folder)), form)
        proc = world.proc
        watch = watch_of(proc)
        mine = world.tree(*OURS, job=7, depth=depth)
        world.mine |= {pid for name, pid in mine.items() if name not in {"scheduler", "supervisor"}}
        targets = [recorded(world, mine, "t", 7)]
        present = [recorded(world, mine, "t", 7, state="failed")]
        for number, what in enumerate(others):
            job = 20 + number
            if what == "another run":
                world.spare(what, *world.tree("d", "s", "t", job=job).values())
            elif what == "another dag":
                world.spare(what, *world.tree("e", "r", "t", job=job).values())
            elif what == "another Airflow":  # the very same ids; its job ids are its own
                world.spare(what, *world.tree(*OURS, job=job, home="/srv/b").values())
            elif what == "a stranger's":
                world.spare(what, *world.tree(*OURS, job=job, uid=STRANGER).values())
            elif what == "another task":
                tree = world.tree("d", "r", "u", job=job)
                world.mine_of_u |= {
                    pid for name, pid in tree.items() if name not in {"scheduler", "supervisor"}
                }
                targets.append(recorded(world, tree, "u", job))
                present.append(recorded(world, tree, "u", job, state="failed"))
            if number % 2:
                watch.tick()
        services(world)
        watch.tick()
        watch.look()
        for name in sorted(dead & mine.keys()):  # SIGKILLed: what they started lives on
            proc.end(mine[name])
            world.mine.discard(mine[name])
            world.spared.pop(mine[name], None)
            if unseen:
                watch.tick()
        ordered_at = proc.now
        if "a later try" in others:
            proc.now += 3000
            tree = world.tree(*OURS, job=50, number=2)
            world.spare("a later try", *tree.values())
            targets[0] = recorded(world, mine, "t", 7, released_at=at(5))
            present[0] = recorded(world, tree, "t", 50, state="running", try_number=2, started_at=at(29))
        watch.look()
        watch.look()
        rows = 1 if kind == "task" else len(targets)  # a task's order has that task's row only
        asked = order(
            kind=kind, task_id="t" if kind == "task" else None, map_index=-1 if kind == "task" else None,
            targets=tuple(targets[:rows]), present=tuple(present[:rows]), db_now=at(60),
        )  # fmt: skip
        found = picked(world, watch, asked, ordered_at)
        assert {pid: world.spared[pid] for pid in found & world.spared.keys()} == {}
        wanted = world.mine | (world.mine_of_u if kind == "run" else set())
        assert found == wanted, (found - wanted, wanted - found)


def services(world: World) -> None:
    """What bears the run's own names and is never to die."""
    proc, env = world.proc, tags()
    world.spare("pid 1 and the listener", 1, LISTENER)
    world.spare("pid 2", proc.add(2, ppid=0, argv=("kthreadd",), environ=env, start=1, uid=0))
    shell = proc.add(80, argv=("bash",), environ=env, start=1)
    world.spare("an ancestor of the listener", shell)
    proc.become(LISTENER, ("dagstop", "listen"), env)
    proc._stat(LISTENER, "S", [shell, LISTENER, LISTENER], 2)
    for name in ("/usr/sbin/sshd", "postgres: airflow", "/usr/bin/dockerd", "airflow triggerer"):
        daemon = proc.add(world.pid(), argv=(name,), environ=env)
        child = proc.add(world.pid(), ppid=daemon, argv=("bash",), environ=env)
        world.spare(f"{name} and its child", daemon, child)
    world.spare("another pid namespace", proc.add(world.pid(), argv=("x",), environ=env, namespace="pid:[2]"))
    world.spare("a stranger with the names", proc.add(world.pid(), argv=("x",), environ=env, uid=STRANGER))
    other_home = {**env, "AIRFLOW_HOME": "/srv/b"}
    world.spare("another home", proc.add(world.pid(), argv=("x",), environ=other_home))
    other_db = {**env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": URL.replace("/airflow", "/b")}
    world.spare("another database", proc.add(world.pid(), argv=("x",), environ=other_db))
