"""Every form in which a task types a container, failed in every state: what is exact dies, the rest is named.

All forms are typed at one time, each in a run of its own; before that, each was typed once by a twin, a task
of a run that goes on. Where the kernel does not tell of forks less is exact.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from tests.conftest import require_packages
from tests.support.airflow_tables import AirflowDatabase
from tests.support.counted import CountedSocket
from tests.support.fence import Fence, FencedTasks
from tests.support.listener import Listener, dagstop, remembered, show
from tests.support.marks import one_server, shape_2
from tests.support.podman import LIMITS, PODMAN, import_image
from tests.support.tasks import find, wait_for
from tests.support.watch import wait_until
from tests.testbed import proc
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]
_HERE = "$HOME/$AIRFLOW_CTX_DAG_RUN_ID"
_NEW = f"--network none {IMAGE} sleep"
LINES = {
    "run": f"docker run {_NEW} {{}}",
    "run_rm": f"docker run --rm {_NEW} {{}}",
    "run_d": f"docker run -d {_NEW} {{}}",
    "run_d_name": f"docker run -d --name $AIRFLOW_CTX_DAG_RUN_ID {_NEW} {{}}",
    "run_d_cidfile": f"docker run -d --cidfile {_HERE}/cid {_NEW} {{}}",
    "create_start": f"docker start $(docker create {_NEW} {{}})",
    "exec": "docker exec busy sleep {}",
    "exec_d": "docker exec -d busy sleep {}",
    "up_d": f"cd {_HERE}; docker-compose up -d",
    "up": f"cd {_HERE}; PYTHONUNBUFFERED=1 docker-compose up > out.txt 2>&1",
    "podman": f"{PODMAN} run -d {LIMITS} {_NEW} {{}}",
}
"""By the run that types it; {} is how long its container sleeps."""
SECONDS = {form: f"{7801 + number}.{os.getpid()}" for number, form in enumerate(LINES)}
BUSY_SECONDS, REST = f"7800.{os.getpid()}", f"sleep 7899.{os.getpid()}"
EXECS, UPS = ("exec", "exec_d"), ("up_d", "up")
ATTACHED = ("run", "run_rm", "exec", "up")
BY_DOCKER = tuple(form for form in LINES if form != "podman")
CREATE, START, EXEC = b"/containers/create", b"/start HTTP", b"/exec HTTP"
GATES = {
    CREATE: sum(form not in EXECS for form in BY_DOCKER),
    EXEC: len(EXECS),
    START: len(BY_DOCKER),
}
"""What each form's client asks for on its way, and how many of them do."""
State = Literal["Airflow alive", "Airflow dead", "client killed first"]
Fate = Literal["dead", "named", "dead or named", "untold"]
"""untold: it lives, and the report says from when to when nobody was told what the tasks started, and lists
it as begun then."""
BUSY = (
    *("another client", "ended unread", "another program", "not every process", "still at work"),
    "do not reach back",
)
"""Why an `up` is not certain to have created a container if much else goes on on this machine."""
PATIENCE = 10.0
"""Seconds until an `up` that is not certain is taken for one that stays so."""
EXPLAINED = ("run_d", "exec_d", "podman")
"""Of which `explain` is asked: it takes a second for each."""


def fates(told: bool, state: State, late: bool) -> dict[str, Fate]:
    """What is to become of the container, or the process, of each form."""
    killed = state == "client killed first"
    found: dict[str, Fate] = dict.fromkeys(LINES, "named")
    if late:  # a client that is gone was seen by nobody
        found |= dict.fromkeys(BY_DOCKER, "untold")
        return found if killed else found | dict.fromkeys(ATTACHED, "dead")
    # seen to reach its engine and to create; by its name or id, whatever became of its client
    found |= dict.fromkeys(("run", "run_rm", "run_d_name", "run_d_cidfile", "exec"), "dead")
    if not killed:
        found["up"] = "dead"  # compose ends its project by itself
    if told:
        found |= {"create_start": "dead", "podman": "dead"}
        found |= dict.fromkeys(() if killed else ("run_d", "exec_d"), "dead")  # an exit is the proof
        found |= dict.fromkeys(UPS if killed else ("up_d",), "dead or named")
    else:
        found["podman"] = "dead or named"  # a look may meet its conmon before podman has let it go
    return found


class World:
    """The engine, the tasks of all runs, and their twins."""

    def __init__(self, db: AirflowDatabase, fence: Fence, front: CountedSocket, tasks: FencedTasks) -> None:
        self.db, self.fence, self.front, self.tasks = db, fence, front, tasks
        self.twins: dict[str, int] = {}  # by form, the pid of what sleeps
        self.ours: dict[str, int] = {}

    def type_twins(self) -> None:
        """All at once, and to the end."""
        self._type("twin_", alive=False)
        for form in LINES:
            (self.twins[form],) = wait_for(f"sleep {SECONDS[form]}", timeout=120)
        self._wait_for_rest(len(LINES) - len(ATTACHED))

    def type_ours(self, alive: bool, seen: Callable[[], None], kill: Callable[[], None]) -> None:
        """The same; `seen` is called once all have asked for something, `kill` before anything is started."""
        before = {words: self.front.asked(words) for words in GATES}
        for words in GATES:
            self.front.hold(words)
        self._type("", alive=alive)
        for words in (CREATE, EXEC):
            self._wait_for_asked(words, before)
        seen()
        for words in (CREATE, EXEC):
            self.front.release(words)
        self._wait_for_asked(START, before)
        kill()
        self.front.release(START)
        for form in LINES:
            both = wait_for(f"sleep {SECONDS[form]}", 2, timeout=120)
            (self.ours[form],) = set(both) - {self.twins[form]}
        self._wait_for_rest(2 * (len(LINES) - len(ATTACHED)))
        said = self.fence.home / "up" / "out.txt"
        wait_until(lambda: "Attaching to" in said.read_text(), 60, said.read_text)

    def kill(self, forms: Sequence[str]) -> None:
        """SIGKILL the clients of these."""
        for pid in self._clients(forms):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self._clients(forms), 20, lambda: str(self.fence.commands()))

    def _type(self, prefix: str, alive: bool) -> None:
        number = self.db.one("select count(*) from dag_run")
        for form, line in LINES.items():
            run = prefix + form
            self.db.add_running(run, number=number)
            number += 1
            folder = self.fence.home / run
            folder.mkdir()
            folder.chmod(0o777)
            (folder / "docker-compose.yml").write_text(COMPOSE.format(self.fence.uid, SECONDS[form]))
            environ = self.tasks.environment("dag", run, "a", **environment(self.fence, self.front))
            words = f"{line.format(SECONDS[form])}; exec {REST}"
            if alive:
                self.tasks.runner(f"airflow task runner: dag a {run} 7", words, **environ)
            else:
                self.tasks.bash(words, environ)

    def _wait_for_asked(self, words: bytes, before: dict[bytes, int]) -> None:
        def asked() -> int:
            return self.front.asked(words) - before[words]

        wait_until(lambda: asked() == GATES[words], 120, lambda: f"{words!r}: {asked()} of {GATES[words]}")

    def _wait_for_rest(self, count: int) -> None:
        """Until the detached clients have ended: their tasks go on."""
        wait_until(lambda: len(find(REST)) >= count, 120, lambda: f"{count}: {self.fence.commands()}")

    def _clients(self, forms: Sequence[str]) -> list[int]:
        return [pid for pid in self.fence.living() if _is_client(pid, forms)]


COMPOSE = f"""
version: '3'
services:
  web:
    image: {IMAGE}
    network_mode: none
    user: '{{}}'
    stop_grace_period: 1s
    command: [sleep, '{{}}']
"""


def environment(fence: Fence, front: CountedSocket) -> dict[str, str]:
    return {"DOCKER_HOST": front.url, "HOME": str(fence.home), "XDG_RUNTIME_DIR": str(fence.home / "xdg")}


def _is_client(pid: int, forms: Sequence[str]) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    named = any(f"AIRFLOW_CTX_DAG_RUN_ID={form}".encode() in variables for form in forms)
    return named and any(os.path.basename(word).startswith(b"docker") for word in words[:2])


@pytest.fixture
def front(docker_engine: Engine, fence: Fence) -> Iterator[CountedSocket]:
    """The engine for the user behind the fence, with a container for `docker exec`; podman with the same image."""
    require_packages("docker-compose", "podman")
    client = docker_engine.client()
    client.containers.run(
        IMAGE, ["sleep", BUSY_SECONDS], name="busy", detach=True, network_mode="none", user=str(fence.uid)
    )
    client.close()
    path = fence.home / "docker.sock"
    with CountedSocket(path, docker_engine.url.removeprefix("unix://"), tuple(GATES)) as front:
        os.chmod(path, 0o666)
        for words in GATES:
            front.release(words)
        runtime = Path(environment(fence, front)["XDG_RUNTIME_DIR"])
        runtime.mkdir()
        os.chown(runtime, fence.uid, fence.uid)
        words = {"PATH": os.environ["PATH"], **environment(fence, front)}
        import_image(PODMAN, fence.within(), words)
        yield front
    docker_engine.remove_containers()


def clients(listener: Listener, form: str) -> list[dict[str, Any]]:
    """What the listener has written down of its run's clients."""
    noted = remembered(listener.state_dir, "clients")
    return [client for client in noted if (client["label"] or {}).get("run_id") == form]


def wait_until_reached(listener: Listener) -> None:
    def open_ones() -> list[str]:
        return [f for f in BY_DOCKER if not any(client["reached"] for client in clients(listener, f))]

    wait_until(lambda: not open_ones(), 120, lambda: f"{open_ones()}: {listener.log()}")


def wait_until_judged(listener: Listener, world: World, expected: dict[str, Fate], told: bool) -> None:
    """Until the listener has written down all that it finds out.

    Of an `up` it may never be: then it is named, with what is not known.
    """
    patient_until = time.monotonic() + PATIENCE

    def judged(form: str, fate: Fate) -> bool:
        mine, pids = clients(listener, form), {row[0] for row in remembered(listener.state_dir, "labels")}
        if form in UPS:
            seen = any(client["fitting"] or client["composed"] for client in mine)
            tired = time.monotonic() > patient_until
            return not told or fate == "dead" or any(map(_known, mine)) or (seen and tired)
        if fate == "dead":
            in_engine = form not in (*EXECS, "podman")
            return any(client["container"] for client in mine) if in_engine else world.ours[form] in pids
        return form == "podman" or any(client["fitting"] or client["may_run"] for client in mine)

    def open_ones() -> list[str]:
        return [form for form, fate in expected.items() if not judged(form, fate)]

    wait_until(
        lambda: not open_ones(),
        120,
        lambda: f"{open_ones()}: {[clients(listener, f) for f in open_ones()]} {listener.log()}",
    )


def _known(up: dict[str, Any]) -> bool:
    """Whether it is tied, or will not be."""
    open_whys = ("compose_untold", "compose_gap", "compose_works")
    return bool(up["composed"]) or any(why not in open_whys for _, why in up["fitting"].values())


def names_of(engine: Engine, world: World) -> dict[str, str]:
    """By form, how a report names its container, or what runs in it."""
    client = engine.client()
    rows = {row["Id"]: row["Names"][0].removeprefix("/") for row in client.api.containers()}
    client.close()
    names = {form: f"busy: sleep {SECONDS[form]}" for form in EXECS}
    for form, pid in world.ours.items():
        if form == "podman":
            inside = proc.read(pid)
            assert inside is not None
            conmon = Path(f"/proc/{inside.ppid}/cmdline").read_text().split("\0")
            names[form] = conmon[conmon.index("-n") + 1]
        elif form not in EXECS:
            cgroups = Path(f"/proc/{pid}/cgroup").read_text()
            names[form] = next(name for ident, name in rows.items() if ident in cgroups)
    return names


def ask(world: World, listener: Listener, *words: str) -> Any:
    """What a command that signals nothing says."""
    options = ["--database-url", world.db.url, "--airflow-home", str(world.fence.home), "--json"]
    options += ["--docker-url", world.front.url, "--state-dir", str(listener.state_dir)]
    return json.loads(dagstop(*words, *options, before=world.fence.within(reads=True)).stdout)


def explained(world: World, listener: Listener, form: str) -> list[str]:
    """What `explain` says to be spared."""
    found = ask(world, listener, "explain", "dag", form)["found"]
    return [f"{one['what']} {one['command']}" for one in found if one["verdict"] == "spare"]


def contradicts(
    fate: Fate, form: str, lives: bool, report: dict[str, Any], name: str, shown: Sequence[str]
) -> str:
    """What is not as it is to be; empty if nothing."""
    detail = report["detail"]
    if fate == "dead or named":
        whys = [str(one["why"]) for one in detail["spared"]]
        if lives and form in UPS and not any(word in why for why in whys for word in BUSY):
            return "it lives without a reason"
        fate = "named" if lives else "dead"
    if lives != (fate != "dead"):
        return "it lives" if lives else "it is dead"
    listed = [*detail.get("containers_untold", ()), *detail.get("execs_untold", ())]
    if fate == "untold" and not (detail.get("not_told") and name in listed):
        return f"{name} is not listed"
    if fate == "named":
        untied = [*detail.get("containers_untied", ()), *detail.get("execs_untied", ())]
        if name not in untied or report["outcome"] != "spared":
            return f"{name} is not named"
    if fate in ("named", "untold"):
        what = f"({name.removeprefix('busy: ')})" if form in EXECS else f"container {name}"
        return "" if any(what in one for one in shown) else f"ps does not name {what}"
    return ""


@pytest.mark.parametrize("late", [False, True], ids=["seen before", "listener started late"])
@pytest.mark.parametrize("state", get_args(State))
def test_what_is_exact_dies_with_its_run_and_what_is_not_is_named(
    airflow_db: AirflowDatabase,
    fence: Fence,
    initial: bool,
    front: CountedSocket,
    docker_engine: Engine,
    state: State,
    late: bool,
) -> None:
    expected = fates(initial, state, late)
    killed = state == "client killed first"
    listener = Listener(
        airflow_db.url, fence.home, docker_url=front.url, fence=fence.within(told=True, reads=True)
    )
    with FencedTasks(fence) as tasks:
        world = World(airflow_db, fence, front, tasks)
        try:
            if not late:
                listener.start()
            world.type_twins()
            world.type_ours(
                state == "Airflow alive",
                lambda: None if late else wait_until_reached(listener),
                lambda: world.kill([f for f in BY_DOCKER if f not in ATTACHED]) if killed else None,
            )
            if not late:
                wait_until_judged(listener, world, expected, initial)
            if killed:
                world.kill(ATTACHED)
            if late:
                listener.start()
                listener.wait_until_gap("no listener ran")  # `explain` knows of it by what is written down
                attached = {form: fate for form, fate in expected.items() if fate == "dead"}
                wait_until_judged(listener, world, attached, initial)
            names = names_of(docker_engine, world)
            for form in EXPLAINED:
                if expected[form] in ("named", "untold"):
                    spared = explained(world, listener, form)
                    name = names[form].removeprefix("busy: ")
                    assert any(name in one for one in spared), (form, spared)
            shown = [one["what"] for one in ask(world, listener, "ps")["not_attributable"]]
            for form in LINES:
                airflow_db.set_run("failed", form)
            reports = {r["run_id"]: r for r in listener.wait_for_reports(len(LINES), timeout=120)}
            living = {form: find(f"sleep {seconds}") for form, seconds in SECONDS.items()}
            assert all(world.twins[form] in pids for form, pids in living.items()), show(reports)
            assert find(f"sleep {BUSY_SECONDS}")
            wrong = [
                f"{form}: {fate}: {why}: {show(reports[form])}"
                for form, fate in expected.items()
                if (
                    why := contradicts(
                        fate, form, world.ours[form] in living[form], reports[form], names[form], shown
                    )
                )
            ]
            assert not wrong, "\n".join(wrong)
        finally:
            print(listener.log())
            listener.kill()
