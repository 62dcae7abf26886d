"""CeleryExecutor in containers: Redis, a scheduler and a worker of their own, a twin project beside them.

One run is failed while Airflow lives, others once all its processes were SIGKILLed, one after the worker's
container was killed (nothing but a sibling survives that). A task of the same Airflow runs in a pod of its
own, too, which a container imitates. With MATRIX=full the containers are started again, and one more run is
failed; and the twin is a second whole Airflow. In CI it is a container that shows the same from outside.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from dagstop import policy
from tests.conftest import require_packages
from tests.e2e import contained
from tests.e2e.conftest import FULL
from tests.support.listener import Listener, show
from tests.support.watch import DeathWatch, wait_until
from tests.support.workers import HOME, Worker, inner_pid, workers
from tests.testbed import airflows, proc
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server, binaries, connect, rows

pytestmark = pytest.mark.e2e
DAGS = Path(__file__).parent / "contained_celery_dags"
VERSION = "2.11.2-celery"
START_SECONDS, DEATH_SECONDS = 400.0, 60.0
DEAD_RUNS = 5 if FULL else 1  # that are failed once Airflow is dead
DAYS = [f"202401{day:02}00" for day in range(1, DEAD_RUNS + 3)]
ALIVE, DEAD, KILLED = DAYS[0], DAYS[1:-1], DAYS[-1]
AGAIN = "2024010112"
KINDS = {
    "6101": "bash child",
    "6102": "setsid nohup",
    "6103": "env -i",
    "6104": "deaf to SIGTERM",
    "6105": "Python's child",
    "6106": "DockerOperator",
}
SIBLING = "6106"
RUN = "scheduled__2024-01-01T00:00:00+00:00"
HOUR = "to_char(execution_date at time zone 'UTC', 'YYYYMMDDHH24')"
POD = "pod-bash-x7k2p"
TITLE = f"airflow task runner: {{dag}} bash {RUN} 1"


@dataclass
class Project:
    """One Airflow with CeleryExecutor: its containers, and its database as the tests reach it."""

    url: str
    airflow: Path
    worker: Worker
    scheduler: Worker

    def asleep(self, day: str) -> dict[str, int]:
        """By kind, the living sleeps of a run in the worker and in what its tasks started beside it."""
        found = {**self.worker.pids(), **siblings(self.worker)}
        return {
            words.split()[1].partition(".")[0]: pid
            for pid, words in found.items()
            if words.startswith("sleep 610") and words.endswith(f".{day}")
        }

    def states(self, day: str) -> set[tuple[str, str]]:
        text = "select t.state, t.hostname from task_instance t join dag_run r using (dag_id, run_id)"
        return set(rows(self.url, f"{text} where dag_id = 'contained' and {HOUR} = %s", (day,)))

    def said(self) -> str:
        return "\n".join(_log_of(one) for one in self.containers)

    @property
    def containers(self) -> tuple[Worker, Worker]:
        return self.worker, self.scheduler

    def wait_for(self, day: str) -> None:
        running = {("running", self.worker.hostname)}
        done = lambda: self.asleep(day).keys() == KINDS.keys() and self.states(day) == running  # noqa: E731
        wait_until(done, START_SECONDS, lambda: f"{self.asleep(day)} {self.states(day)} {self.said()}")


@dataclass
class Lookalike:
    """A container of another project that shows from outside what a run of ours does, and one beside it."""

    worker: Worker
    beside: Worker

    def living(self) -> dict[int, str]:
        return self.worker.pids() | self.beside.pids() | {self.beside.init: "init"}


@dataclass
class Bench:
    """What a test has: ours, and what of the twin must live."""

    ours: Project
    start: Any  # what `workers` gives
    folder: Path
    venv: Path
    server: Server
    twins: dict[int, str] = field(default_factory=dict)

    def look(self) -> None:
        """Nothing of the twin is gone."""
        gone = {pid: words for pid, words in self.twins.items() if not _alive(pid)}
        assert not gone, gone


def siblings(worker: Worker) -> dict[int, str]:
    """The sleeps in containers that tasks of this worker started, by the tag of the cluster policy."""
    found: dict[int, str] = {}
    for one in proc.everyone():
        if one.state == "Z" or one.command[0] != "sleep" or not one.command[1].startswith(f"{SIBLING}."):
            continue
        try:
            environ = Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0")
        except OSError:  # gone
            continue
        if f"DAGSTOP_HOSTNAME={worker.hostname}".encode() in environ:
            found[one.pid] = " ".join(one.command)
    return found


def _alive(pid: int) -> bool:
    process = proc.read(pid)
    return process is not None and process.state != "Z"


@pytest.fixture(scope="module")
def bench(docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    require_packages("redis-server")
    tmp_path = tmp_path_factory.mktemp("celery")
    venv = airflows.build(VERSION)
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "airflow_local_settings.py").write_text(policy.text())
    started: list[subprocess.Popen[bytes]] = []
    servers: list[Server] = []
    try:
        with workers(docker_engine) as start:
            ours = _project("shop", start, venv, docker_engine, tmp_path, started, servers)
            whole = _project("bank", start, venv, docker_engine, tmp_path, started, servers) if FULL else None
            found = Bench(ours, start, tmp_path, venv, servers[0])
            for day in DAYS:
                ours.wait_for(day)
            if whole is not None:
                for day in DAYS:
                    whole.wait_for(day)
                found.twins = {**whole.worker.pids(), **siblings(whole.worker)}
            else:
                found.twins = _lookalike(start, ours).living()
            yield found
    finally:
        for process in started:
            process.kill()
            process.wait()
        for server in servers:
            server.stop()


def _project(
    name: str,
    start: Any,
    venv: Path,
    engine: Engine,
    folder: Path,
    started: list[subprocess.Popen[bytes]],
    servers: list[Server],
) -> Project:
    server = contained.roomy(Server(list(binaries().values())[-1]))
    servers.append(server)
    server.create_database(name="airflow")
    contained.migrate(venv, server.url("airflow"), VERSION, folder / name)
    dags, sockets = Path(__file__).parent / "contained_celery_dags", folder / f"sockets-{name}"
    shared = contained.shared(venv, server, dags, sockets)
    shared += [
        (str(folder / "policy"), "/srv/policy"),
        (f"{engine.folder}/docker.sock", "/var/run/docker.sock"),
    ]
    with (folder / f"redis-{name}.log").open("ab") as log:
        words = ["redis-server", "--port", "0", "--unixsocket", f"{sockets}/redis.sock"]
        words += ["--unixsocketperm", "777"]
        started.append(subprocess.Popen([*words, "--save", ""], cwd=folder, stdout=log, stderr=log))
    variables = _variables(venv)
    group = str(os.stat(f"{engine.folder}/docker.sock").st_gid)
    shown = {"environment": variables, "shared": shared, "group_add": [group]}
    parts = ("celery worker --skip-serve-logs --without-gossip", "scheduler")
    two = [start(name, init=contained.init(venv, [part]), **shown) for part in parts]
    return Project(server.url("airflow"), venv / "bin" / "airflow", *two)


def _variables(venv: Path) -> dict[str, str]:
    return contained.variables(VERSION, venv, parallelism=64) | {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": f"redis+socket://{contained.SOCKETS}/redis.sock",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{contained.URL}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(3 * len(DAYS) + 3),
        "DAGSTOP_TESTBED_RUNS": str(len(DAYS)),
        "PYTHONPATH": "/srv/policy",
    }


def _lookalike(start: Any, ours: Project) -> Lookalike:
    """The same home, user, URL text, ids, title and tags; not the same container."""
    worker = start("bank", environment={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": contained.URL})
    context = _work_alike(worker, "contained")
    text = "select job_id from task_instance where run_id = %s and task_id = 'docker'"
    ((job,),) = rows(ours.url, text, (RUN,))
    tags = context | {
        "AIRFLOW_CTX_TASK_ID": "docker",
        "DAGSTOP_AIRFLOW_HOME": HOME,
        "DAGSTOP_POLICY": "2",
        "DAGSTOP_HOSTNAME": worker.hostname,
        "DAGSTOP_JOB_ID": str(job),
        "DAGSTOP_PID": str(inner_pid(worker.pid_of("airflow task runner"))),
    }
    return Lookalike(worker, start("whatever", environment=tags))


def _work_alike(worker: Worker, dag: str) -> dict[str, str]:
    """A runner with its bash, of the same ids; what its environment says of them."""
    context = {"AIRFLOW_CTX_DAG_ID": dag, "AIRFLOW_CTX_TASK_ID": "bash", "AIRFLOW_CTX_TRY_NUMBER": "1"}
    context["AIRFLOW_CTX_DAG_RUN_ID"] = RUN
    bash = "setsid nohup sleep 7302 & env -i sleep 7303 & trap '' TERM; sleep 7304; wait"
    worker.run(TITLE.format(dag=dag), bash, **context)
    for words in ("airflow task runner", "sleep 7302", "sleep 7303", "sleep 7304"):
        worker.pid_of(words)
    return context


def _pod(bench: Bench, namespace: str, hostname: str, engine: Engine, **more: Any) -> Worker:
    """A container as a kubelet would start it: no id in its name, its namespace in a file, a kubepods cgroup."""
    account = bench.folder / f"account-{namespace}"
    account.mkdir()
    (account / "namespace").write_text(namespace)
    shared = [*more.pop("shared", ()), (str(account), "/var/run/secrets/kubernetes.io/serviceaccount")]
    group = f"/{engine.folder.name}/kubepods/burstable/pod{uuid.uuid4()}"
    found: Worker = bench.start(None, hostname=hostname, cgroup_parent=group, shared=shared, **more)
    return found


def test_a_task_in_a_pod_of_its_own_dies_with_its_run(
    bench: Bench, docker_engine: Engine, tmp_path: Path
) -> None:
    """As KubernetesExecutor runs it; its supervisor is stopped, so that Airflow can do nothing."""
    ours = bench.ours
    queued = "select 1 from task_instance where dag_id = 'pod' and state = 'queued'"
    wait_until(lambda: rows(ours.url, queued), START_SECONDS, ours.said)
    airflow = bench.venv / "bin" / "airflow"
    # the first process is another one, as dumb-init is in Airflow's image
    init = f"mkdir -p {HOME}/tmp; {airflow} tasks run pod bash {RUN} --local >> {HOME}/out.log 2>&1; exit"
    shared = contained.shared(bench.venv, bench.server, DAGS, bench.folder / "sockets-pod")
    shared.append((str(bench.folder / "policy"), "/srv/policy"))
    pod = _pod(
        bench, "airflow", POD, docker_engine, init=init, shared=shared, environment=_variables(bench.venv)
    )
    same = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": contained.URL}
    twin = _pod(bench, "other", "pod-bash-q4m9z", docker_engine, environment=same)
    _work_alike(twin, "pod")
    bench.twins |= twin.pids()
    wait_until(lambda: len(_asleep_in(pod)) == 4, START_SECONDS, lambda: f"{pod.pids()} {_log_of(pod)}")
    sleeps = _asleep_in(pod)
    recorded = (
        f"select 1 from task_instance where dag_id = 'pod' and state = 'running' and hostname = '{POD}'"
    )
    wait_until(lambda: rows(ours.url, recorded), START_SECONDS, ours.said)
    options = ("--container", "kubernetes=airflow", "--same-database", contained.URL)
    with Listener(ours.url, tmp_path, *options, docker_url="unix:///nowhere") as listener:
        listener.wait_for("verdict=ours", timeout=DEATH_SECONDS)
        listener.wait_until_doubted(5, DEATH_SECONDS)
        (supervisor,) = [p.pid for p in contained.of_airflow(airflow, pod) if p.ppid == pod.init]
        os.kill(supervisor, signal.SIGSTOP)
        _fail(ours, DAYS[0], "pod")
        wait_until(lambda: not any(map(_alive, sleeps)), DEATH_SECONDS, listener.log)
        _judge(_report(listener, DAYS[0], "pod"), bench)
        assert _alive(supervisor) and _alive(pod.init)  # those are not its to kill
        os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: not _alive(pod.init), START_SECONDS, lambda: f"the pod ends by itself: {pod.pids()}")
    assert all(ours.asleep(day).keys() == KINDS.keys() for day in DAYS)


def _asleep_in(pod: Worker) -> list[int]:
    return [pid for pid, words in pod.pids().items() if words.startswith("sleep 620")]


def _log_of(worker: Worker) -> str:
    try:
        _, output = worker.container.exec_run(["tail", "-n", "40", f"{HOME}/out.log"])
    except docker.errors.APIError as exc:  # it has ended
        return str(exc)
    return output.decode(errors="replace")


def test_runs_of_a_celery_worker_die_whoever_else_is_dead(
    bench: Bench, docker_engine: Engine, tmp_path: Path
) -> None:
    ours = bench.ours
    options = ("--container", "compose=shop", "--same-database", contained.URL)
    with Listener(ours.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("verdict=ours", timeout=DEATH_SECONDS)
        listener.wait_until_doubted(5 * len(DAYS), DEATH_SECONDS)  # so many live in the worker
        others = DAYS[1:]

        _fail(ours, ALIVE)
        _gone(ours, ALIVE, listener)
        _judge(_report(listener, ALIVE), bench)
        assert all(ours.asleep(day).keys() == KINDS.keys() for day in others)

        contained.kill(ours.airflow, *ours.containers)
        assert all(ours.asleep(day).keys() == KINDS.keys() for day in others)
        took: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for day in DEAD:
            for kind, seconds in _watched(ours, day, listener).items():
                took[kind].append(seconds)
            _judge(_report(listener, day), bench)
        _print(took)
        assert ours.asleep(KILLED).keys() == KINDS.keys()

        ours.worker.container.kill()
        wait_until(
            lambda: ours.asleep(KILLED).keys() == {SIBLING}, DEATH_SECONDS, lambda: f"{ours.worker.pids()}"
        )
        _fail(ours, KILLED)
        _gone(ours, KILLED, listener)
        report = _report(listener, KILLED)
        _judge(report, bench)
        assert len(report["detail"]["containers"]) == 1, show(report)

        if FULL:
            _start_again(bench, listener)
        bench.look()


def _start_again(bench: Bench, listener: Listener) -> None:
    """The same containers, with the same ids and host names; and one more run."""
    ours = bench.ours
    for one in ours.containers:
        one.container.restart(timeout=1)
        one.container.reload()
        one.init = one.container.attrs["State"]["Pid"]
    trigger = [str(ours.airflow), "dags", "trigger", "contained", "-e", "2024-01-01T12:00:00"]
    code, output = ours.scheduler.container.exec_run(trigger)
    assert code == 0, output.decode()[-3000:]
    ours.wait_for(AGAIN)
    _fail(ours, AGAIN)
    _gone(ours, AGAIN, listener)
    _judge(_report(listener, AGAIN), bench)


def _fail(project: Project, day: str, dag: str = "contained") -> float:
    """When it was committed, as time.monotonic()."""
    with connect(project.url) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute(
                f"update dag_run set state = 'failed' where dag_id = %s and {HOUR} = %s", (dag, day)
            )
            moment = time.monotonic()
        connection.commit()
    return moment


def _gone(project: Project, day: str, listener: Listener) -> None:
    wait_until(
        lambda: not project.asleep(day), DEATH_SECONDS, lambda: f"{project.asleep(day)} {listener.log()}"
    )


def _watched(project: Project, day: str, listener: Listener) -> dict[str, float]:
    """Seconds from the commit to each kind's death."""
    pids = project.asleep(day)
    processes = {kind: one for kind, pid in pids.items() if (one := proc.read(pid)) is not None}
    assert processes.keys() == KINDS.keys()
    with DeathWatch(processes.values()) as watch:
        committed = _fail(project, day)
        wait_until(lambda: not watch.alive(), DEATH_SECONDS, listener.log)
        return {kind: watch.deaths[one.identity] - committed for kind, one in processes.items()}


def _report(listener: Listener, day: str, dag: str = "contained") -> dict[str, Any]:
    """What the listener said of a run's order."""

    def found() -> list[dict[str, Any]]:
        reports = [report for report in listener.reports() if report["kind"] == "run"]
        return [
            report
            for report in reports
            if day in str(report["run_id"]).replace("-", "").replace("T", "") and report["dag_id"] == dag
        ]

    wait_until(found, DEATH_SECONDS, listener.log)
    return found()[0]


def _judge(report: dict[str, Any], bench: Bench) -> None:
    """Nothing but the twin's was spared, and nothing of the twin's died."""
    spared = {item["pid"] for item in report["detail"]["spared"] if "whose" not in item}
    assert spared <= bench.twins.keys(), show(report)
    assert report["outcome"] == ("spared" if spared else "stopped"), show(report)
    bench.look()


def _print(took: dict[str, list[float]]) -> None:
    runs = len(next(iter(took.values())))
    print(f"\nAirflow's processes dead, {runs} runs: ms from commit to death, median (slowest)")
    for kind, seconds in took.items():
        print(f"  {KINDS[kind]:<18}{1000 * statistics.median(seconds):8.1f} ({1000 * max(seconds):.1f})")
    last = [max(run) for run in zip(*took.values(), strict=True)]
    print(f"  {'all of a run':<18}{1000 * statistics.median(last):8.1f} ({1000 * max(last):.1f})")
