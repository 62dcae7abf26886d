"""What a task's `docker compose up` created: only what nobody else can have."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import clients, fitting, memory
from dagstop.evidence.connections import DECIDES, ENDS, STARTS
from dagstop.evidence.containers import read_client
from dagstop.evidence.lineage import ClientEnd, UnreadKin
from dagstop.evidence.ties import Ties
from dagstop.evidence.unread import Heard, Span
from dagstop.host import unix_peers
from dagstop.host.containers import Container, Shape
from dagstop.host.creations import Creations
from dagstop.host.procfs import TICKS_PER_SECOND, ProcFS
from dagstop.model import Identity, Label
from tests.support.fake_proc import FakeProc, process

HERE, THERE = "unix:///here", "unix:///there"
OURS, OTHERS = Label(dag_id="d", run_id="r", task_id="t"), Label(dag_id="e", run_id="s", task_id="t")
EVER = float("inf")
UP = "docker-compose up"
LABELS = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.project.working_dir": "/srv/shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.oneoff": "False",
}
ELSEWHERE = {**LABELS, "com.docker.compose.project.working_dir": "/srv/q"}


@dataclass
class Shop:
    """A host on which a task typed `docker-compose up` in /srv/shop 60 s ago; its container came 30 s ago."""

    path: Path
    now: float = field(default_factory=time.time)
    url: str = HERE
    labels: dict[str, str] = field(default_factory=lambda: dict(LABELS))
    created_ago: float = 30.0
    started_ago: float = 29.0
    name: str = "shop_web_1"
    heard: Heard | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    known_for: float | None = 300.0  # seconds for which the engine's events are known; None: it gives none
    told_of_it: bool = True

    def __post_init__(self) -> None:
        self.proc = FakeProc(self.path)
        self.ties = Ties(self.proc)
        self.heard = Heard(self.now - 300, self.now, ())

    def types(
        self,
        line: str = UP,
        *,
        pid: int = 700,
        label: Label | None = OURS,
        ago: float = 60.0,
        folder: str | None = "/srv/shop",
        reached: str = HERE,
        told: bool = True,
        environ: dict[str, str] | None = None,
    ) -> int:
        """A client that was executed so long ago, and runs; folder: None where it cannot be read."""
        argv = tuple(line.split())
        start = ProcFS.now_ticks(self.proc) - int(ago * TICKS_PER_SECOND)
        self.proc.add(pid, argv=argv, start=start, environ=environ or {"HOME": "/"})
        if folder is not None:
            self.proc.works_in(pid, folder)
        one = process(OURS, identity=Identity(pid, start), argv=argv)
        one.label = label
        client = read_client(one)
        assert client is not None
        self.ties.note([client], lambda _: self.now - ago if told else None)
        (noted,) = (known for known in self.ties.all() if known.client is client)
        noted.reached = reached
        return pid

    def ends(self, pid: int = 700, status: int = 0, ago: float = 0.0) -> None:
        (one,) = (known.client.process for known in self.ties.all() if known.client.process.pid == pid)
        at = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(ago * 1e9)
        self.ties.told([ClientEnd(one, status, at)])
        self.proc.end(pid)
        self.ties.note([])

    def happens(self, action: str, ago: float, ident: str, name: str = "old", **labels: str) -> None:
        attributes = {"name": name, "image": "image", **labels}
        at = int((self.now - ago) * 1e9)
        self.events.append(
            {
                "Type": "container",
                "Action": action,
                "timeNano": at,
                "Actor": {"ID": ident, "Attributes": attributes},
            }
        )

    def said(self) -> str | None:
        """Why the container is not the task's; None: it is. "nothing": not even named."""
        moment = datetime.fromtimestamp(self.now, timezone.utc)
        created, started = (moment - timedelta(seconds=ago) for ago in (self.created_ago, self.started_ago))
        shape = Shape(("sleep",), (), {}, self.labels, False, False, False)
        one = Container(
            "a" * 64, self.name, "image", 9, created, False, "no", {}, started_at=started, shape=shape
        )
        if self.told_of_it:
            self.happens("create", self.created_ago, one.id, self.name, **self.labels)
        creations: Creations | None = None
        if self.known_for is not None:
            creations = Creations()
            creations.begun(self.now - self.known_for)
            creations.answered(sorted(self.events, key=lambda event: event["timeNano"]), self.now)
        self.ties.hear(self.heard)
        self.ties.tie(self.url, [one], time.monotonic() + 60, creations)
        if one.id in self.ties.clients():
            assert not self.ties.untied()
            return None
        return self.ties.untied()[one.id][0].why if self.ties.untied() else "nothing"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize(
    "line", ["docker-compose up -d", "docker compose up -d", UP, "docker compose -p shop up"]
)
@pytest.mark.parametrize("ended", ["no", "well", "killed"])
def test_what_an_up_created_is_its_tasks(shop: Shop, line: str, ended: str) -> None:
    """Of one that is to end by itself only once it has: how, may say that somebody else was there first."""
    shop.types(line)
    if ended != "no":
        shop.ends(status={"well": 0, "killed": 9}[ended])
    elif line.endswith("-d"):
        assert "still at work" in (shop.said() or "")
        return
    assert shop.said() is None


def beside(line: str, **more: Any) -> Callable[[Shop], None]:
    def change(shop: Shop) -> None:
        shop.types()
        shop.types(line, pid=800, **{"label": None, "ago": 50.0, **more})

    return change


def came_and_went(line: str, until: float) -> Callable[[Shop], None]:
    """A stranger that was read, and ended before anybody noted it."""

    def change(shop: Shop) -> None:
        shop.types()
        passes(shop, line, until)

    return change


def passes(shop: Shop, line: str, until: float) -> None:
    one = process(
        None,
        identity=Identity(800, ProcFS.now_ticks(shop.proc) - 50 * TICKS_PER_SECOND),
        argv=tuple(line.split()),
    )
    one.label = None
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(until * 1e9)
    shop.ties.told([ClientEnd(one, 0, at)])


def unread(since: float, until: float) -> Callable[[Shop], None]:
    def change(shop: Shop) -> None:
        shop.types()
        shop.heard = Heard(
            shop.now - 300, shop.now, (Span(shop.now - since, shop.now - until if until else EVER),)
        )

    return change


def hears(since: float, until: float) -> Callable[[Shop], None]:
    """The kernel told of every process from so long ago until so long ago."""

    def change(shop: Shop) -> None:
        shop.types()
        shop.heard = Heard(shop.now - since, shop.now - until, ())

    return change


def changed(
    line: str = UP, after: Callable[[Shop], None] = lambda _: None, **more: Any
) -> Callable[[Shop], None]:
    def change(shop: Shop) -> None:
        shop.types(line, **more)
        after(shop)

    return change


def sets(line: str = UP, **facts: Any) -> Callable[[Shop], None]:
    def change(shop: Shop) -> None:
        shop.types(line)
        for name, value in facts.items():
            setattr(shop, name, value)

    return change


def gone(action: str, ago: float, **labels: str) -> Callable[[Shop], None]:
    def change(shop: Shop) -> None:
        shop.types()
        shop.happens(action, ago, "b" * 64, **{**LABELS, **labels})

    return change


def hides_its_environment(shop: Shop) -> None:
    """Which may name another project, or other files."""
    shop.proc.refused[700, "environ"] = errno.EACCES
    shop.types()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (beside(UP), "another client"),
        (beside(UP, label=OTHERS), "another client"),
        (beside("docker-compose up", label=replace(OURS, try_number=2)), "another client"),
        (beside(UP, folder="/srv/other"), None),
        (beside(UP, folder=None), "another client"),
        (beside("docker-compose -p other up", folder=None), None),
        (beside("docker-compose -p shop up", folder="/srv/other"), "another client"),
        (beside("docker-compose -f /srv/shop/a.yaml up", folder="/srv/other"), "another client"),
        (beside(UP, folder="/srv/shop/below"), "another client"),
        (beside(UP, environ={"COMPOSE_PROJECT_NAME": "shop"}, folder="/srv/other"), "another client"),
        (beside(UP, reached=THERE), None),
        (beside(UP, reached=""), "another client"),
        (beside(UP, ago=20.0), None),  # it came later
        (beside("docker-compose run web true"), "another client"),
        (beside("docker-compose-1.29.2 up"), "another client"),
        (
            beside("docker run -d --name shop_web_1 -l com.docker.compose.project=shop image"),
            "another client",
        ),
        (beside("docker run -d image"), None),  # the engine gives such names to no one
        (beside("docker run -d --name shop_web_1 another"), None),
        (beside("docker -H unix:///there run -d --name shop_web_1 image", reached=""), "another client"),
        (beside("podman run -d image"), "another client"),
        (beside("docker run --what -d image"), "another client"),
        (beside("docker system dial-stdio"), "another client"),
        (beside("docker exec -d x true"), None),
        (came_and_went(UP, 25), "another client"),
        (came_and_went(UP, 40), None),
        (came_and_went("docker-compose -p other up", 25), None),
        (unread(50, 20), "ended unread"),
        (unread(50, 0), "ended unread"),
        (unread(30.005, 20), None),  # too young to have been one
        (unread(50, 31), None),
        (unread(29, 20), None),
        (sets(heard=None), "not every process"),
        (hears(45, 0), "not every process"),
        (hears(300, 31), "not every process"),
        (hears(300, 29.995), "not every process"),  # the engine's clock may differ by as much
        (hears(300, 29.9), None),
        (changed(told=False), "not every process"),
        (sets(known_for=20), "do not reach back"),
        (sets(known_for=60.05), "do not reach back"),  # by the engine's clock it may have begun before
        (sets(known_for=61), None),
        (sets(known_for=None), "do not reach back"),
        (sets(told_of_it=False), "do not reach back"),
        (sets(created_ago=59.995), "it was there before"),
        (sets(created_ago=90.0, started_ago=30.0), "it was there before"),  # the up has only started it
        (sets(created_ago=90.0, started_ago=80.0), "nothing"),
        (sets(labels={**LABELS, "com.docker.compose.oneoff": "True"}), "is not followed"),
        (sets(labels=ELSEWHERE), "nothing"),
        (sets(labels={"image": "x"}), "nothing"),
        (sets(labels={**LABELS, "com.docker.compose.replace": "b"}), "in place of"),
        (sets(name="0123456789ab_shop_web_1"), "in place of"),
        (sets(labels={**LABELS, "com.docker.compose.project.working_dir": "."}), "nothing"),
        (sets("docker-compose -p shop up", labels=ELSEWHERE), "project is not certain"),
        (gone("destroy", 35), "in place of"),
        (gone("rename", 35), "in place of"),
        (gone("destroy", 60), "in place of"),
        (gone("destroy", 25), None),
        (gone("destroy", 100), None),
        (gone("destroy", 35, **{"com.docker.compose.service": "db"}), None),
        (changed(after=lambda shop: shop.ends(status=1 << 8)), "ended with an error"),
        (changed(after=lambda shop: shop.ends(ago=31.0)), None),
        (changed(reached=""), "not seen connected"),
        (changed(reached=THERE), "nothing"),
        (changed(folder="/data/shop", environ={"PWD": "/srv/shop"}), None),  # a link leads there
        (changed("docker-compose create"), "is not followed"),
        (changed("docker-compose --what=1 up -d"), "not understood"),
        (changed("docker-compose -p other up"), "project is not certain"),
        (changed(folder=None), "nothing"),
        (changed("docker-compose -p shop up", folder=None), "project is not certain"),
        (hides_its_environment, "project is not certain"),
    ],
)
def test_two_that_could_have_and_what_was_there_are_spared_and_named(
    shop: Shop, change: Callable[[Shop], None], why: str | None
) -> None:
    change(shop)
    said = shop.said()
    assert said is None if why is None else said is not None and why in said, said


@pytest.mark.parametrize("since", [45, 59.995])
@pytest.mark.parametrize("open_too", [{"known_for": 20}, {"created_ago": 90.0, "started_ago": 30.0}])
def test_that_nobody_told_of_its_beginning_is_said_first(
    shop: Shop, since: float, open_too: dict[str, Any]
) -> None:
    """When it began is then not known for certain, and so neither is what was there before."""
    hears(since, 0)(shop)
    for name, value in open_too.items():
        setattr(shop, name, value)
    assert "not every process" in (shop.said() or "")


@pytest.mark.parametrize("change", [beside(UP, ago=28.0), came_and_went(UP, 32)], ids=["began", "ended"])
def test_the_times_of_another_client_are_not_exact(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, change: Callable[[Shop], None]
) -> None:
    monkeypatch.setattr(fitting, "SLACK", 5.0)
    change(shop)
    assert "another client" in (shop.said() or "")


def test_a_client_whose_words_are_not_known_any_more_may_have_created_it(shop: Shop) -> None:
    """An earlier listener knew them."""
    shop.types()
    shop.types("docker run -d image", pid=800, label=OTHERS, ago=50.0)
    (other,) = (one for one in shop.ties.all() if one.label == OTHERS)
    other.client = replace(other.client, ask=None)
    assert "another client" in (shop.said() or "")


def test_what_a_strangers_up_created_is_nobodys_concern(shop: Shop) -> None:
    shop.types(label=None)
    assert shop.said() == "nothing" and shop.ties.clients() == {}


def test_what_is_known_to_be_another_clients_is_no_ups(shop: Shop) -> None:
    """Of the same task, which asked for that name."""
    shop.types("docker run -d --name shop_web_1 image", pid=690)
    shop.types()
    assert shop.said() is None
    assert [one.process.pid for one in shop.ties.clients().values()] == [690]


def test_two_of_one_task_may_both_have_created_it(shop: Shop) -> None:
    """docker and its plugin are two processes."""
    shop.types("docker compose up")
    shop.types("/usr/libexec/docker/cli-plugins/docker-compose compose up", pid=701)
    assert shop.said() is None
    assert [one.process.pid for one in shop.ties.clients().values()] == [700], "who was noted first"
    assert [len(one.composed) for one in shop.ties.all()] == [1, 0]


def test_an_engine_that_others_may_reach_from_elsewhere_is_not_believed(shop: Shop) -> None:
    shop.url = "tcp://engine:2375"
    shop.types(reached="tcp://engine:2375")
    assert "not seen connected" in (shop.said() or "")


def test_another_program_that_is_connected_may_have_created_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {700: frozenset({1}), 900: frozenset({2})}
    monkeypatch.setattr(unix_peers, "sockets_of", lambda _, pid: held.get(pid, frozenset({9})))
    monkeypatch.setattr(unix_peers, "connected_to", lambda _: frozenset({1, 9}))
    shop.types(ago=60)
    shop.created_ago = 1.0
    shop.ties.connections.see_others(HERE)
    monkeypatch.setattr(unix_peers, "connected_to", lambda _: frozenset({1, 2, 9}))
    shop.ties.connections.see_others("tcp://engine:2375")
    assert shop.said() is None
    other = Shop(shop.path / "other")
    other.path.mkdir(exist_ok=True)
    other.types(ago=60)
    other.created_ago = 1.0
    other.ties.connections.see_others(HERE)
    assert "another program" in (other.said() or "")


def test_nobody_looks_who_else_is_connected_while_no_compose_works(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def connected_to(path: str) -> frozenset[int]:
        asked.append(path)
        return frozenset()

    monkeypatch.setattr(unix_peers, "connected_to", connected_to)
    shop.types(label=None)
    shop.ties.connections.see_others(HERE)
    assert asked == []
    shop.types(pid=701)
    shop.ties.connections.see_others(HERE)
    assert asked != []


def test_what_an_up_created_is_remembered_until_it_is_gone(shop: Shop, tmp_path: Path) -> None:
    shop.types()
    shop.ties.saved()
    assert shop.said() is None and shop.ties.changed
    shop.ends()
    memory.save(tmp_path, "boot", [], shop.ties.all())
    later = Ties(shop.proc)
    later.restore(memory.load(tmp_path, "boot").all_clients())
    assert {ident[0]: client.process.pid for ident, client in later.clients().items()} == {"a": 700}
    later.tie(HERE, [], time.monotonic())
    (one,) = later.all()
    one.unseen = (one.unseen or time.monotonic()) - clients.KEPT - clients.LATE
    one.until = datetime.now(timezone.utc) - timedelta(seconds=clients.AWAY)
    later.tie(HERE, [], time.monotonic())
    assert later.clients() == {}


def test_what_an_up_may_have_created_is_named_by_a_later_listener(shop: Shop, tmp_path: Path) -> None:
    """It knows of no process of that time, and the compose may live."""
    shop.types()
    shop.heard = None
    assert shop.said() is not None
    memory.save(tmp_path, "boot", [], shop.ties.all())
    later = shop.ties = Ties(shop.proc)
    later.restore(memory.load(tmp_path, "boot").all_clients())
    (kept,) = later.all()
    argv = tuple(UP.split())
    later.note([client for one in [replace(kept.client.process, argv=argv)] if (client := read_client(one))])
    shop.heard = Heard(shop.now, shop.now, ())
    assert "not every process" in (shop.said() or "")


@pytest.mark.parametrize(("ended_ago", "may"), [(None, True), (5.0, True), (20.0, False)])
def test_what_was_there_and_began_to_run_after_its_end_was_not_started_by_it(
    shop: Shop, ended_ago: float | None, may: bool
) -> None:
    shop.types()
    shop.created_ago, shop.started_ago = 90.0, 10.0
    if ended_ago is not None:
        (one,) = shop.ties.all()
        one.until = datetime.now(timezone.utc) - timedelta(seconds=ended_ago)
    said = shop.said() or ""
    assert "it was there before" in said if may else said == "nothing"


def test_what_came_after_its_end_is_not_its_though_nobody_else_is_known(shop: Shop) -> None:
    shop.types()
    (one,) = shop.ties.all()
    shop.ends()
    one.until = datetime.now(timezone.utc) - timedelta(seconds=20)
    shop.created_ago, shop.started_ago = 10.0, 9.0
    assert shop.said() == "nothing"


def test_what_was_started_anew_after_its_end_is_named_no_more(shop: Shop) -> None:
    shop.types()
    shop.created_ago, shop.started_ago = 90.0, 30.0
    (one,) = shop.ties.all()
    one.until = datetime.now(timezone.utc) - timedelta(seconds=20)
    assert "it was there before" in (shop.said() or "")
    shop.started_ago = 10.0
    assert shop.said() == "nothing"


def test_what_else_a_task_typed_before_hides_no_up(shop: Shop) -> None:
    shop.types("docker run -d another", pid=690)
    shop.types("docker-compose up", pid=691, label=None, folder="/srv/other")
    shop.types()
    assert shop.said() is None


def test_a_folder_that_was_read_once_stays_known(shop: Shop) -> None:
    """At its end a client shows it no more."""
    pid = shop.types()
    (one,) = shop.ties.all()
    (shop.path / str(pid) / "cwd").unlink()
    shop.ties.note([one.client])
    assert shop.said() is None


def test_a_rival_that_is_long_gone_stays_one(shop: Shop) -> None:
    shop.types()
    shop.types(pid=800, label=None, ago=50)
    shop.ends(800, ago=20)
    (rival,) = (one for one in shop.ties.all() if one.label is None)
    rival.until = datetime.now(timezone.utc) - timedelta(seconds=20)
    for _ in range(3):
        assert "another client" in (shop.said() or "")
    assert len(shop.ties.all()) == 1


def test_who_ended_unread_counts_by_when_it_lived_and_is_no_other_client(shop: Shop) -> None:
    """None is that young when it creates something: it may have created what came later only."""
    shop.types()
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    identity = Identity(800, ProcFS.now_ticks(shop.proc) - int(30.005 * TICKS_PER_SECOND))
    since, until = 30.005, 20.0
    kin = UnreadKin(identity, process(OTHERS), now - int(since * 1e9), now - int(until * 1e9))
    shop.ties.told([], [kin])
    came = datetime.fromtimestamp(shop.now - 25, timezone.utc)
    another = Container("b" * 64, "other", "image", 9, came, False, "no", {})
    shop.ties.name_unread(HERE, [another], Creations())
    assert shop.ties.untied().keys() == {another.id}
    shop.heard = Heard(shop.now - 300, shop.now, (Span(shop.now - since, shop.now - until),))
    assert shop.said() is None


@pytest.mark.parametrize(("number", "certain"), [(2, True), (3, False)])
def test_where_clients_were_forgotten_nothing_is_certain(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, number: int, certain: bool
) -> None:
    monkeypatch.setattr(clients, "MOST", 2)
    shop.types()
    for image in range(number):
        passes(shop, f"docker run {image}", 10)
    assert [int(one.client.process.argv[-1]) for one in shop.ties._clients.gone] == [*range(number)][-2:]
    said = shop.said()
    assert said is None if certain else "not every process" in (said or "")


@pytest.mark.parametrize(("most", "certain"), [(3, True), (2, False)])
def test_where_living_clients_were_forgotten_nothing_is_certain(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, most: int, certain: bool
) -> None:
    """They may be rivals. The oldest are forgotten first."""
    monkeypatch.setattr(clients, "MOST", most)
    for pid in (801, 802):
        shop.types("docker run another", pid=pid, label=None, ago=20.0)
    shop.types()
    assert [one.client.process.pid for one in shop.ties.all()] == [801, 802, 700][-most:]
    said = shop.said()
    assert said is None if certain else "not every process" in (said or "")


@pytest.mark.parametrize(
    ("line", "label", "noted_ago", "ended_ago", "now", "decides"),
    [
        ("docker-compose up -d", OURS, 2 * STARTS, None, True, True),
        (UP, OURS, 0.0, None, True, True),
        (UP, OURS, 2 * STARTS, None, False, False),
        (UP, OURS, 0.0, ENDS / 2, True, True),
        (UP, OURS, 0.0, (ENDS + DECIDES) / 2, False, True),
        (UP, OURS, 0.0, DECIDES * 2, False, False),
        (UP, None, 0.0, None, False, False),
    ],
)
def test_an_up_is_watched_closely_while_it_creates_and_until_it_is_known_what(
    shop: Shop,
    line: str,
    label: Label | None,
    noted_ago: float,
    ended_ago: float | None,
    now: bool,
    decides: bool,
) -> None:
    shop.types(line, label=label)
    (one,) = shop.ties.all()
    one.noted_at -= noted_ago
    if ended_ago is not None:
        one.until = datetime.now(timezone.utc) - timedelta(seconds=ended_ago)
    connections = shop.ties.connections
    assert (connections.composes_now(), connections.decides_now()) == (now, decides)
    assert shop.ties.composes() is (label is not None)
