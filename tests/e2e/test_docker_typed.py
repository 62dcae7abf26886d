"""Bash tasks of a real Airflow that type `docker run` in all its forms, in four runs at one time.

Two of the lines are the same in each run. What is exact dies with its run; what is not lives, and is named.
It runs behind the fence: where the kernel tells of forks (the initial pid namespace), and where it does not.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import FULL, NAMED, VERSIONS
from tests.e2e.kinds import number_of
from tests.e2e.site import Site
from tests.support.counted import CountedSocket
from tests.support.fence import Fence, is_initial
from tests.support.listener import remembered, show
from tests.support.overlays import Overlays
from tests.support.tasks import find
from tests.support.watch import wait_until
from tests.testbed import airflows, proc
from tests.testbed.docker_engine import IMAGE, Engine
from tests.testbed.postgres import Server

pytestmark = [pytest.mark.e2e, pytest.mark.initial_namespace]
TOLD = is_initial()
# in CI one release on each side: a start of an Airflow costs a minute
PLAYED = ("2.11.2", "3.3.2") if FULL or NAMED else ("3.3.2",) if TOLD else ("2.11.2",)
DAGS = Path(__file__).parent / "docker_dags"
CREATE, CREATED, START = b"/containers/create", b" 201 Created", b"/start HTTP"
ALIVE, CLIENTS_KILLED, DEAD, OTHER = RUNS = tuple(f"typed_{number}" for number in (7101, 7102, 7103, 7104))
# how long they sleep, in docker_dags/typed.py: what is always tied, what the kernel's word ties, what may be
# anybody's since each run typed the same
TIED, TIED_IF_TOLD, SAME = (
    ("6081", "6082", "6084", "6085", "6086"),
    ("6083", "6087", "6088"),
    ("6089", "6090"),
)
EXECS = ("6086", "6087")
START_SECONDS, DEATH_SECONDS = 300.0, 60.0


@pytest.fixture
def front(docker_engine: Engine, fence: Fence) -> Iterator[CountedSocket]:
    """The engine for those behind the fence; what it is to create and to start waits until it is released, its answers too."""
    path = fence.home / "docker.sock"
    with CountedSocket(path, docker_engine.url.removeprefix("unix://"), (CREATE, CREATED, START)) as front:
        path.chmod(0o666)
        yield front


@pytest.fixture(params=[version for version in PLAYED if version in VERSIONS])
def site(
    request: pytest.FixtureRequest,
    docker_engine: Engine,
    airflow_server: Server,
    fence: Fence,
    front: CountedSocket,
) -> Iterator[Site]:
    python = airflows.build(request.param) / "bin" / "python"
    with Overlays() as overlays:
        for path in (python, python.resolve(), DAGS / "typed.py"):
            overlays.let_in(path)
        more = {"DOCKER_HOST": front.url, "USER": "airflow", "LOGNAME": "airflow"}
        arguments = (request.param, airflow_server, docker_engine, "typed", DAGS)
        site = Site(*arguments, fence=fence, docker_url=front.url, **more)
        try:
            client = docker_engine.client()
            for name, words in (("busy", ["sleep", "6098"]), ("bystander", ["sleep", "6083.7100"])):
                client.containers.run(
                    IMAGE, words, name=name, detach=True, network_mode="none", user=str(fence.uid)
                )
            client.close()
            site.start()
            yield site
        finally:
            site.stop()


def test_what_is_exact_dies_with_its_run_and_what_is_not_is_named(
    site: Site, fence: Fence, front: CountedSocket
) -> None:
    airflow = site.airflow
    told = "select (detail -> 'process_events' ->> 'told')::boolean as told from dagstop.listener"
    wait_until(lambda: airflow.query(told)[0]["told"] is TOLD, 30, site.listener_log)
    type_lines(site, front)
    before = living(site)
    assert set(before) == {"6098", "6083.7100", *(word for run in RUNS for word in words_of(run))}

    stop(site, ALIVE, before)
    clients = [proc.read(pid) for pid in fence.living() if is_client(pid, CLIENTS_KILLED)]
    assert len(clients) == 4, clients  # the attached ones
    proc.send(filter(None, clients), signal.SIGKILL)
    stop(site, CLIENTS_KILLED, before)
    airflow.sigkill_everything()
    stop(site, DEAD, before)
    assert find(f"sleep 6091.{number_of(OTHER)}")


def type_lines(site: Site, front: CountedSocket) -> None:
    """In all runs at one time: all have asked before anything is created, and all is created before anyone is told.

    Otherwise it would be known whose the first of those is that are the same in each run.
    """
    clients = len(RUNS) * len((*TIED, *TIED_IF_TOLD, *SAME))
    containers = clients - len(RUNS) * len(EXECS)
    site.airflow.trigger_many("typed", RUNS)
    site.airflow.wait_for(lambda: front.asked(CREATE) == containers, "asked for all", START_SECONDS)

    def noted(what: str) -> int:
        return sum(bool(row[what]) for row in remembered(site.folder / "state", "clients"))

    wait_until(lambda: noted("reached") == clients, 60, lambda: f"{noted('reached')}: {site.listener_log()}")
    front.release(CREATE)
    wait_until(lambda: created(site) == containers, 60, lambda: f"{created(site)} of {containers}")
    front.release(CREATED)
    front.release(START)
    wait_until(lambda: living(site).total() == clients + 2, 60, lambda: f"{living(site)}")
    tied = len(RUNS) * len((*TIED, *(TIED_IF_TOLD if TOLD else ())))
    wait_until(lambda: noted("container") == tied, 60, lambda: f"{noted('container')}: {site.listener_log()}")


def words_of(run: str) -> list[str]:
    return [*(f"{name}.{number_of(run)}" for name in (*TIED, *TIED_IF_TOLD)), *SAME]


def living(site: Site) -> Counter[str]:
    """How long all that lives in containers sleeps."""
    lines = [row["Command"] for row in site.client.api.containers()]
    lines += [row[-1] for row in site.client.api.top("busy")["Processes"][1:]]
    return Counter(line.rpartition(" ")[2] for line in lines)


def created(site: Site) -> int:
    """How many containers wait for their start."""
    return sum(row["State"] == "created" for row in site.client.api.containers(all=True))


def is_client(pid: int, run: str) -> bool:
    process = proc.read(pid)
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    of_run = f"AIRFLOW_CTX_DAG_RUN_ID={run}".encode() in environment
    return process is not None and process.command[0] == "docker" and of_run


def stop(site: Site, run: str, before: Counter[str]) -> None:
    """Fail it: of all that lived `before`, less and less, only what is exactly its dies."""
    number, exact = number_of(run), (*TIED, *(TIED_IF_TOLD if TOLD else ()))
    commands = {row["Names"][0][1:]: row["Command"] for row in site.client.api.containers()}
    site.airflow.fail_run_by_sql("typed", run)
    wait_until(lambda: site.reported(run), DEATH_SECONDS, site.listener_log)
    before -= Counter(f"{name}.{number}" for name in exact)
    assert living(site) == before, site.listener_log()
    (order,) = [order for order in site.orders(run) if order["kind"] == "run"]
    assert order["outcomes"] == ["spared"], show(order)
    untied = Counter(commands[name] for name in order["details"][0]["containers_untied"])
    unsure = {f"sleep {name}": before[name] for name in SAME}
    if not TOLD:
        unsure |= {f"sleep {name}.{number}": 1 for name in TIED_IF_TOLD if name not in EXECS}
    assert untied == unsure, show(order)
