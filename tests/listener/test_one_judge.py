"""What `explain` says of a host is what a listener there does: on random hosts, always.

Each host has a fake /proc with a past that the listener saw in part, and fake engines. The listener decides in
a dry run; what it writes down is held against the answer of the command.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from dagstop import daemon
from dagstop.cases import case as cases
from dagstop.cases import stopping
from dagstop.commands import explain as explaining
from dagstop.commands import looking
from dagstop.config import ListenerConfig
from dagstop.evidence import cidfiles, places
from dagstop.feed.notices import News
from dagstop.host.containers import Airflow, Container
from dagstop.host.creations import Creations
from dagstop.host.procfs import ProcFS
from dagstop.model import StopOrder, Target
from dagstop.report.findings import Findings
from tests.support.fake_proc import DATE, HOME, UID, URL, RealClock, order, row
from tests.support.random_tests import worlds

URLS = ("unix:///one", "unix:///two")
SELECTOR = "compose=shop"
_CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
FIRST_PID = 5_000_000
"""No process of a real host has it (pid_max is 4194304 at most): nothing real is opened, let alone signalled."""


class Host(RealClock):
    """By whose clock the code under test reckons, too."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.add(os.getpid(), argv=("/opt/dagstop/bin/python", "dagstop", "listen"), start=2, uid=0)
        (root / "self").symlink_to(str(os.getpid()))

    def now_ticks(self) -> int:
        return ProcFS.now_ticks(self)


class FakeEngine:
    """One engine of the host; the same to the listener and to the command."""

    exists = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.has: list[Container] = []
        self.creations = Creations()  # it tells of none

    def running(self, since: float = 0.0) -> list[Container]:
        return list(self.has)

    def listed(self) -> list[Container]:
        return list(self.has)

    def learn(self) -> None:
        self.running()

    def ended(self, since: datetime) -> list[Any]:
        return []

    def close(self) -> None:
        pass


@dataclass
class Past:
    """Makes up a host: what Airflow says of a run, and what lives here, half of it not the run's."""

    random: Random
    proc: Host
    folder: Path
    engines: dict[str, FakeEngine] = field(default_factory=lambda: {url: FakeEngine(url) for url in URLS})
    pid: int = FIRST_PID
    number: int = 0
    supervisors: set[int] = field(default_factory=set)
    living: list[int] = field(default_factory=list)  # that may end
    clients: list[tuple[float, str | None, str | None]] = field(default_factory=list)  # age, name, cidfile

    hosts: list[str] = field(default_factory=list)  # names of containers in which an Airflow runs

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def rows(self) -> tuple[Target, ...]:
        """Task t as it runs now, perhaps after others; task u, which may have ended."""
        number = self.random.choice([1, 1, 2])
        hostname = self.random.choice(["worker", socket.gethostname(), *self.hosts, *self.hosts])
        pid = self.random.choice([FIRST_PID + 3, 31, 32])
        started = datetime.now(timezone.utc) - timedelta(seconds=60)
        t = row("t", job_id=7, try_number=number, pid=pid, hostname=hostname, started_at=started)
        if self.chance(0.2):
            t = replace(t, job_id=None, ti_id=_uuid(7))
        state = self.random.choice(["running", "success", "failed", "up_for_retry"])
        return t, row("u", state, job_id=8, pid=None)

    def add(self, ppid: int, argv: Any, environ: Any, age: float, **more: Any) -> int:
        self.pid += 1
        start = self.proc.ago(age)
        self.proc.add(self.pid, ppid=ppid, argv=argv, environ=environ, start=start, **more)
        self.living.append(self.pid)
        return self.pid

    def worker(self, age: float) -> None:
        """An Airflow in a container: of ours, or of a twin with the same home, user, URL, ids and perhaps name."""
        pick = self.random.choice
        ident = f"{self.random.getrandbits(256):064x}"
        name = pick([ident[:12], ident[:12], "worker", socket.gethostname()])
        inside = {"namespace": f"pid:[{ident[:6]}]", "uid": UID}
        shim = self.add(1, ("containerd-shim",), b"", age + 11, uid=0)
        url = pick([URL, URL, URL.replace("/airflow", "/b"), ""])
        environ = {
            "AIRFLOW_HOME": pick([HOME, HOME, "/srv/b"]), "HOSTNAME": name, **({_CONN: url} if url else {})
        }  # fmt: skip
        init = self.add(shim, (pick(["dumb-init", "sh"]),), environ, age + 10, inner=1, **inside)
        self.living.remove(init)  # a container ends with all that is in it
        (self.proc.path / str(init) / "cgroup").write_text(f"0::/docker/{ident}\n")
        root = self.proc.path / str(init) / "root"
        for folder in ("etc", "opt/airflow", "srv/b"):
            (root / folder).mkdir(parents=True)
        (root / "etc" / "hostname").write_text(f"{name}\n")
        if self.chance(0.2):
            self.proc.refused[(init, "environ")] = errno.EACCES
        moment, project = datetime.now(timezone.utc), pick(["shop", "shop", "bank", None])
        if project is not None:
            facts = Container(ident, f"w{init}", "image", 0, moment, False, "no", {}, project=project)
            self.engines[pick(URLS)].has.append(facts)
        self.hosts.append(name)
        for _ in range(self.random.randrange(1, 3)):
            self.tree(age, init, **inside)

    def tree(self, age: float, root: int = 1, **inside: Any) -> None:
        """Supervisor, runner, bash and what that started, some of which left the tree or say other things."""
        pick = self.random.choice
        home, task = pick([HOME, HOME, HOME, "/srv/b"]), pick(["t", "t", "u"])
        run, job = pick(["r", "r", "r", "s"]), pick([7, 7, 8, 6, 20])
        uid = pick([UID, UID, UID, UID, 1000])
        database = pick([URL, URL, URL.replace("/airflow", "/b"), None])
        of_airflow = {"AIRFLOW_HOME": home}
        if database is not None:
            of_airflow["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database
        names = {
            "AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_TASK_ID": task, "AIRFLOW_CTX_DAG_RUN_ID": run,
            "AIRFLOW_CTX_TRY_NUMBER": str(pick([1, 1, 2])), **of_airflow,
        }  # fmt: skip
        if self.chance(0.2):
            of_airflow["DAGSTOP_SPARE"] = "1"
        both = {**of_airflow, **names}
        shown = pick([of_airflow, of_airflow, b"", both])
        inner = iter(range(29, 99)) if inside else None

        def place(**more: Any) -> dict[str, Any]:
            return {**inside, "inner": next(inner), **more} if inner is not None else more

        scheduler = self.add(root, ["airflow scheduler"], of_airflow, age + 5, **place(uid=uid))
        words = f"['airflow', 'tasks', 'run', 'd', '{task}', '{run}', '--local']"
        supervisor, runner = f"airflow task supervisor: {words}", f"airflow task runner: d {task} {run} {job}"
        if self.chance(0.3):
            supervisor, runner = f"airflow supervisor: {_uuid(job)}", f"airflow worker -- {_uuid(job)}"
        above = self.add(scheduler, [supervisor], shown, age + 1, **place(uid=uid))
        self.supervisors.add(above)
        above = self.add(above, [runner], shown, age, **place(uid=uid))
        for level in range(self.random.randrange(4)):
            environ = pick([names, names, {}, of_airflow, {**names, "AIRFLOW_CTX_DAG_RUN_ID": "s"},
                            {**names, "DAGSTOP_SPARE": pick(["0", "1"])}])  # fmt: skip
            more: dict[str, Any] = place(uid=pick([uid, uid, uid, 0, 1000]))
            if not inside and self.chance(0.1):
                more["namespace"] = "pid:[2]"
            if self.chance(0.4):
                more |= {"pgid": above, "sid": above}
            parent = above if self.chance(0.9) else root
            if self.chance(0.3):
                self.client(parent, environ, max(0.0, age - level - 1), **more)
            above = self.add(parent, ("bash", f"step{level}"), environ, max(0.0, age - level - 1), **more)

    def client(self, ppid: int, environ: Any, age: float, **more: Any) -> None:
        """A docker client; the container that it starts may be there, or another of the same name."""
        name = self.random.choice(["web", "web", "db", None])
        cidfile = str(self.folder / f"cid{self.pid}") if self.chance(0.5) else None
        to = ["-H", self.random.choice(URLS)] if self.chance(0.4) else []
        named = (["--name", name] if name else []) + (["--cidfile", cidfile] if cidfile else [])
        self.add(ppid, ("docker", *to, "run", *named, "image"), environ, age, **more)
        self.clients.append((age, name, cidfile))

    def container(self, age: float) -> None:
        """One with the name of a client's or another, older or newer than that, with tags of whomever."""
        self.number += 1
        ident = f"{self.number:08x}" + f"{self.random.getrandbits(224):056x}"
        engine = self.engines[self.random.choice(URLS)]
        name = self.random.choice([f"n{self.number}", f"calm_euler{self.number}"])  # the engine's own
        if self.clients and self.chance(0.8):
            born, wanted, cidfile = self.random.choice(self.clients)
            age = max(0.0, born + self.random.choice([-0.2, -0.2, -3.0, 3.0, 60.0]))
            name = wanted or name
            if cidfile is not None and self.chance(0.8):
                Path(cidfile).write_text(ident)
        if name in {container.name for container in engine.has}:
            return  # an engine gives each name once
        created = datetime.now(timezone.utc) - timedelta(seconds=age)
        init = self._init(ident, age) if self.chance(0.4) else 0
        airflow = None
        if self.chance(0.15):
            pick = self.random.choice
            airflow = Airflow(pick([HOME, "/srv/b"]), pick([None, "x", "y"]), pick([None, "db/airflow"]))
        tags = self._tags() if airflow is None else {}
        engine.has.append(Container(ident, name, "image", init, created, False, "no", tags, created, airflow))

    def _tags(self) -> dict[str, str]:
        pick = self.random.choice
        if self.chance(0.4):
            return {}
        tags = {
            "AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_TASK_ID": pick(["t", "t", "u"]),
            "AIRFLOW_CTX_DAG_RUN_ID": pick(["r", "r", "r", "s"]), "AIRFLOW_CTX_TRY_NUMBER": pick(["1", "2"]),
            pick(["DAGSTOP_AIRFLOW_HOME", "DAGSTOP_AIRFLOW_HOME", "AIRFLOW_HOME"]): pick([HOME, HOME, "/srv/b"]),
        }  # fmt: skip
        if self.chance(0.7):  # of this release's policy, a twin's perhaps
            tags |= {"DAGSTOP_POLICY": "2", "DAGSTOP_HOSTNAME": pick(["worker", "worker", "elsewhere"])}
            tags |= pick([{"DAGSTOP_JOB_ID": "7"}, {"DAGSTOP_JOB_ID": "20"}, {"DAGSTOP_TI_ID": _uuid(7)}])
        if self.chance(0.15):
            tags["DAGSTOP_SPARE"] = "1"
        return tags

    def _init(self, ident: str, age: float) -> int:
        """Its processes as this host shows them."""
        environ = {**self._tags(), "AIRFLOW_HOME": HOME}
        shim = self.add(1, ("containerd-shim",), b"", age + 1, uid=0)
        init = self.add(shim, ("sleep", "1"), environ, age, uid=UID, namespace="pid:[3]")
        if self.chance(0.8):
            (self.proc.path / str(init) / "cgroup").write_text(f"0::/docker/{ident}\n")
        self.add(init, ("sleep", "2"), environ, age, uid=UID, namespace="pid:[3]")
        return init

    def happens(self, age: float) -> None:
        """Something comes, something goes."""
        for _ in range(self.random.randrange(1, 3)):
            self.tree(age)
        for _ in range(self.random.choice([0, 0, 1, 2])):
            self.worker(age)
        for _ in range(self.random.randrange(4)):
            self.container(age)
        if self.chance(0.3):
            self.client(1, b"", age, uid=1000)  # somebody who asks for the same name
        if not age:
            for pid in self.random.sample(self.living, min(len(self.living), self.random.randrange(5))):
                self.living.remove(pid)
                self.proc.end(pid)
            for engine in self.engines.values():
                engine.has = [one for one in engine.has if one.project is not None or self.chance(0.85)]


def _uuid(job: int) -> str:
    return f"01a2028e-bb1a-7ed7-97b1-{job:012d}"


Answer = dict[str, tuple[str, str]]
"""By "pid N" or a container's name: "kill" or "spare", and why."""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The listener takes no breath between two looks; a --cidfile is where its client says."""
    monkeypatch.setattr(stopping, "SOON", 0.0)
    monkeypatch.setattr(stopping, "GLANCE", 0.0)
    monkeypatch.setattr(cases, "CALM", 0.0)
    monkeypatch.setattr(places, "LISTED", 0.0)  # these engines have listed all that they have
    monkeypatch.setattr(cidfiles, "locate", lambda client: client.cidfile)
    yield


def explained(past: Past, asked: StopOrder, folder: Path, patch: pytest.MonkeyPatch) -> Answer:
    """What the command says."""
    here = {"host_names": [socket.gethostname()], "pid": os.getpid(), "state_dir": str(folder)}
    answers = {"would_be_order": [asked], "listeners": [{"live": True, "detail": here}]}
    patch.setattr(explaining, "open_database", lambda *_: FakeEngine(""))
    patch.setattr(explaining, "ask", lambda _connection, _url, name, **_: answers[name])
    patch.setattr(explaining, "read_order", lambda found: found)
    patch.setattr(explaining, "homes_of", lambda homes, _: tuple(homes))  # which need not be there
    patch.setattr(explaining, "ProcFS", lambda: past.proc)
    patch.setattr(looking, "Engine", lambda url: past.engines[url])
    options = ["--database-url", URL, "--airflow-home", HOME, "--task-user", str(UID), "--json"]
    options += ["--container", SELECTOR]
    for url in URLS:
        options += ["--docker-url", url]
    said = CliRunner().invoke(explaining.explain, ["d", "r", *options], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    names = {f"container {c.id[:12]}": c.name for engine in past.engines.values() for c in engine.has}
    answer: Answer = {}
    for fact in json.loads(said.output)["found"]:
        word = "spare" if fact["verdict"] == "spare" else "kill"
        name = names.get(fact["what"])
        what = fact["what"] if name is None else f"container {name}"
        if fact["what"] not in {f"pid {pid}" for pid in past.supervisors}:  # no report names them
            answer[what] = _both(answer.get(what), (word, fact["why"]))
    return answer


def _both(one: tuple[str, str] | None, other: tuple[str, str]) -> tuple[str, str]:
    """Two engines may each have a container of that name."""
    return (
        other if one is None else ("/".join(sorted((one[0], other[0]))), "/".join(sorted((one[1], other[1]))))
    )


def carried_out(listener: daemon.Daemon, asked: StopOrder, patch: pytest.MonkeyPatch) -> Answer:
    """What the listener would do, by the report that a dry run shows."""
    reports: list[Findings] = []

    def summary(_order: StopOrder, result: Findings, _outcome: str) -> str:
        reports.append(result)
        return ""

    patch.setattr(stopping, "summary", summary)
    listener._stopping.prepare()
    listener._stopping.take(News([asked], (0.0, 0.0), sweep=False, chores=False))
    until = time.monotonic() + 30
    while listener._stopping.under_way and time.monotonic() < until:
        listener._stopping.step()
        time.sleep(0.001)
    (report,) = reports
    assert report.problem is None, report
    answer: Answer = {f"pid {item['pid']}": ("kill", item["why"]) for item in report.processes}
    for item in report.containers:
        what = f"container {item['name']}"
        answer[what] = _both(answer.get(what), ("kill", item["why"]))
    for item in report.spared:
        what = f"pid {item['pid']}" if "pid" in item else f"container {item['container']}"
        answer[what] = _both(answer.get(what), ("spare", item["why"]))
    return answer


def tick(listener: daemon.Daemon) -> None:
    """One look of a listener, with what its threads find."""
    containers = listener._containers
    containers._next_learning = containers._next_tying = 0.0
    listener._tick()
    containers.warm_up()
    for thread in (containers._learning, containers.ties._reading):
        if thread.ident is not None:
            thread.join()
    listener._watch.changed = True
    listener._save()


@pytest.mark.worlds
@pytest.mark.parametrize("seed", worlds(60))
def test_explain_says_what_a_listener_does(seed: int, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "state")
        folder.mkdir()
        Path(base, "proc").mkdir()
        past = Past(Random(seed), Host(Path(base, "proc")), Path(base))
        monkeypatch.setattr(daemon, "Engine", lambda url: past.engines[url])
        config = ListenerConfig(
            URL,
            (HOME,),
            docker_urls=URLS,
            task_users=(UID,),
            state_dir=str(folder),
            dry_run=True,
            containers=(SELECTOR,),
        )
        listener = daemon.Daemon(config, past.proc)
        past.happens(past.random.choice([100.0, 20.0]))
        listener._watch.look()
        tick(listener)
        for _ in range(past.random.randrange(3)):
            time.sleep(0.02)  # two ticks of the host's clock
            past.happens(0.0)
            tick(listener)
        rows, moment = past.rows(), datetime.now(timezone.utc)
        facts = {"created_at": moment, "db_now": moment, "settle_seconds": 0.0, "logical_date": DATE}
        said = explained(past, order(id=None, targets=rows, present=rows, **facts), folder, monkeypatch)
        failed = tuple(replace(one, state="failed" if one.unfinished else one.state) for one in rows)
        done = carried_out(listener, order(targets=rows, present=failed, **facts), monkeypatch)
        assert said == done
