"""Which container is a client's, and for how long that is remembered."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence import clients as clients_module
from dagstop.evidence import connections, counting, execs, fitting, memory
from dagstop.evidence.clients import AWAY, LATE
from dagstop.evidence.containers import ANOTHER_CONTEXT, Client
from dagstop.evidence.docker_words import Ask, ExecAsk, read_compose
from dagstop.evidence.index import Index
from dagstop.evidence.lineage import ClientEnd, UnreadKin
from dagstop.evidence.match import asks_to_be_spared
from dagstop.evidence.noted import Fit, MayRun, noted, one_engine
from dagstop.evidence.ties import Ties
from dagstop.host.containers import Airflow, Container, Shape
from dagstop.host.creations import Creations
from dagstop.model import Identity, Label
from tests.support.fake_proc import DATE, RealClock, order, process

HERE = "unix:///here"
OURS, OTHERS = Label(dag_id="d", run_id="r", task_id="t"), Label(dag_id="e", run_id="s", task_id="t")


@pytest.fixture
def proc(tmp_path: Path) -> RealClock:
    return RealClock(tmp_path)


def container(age: float, number: int = 0, name: str = "x") -> Container:
    created = datetime.now(timezone.utc) - timedelta(seconds=age)
    return Container(f"{number:x}" * 64, name, "image", 700, created, False, "no", {})


def client(
    proc: RealClock, pid: int, age: float, *, label: Label | None = OURS, name: str | None = "x", **more: Any
) -> Client:
    start = proc.ago(age)
    proc.add(pid, argv=("docker", "run"), start=start)
    seen = process(OURS, identity=Identity(pid, start), **more.pop("of", {}))
    seen.label = label
    return Client(name, more.pop("cidfile", None), seen, more.pop("engine", None), more.pop("ask", None))


def tied(ties: Ties, *containers: Container, engine: str = HERE) -> list[str]:
    ties.tie(engine, containers, time.monotonic() + 60)  # well after whatever ended
    by_run = Index(ties.clients().items(), lambda item: item[1].process.label)
    return [ident[0] for ident, _ in by_run.of(order())]


def test_a_name_is_the_clients_if_it_came_in_its_lifetime(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    assert tied(ties, container(90, 1)) == []  # it was there before
    assert tied(ties, container(30, 2, name="y")) == []
    assert tied(ties, container(30, 3)) == ["3"]
    assert tied(ties, container(20, 4)) == ["3"]  # one client starts one container


def test_a_name_that_came_after_the_client_is_a_strangers(proc: RealClock) -> None:
    ties = Ties(proc)
    one = client(proc, 700, 60)
    ties.note([one])
    proc.end(700)
    ties.note([])
    later = container(0, 1)
    ties.tie(HERE, [Container(**{**facts(later), "created_at": later.created_at + timedelta(seconds=1)})], 0)
    assert tied(ties) == []
    assert tied(ties, container(30, 2)) == ["2"]


def facts(one: Container) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Container.__slots__}


@pytest.mark.parametrize(
    ("label", "engine", "wanted"),
    [(None, None, []), (OTHERS, None, []), (OURS, None, ["1"]), (None, "tcp://far", [])],
    ids=["stranger", "another run", "the same task", "the engine in other words"],
)
def test_two_clients_that_asked_for_one_name(
    proc: RealClock, label: Label | None, engine: str | None, wanted: list[str]
) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60), client(proc, 701, 70, label=label, engine=engine)])
    assert tied(ties, container(30, 1)) == wanted


def test_a_rival_that_came_later_is_none(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60), client(proc, 701, 20, label=OTHERS)])
    assert tied(ties, container(30, 1)) == ["1"]


def test_a_name_counts_on_the_clients_own_engine_only(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, engine="tcp://far")])
    assert tied(ties, container(30, 1)) == []
    assert tied(ties, container(30, 2), engine="tcp://far") == ["2"]


def test_one_engine_may_have_two_urls(proc: RealClock, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to(tmp_path / "run")
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, engine=f"unix://{tmp_path}/run/docker.sock")])
    assert tied(ties, container(30, 1), engine=f"unix://{tmp_path}/var/docker.sock") == ["1"]


def test_a_container_is_forgotten_when_it_is_gone_for_a_while(
    proc: RealClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    tied(ties, container(30, 1))
    assert tied(ties) == ["1"]  # its client lives
    proc.end(700)
    ties.note([])
    (one,) = ties.all()
    assert tied(ties, engine="unix:///another") == ["1"]
    assert tied(ties) == ["1"]  # it may be between two lives
    assert tied(ties, container(30, 1)) == ["1"] and one.unseen is None
    assert tied(ties) == ["1"]
    assert one.unseen is not None
    since = one.unseen
    assert tied(ties, engine="unix:///another") == tied(ties) == ["1"]
    assert one.unseen == since
    one.unseen -= 100
    assert tied(ties) == []


@pytest.mark.parametrize("gone", ["no", "one", "both"])
def test_a_compose_is_kept_while_anything_that_it_created_runs(proc: RealClock, gone: str) -> None:
    """Also where another engine is asked in between, which knows nothing of it."""
    ties = Ties(proc)
    ties.note([composing(proc)])
    (one,) = ties.all()
    both = container(1, 1), container(1, 2)
    one.composed = {each.id: HERE for each in both}
    proc.end(700)
    ties.note([])
    here = {"no": both, "one": both[1:], "both": ()}[gone]
    for engine, seen in (("unix:///another", ()), (HERE, here), ("unix:///another", ()), (HERE, here)):
        ties.note([client(proc, 701, 60, label=None)])  # the others of a listing are looked at all the same
        proc.end(701)
        ties.note([])
        ties.tie(engine, seen, time.monotonic() + 60)
        assert ties.all() == [one]
    assert (one.unseen is None) is (gone != "both")
    assert ties.clients().keys() == {each.id for each in both}
    if one.unseen is not None:
        one.unseen -= clients_module.KEPT
        ties.tie("unix:///another", (), time.monotonic() + 60)
        assert len(ties.all()) == 1
        ties.tie(HERE, (), time.monotonic() + 60)
        assert ties.all() == [] and ties.clients() == {}


@pytest.mark.parametrize(
    "may", [{"fitting": {"b": Fit("unix:///another", "gap")}},
            {"may_run": {"e": MayRun("unix:///another", "others", "web", "sh", 7.5)}}], ids=list
)  # fmt: skip
def test_a_client_is_kept_while_anything_that_may_be_its_may_be_there(
    proc: RealClock, may: dict[str, Any]
) -> None:
    """On an engine that is not asked now."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    (one,) = ties.all()
    ((name, found),) = may.items()
    setattr(one, name, found)
    proc.end(700)
    ties.note([])
    for kept in ([one], [one], []):
        if not kept:
            setattr(one, name, {})
            ties.tie(HERE, [], time.monotonic() + 60)
        one.unseen = one.unseen and -1e9
        ties.saved()
        ties.tie(HERE, [], time.monotonic() + 60)
        assert ties.all() == kept and ties.changed is not bool(kept)


def test_a_client_that_lives_has_its_words_again_after_a_restart(proc: RealClock) -> None:
    ties = Ties(proc)
    one = client(proc, 700, 60, name=None, ask=PLAIN)
    ties.note([one])
    (known,) = (json.loads(json.dumps(each.facts())) for each in ties.all())
    later = Ties(proc)
    later.restore([noted(known, OURS, None)])
    later.note([one])
    tied(later, container(30, 1, "calm_euler"))
    assert len(later.untied()) == 1


def test_a_zombie_of_a_client_is_gone(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60), client(proc, 701, 60, of={"state": "Z"})])
    (one,) = ties.all()
    assert one.until is None
    proc.becomes_zombie(700)
    ties.note([])
    assert one.until is not None


def test_a_client_that_no_engine_knows_is_forgotten_in_time(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60), client(proc, 701, 60)])
    proc.end(700)
    ties.note([])
    one = next(one for one in ties.all() if one.until is not None)
    assert one.until is not None
    ended_at = one.until
    one.until = ended_at - timedelta(seconds=AWAY - 60)
    ties.note([])
    assert len(ties.all()) == 2  # an engine that is away may be back
    one.until = ended_at - timedelta(seconds=AWAY + 60)
    ties.note([])
    assert [left.client.process.pid for left in ties.all()] == [701]


@pytest.mark.parametrize(
    "known",
    [
        {"container": "1" * 64},
        {"composed": {"1" * 64: HERE}},
        {"fitting": {"1" * 64: Fit(HERE, "gap")}},
        {"may_run": {"e": MayRun(HERE, "others", "web", "sh", 7.5)}},
    ],
    ids=list,
)
def test_a_client_of_which_something_may_be_there_is_waited_for_however_long_its_engine_is_away(
    proc: RealClock, known: dict[str, Any]
) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    proc.end(700)
    ties.note([])
    (one,) = ties.all()
    for name, value in known.items():
        setattr(one, name, value)
    assert one.until is not None
    one.until -= timedelta(seconds=10 * AWAY)
    ties.note([])
    assert ties.all() == [one]


def test_it_comes_back_after_a_restart(proc: RealClock, tmp_path: Path) -> None:
    ties = Ties(proc)
    line = frozenset({5, 6})
    spared = {"environ": {"DAGSTOP_SPARE": "1"}, "line": line}
    full = Label("d", "r", DATE, "t", 3, 2, 7, None, "/opt/airflow", "db:5432/airflow")
    ties.note([client(proc, 700, 60, label=full, of=spared, name=None), client(proc, 701, 50, name="y")])
    ties.note([client(proc, 702, 40, of={"trusted": False}), client(proc, 703, 40, of={"contrary": "x"})])
    ties.note([client(proc, 704, 40, label=None)])
    first = next(one for one in ties.all() if one.client.process.pid == 700)
    first.cid = "1" * 64
    tied(ties, container(30, 1), container(30, 2, name="y"))
    memory.save(tmp_path, "boot", [], ties.all())
    proc.end(701)
    again = Ties(proc)
    again.restore(memory.load(tmp_path, "boot").clients)
    assert {one.client.process.pid for one in again.all()} == {700, 701}
    one, other = again.all()
    assert one.label == full and one.client.process.line == line and asks_to_be_spared(one.client.process)
    assert (one.until, one.container[0], one.engine) == (None, "1", HERE)
    assert (
        other.until is not None and other.container[0] == "2" and not asks_to_be_spared(other.client.process)
    )


def test_what_speaks_against_a_client_comes_back_too(proc: RealClock, tmp_path: Path) -> None:
    ties = Ties(proc)
    stranger = client(proc, 704, 40, label=None)  # who may have asked for the same name
    ties.note([client(proc, 702, 40, of={"trusted": False}, name="y"), stranger, client(proc, 705, 40)])
    runner = process(OURS, identity=Identity(590, 5), contrary="x")
    ties.note([client(proc, 703, 40, of={"contrary": "x"}, name="z")])
    ties.note([client(proc, 706, 40, of={"runner": runner}, name="w")])
    tied(ties, container(30, 2, name="y"), container(30, 3, name="z"), container(30, 4, name="w"))
    memory.save(tmp_path, "boot", [], ties.all())
    proc.end(704)
    again = Ties(proc)
    again.restore(memory.load(tmp_path, "boot").all_clients())
    found = {ident[0]: client.process for ident, client in again.clients().items()}
    assert found.keys() == {"2", "3", "4"}
    assert not found["2"].trusted and found["3"].contrary == "x"
    assert found["4"].runner is not None and found["4"].runner.contrary == "x"
    assert "1" not in tied(again, container(30, 1)), "either may have started it"


@pytest.mark.parametrize(
    "changed",
    [
        *({"until": "x"}, {"until": "2026-11-22T10:00:00"}, {"pid": "x"}, {"label": {"job_id": "x"}}),
        *({name: 5} for name in ("cid", "container", "engine", "name", "cidfile", "talks_to", "path")),
    ],
    ids=str,
)
def test_a_client_of_another_shape_is_not_believed(
    proc: RealClock, tmp_path: Path, changed: dict[str, Any]
) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    memory.save(tmp_path, "boot", [], ties.all())
    path = tmp_path / "remembered.json"
    saved = json.loads(path.read_text())
    saved["clients"][0] |= changed
    path.write_text(json.dumps(saved))
    assert memory.load(tmp_path, "boot") == memory.NOTHING


PLAIN = Ask(None, None, "image", attached=False, sure=True)


def test_what_a_client_may_have_created_is_named_as_long_as_it_runs(proc: RealClock, tmp_path: Path) -> None:
    """Also by a later listener, which does not know the client's words any more."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=PLAIN)])
    mine, older = container(30, 1, "calm_euler"), container(90, 2, "odd_euler")
    assert tied(ties, mine, older, container(30, 3, "web")) == []
    ((ident, (one,)),) = ties.untied().items()
    assert ident == mine.id and one.why.startswith("docker client 700 may have created it")
    proc.end(700)
    ties.note([])
    memory.save(tmp_path, "boot", [], ties.all())
    later = Ties(proc)
    later.restore(memory.load(tmp_path, "boot").all_clients())
    assert tied(later, mine, older) == [] and later.untied().keys() == {mine.id}
    (kept,) = later.all()
    assert kept.until is not None
    kept.until -= timedelta(seconds=2 * AWAY)
    later.note([])
    assert tied(later, mine) == [] and later.untied().keys() == {mine.id}
    assert tied(later) == [] and later.untied() == {}


@pytest.mark.parametrize(("status", "may"), [(125 << 8, False), (9, True)], ids=["failed", "killed"])
def test_a_client_that_failed_has_created_nothing(proc: RealClock, status: int, may: bool) -> None:
    ties = Ties(proc)
    one = client(proc, 700, 60, name=None, ask=PLAIN)
    ties.note([one])
    ties.told([ClientEnd(one.process, status, time.clock_gettime_ns(time.CLOCK_BOOTTIME))])
    assert tied(ties, container(30, 1, "calm_euler")) == [] and bool(ties.untied()) == may


def test_one_client_of_several_is_enough_to_be_waited_for(proc: RealClock) -> None:
    ties = Ties(proc)
    one, other = client(proc, 700, 60, name=None, ask=PLAIN), client(proc, 701, 60, name="y")
    for clients, waits in (([other], False), ([other, one], True)):
        ties.note(clients)
        for seen in ties.all():
            seen.reached = HERE
        ends = [ClientEnd(c.process, 0, time.clock_gettime_ns(time.CLOCK_BOOTTIME)) for c in clients]
        ties.told(ends)
        assert ties.waits_for(HERE) is waits


@pytest.mark.parametrize(
    ("asks", "created_by", "waits"),
    [(PLAIN, 5.0, True), (PLAIN, None, False), (replace(PLAIN, sure=False), 5.0, False)],
    ids=["created", "not seen to have", "not understood"],
)
def test_what_is_to_be_counted_out_is_what_an_understood_client_has_created(
    proc: RealClock, asks: Ask, created_by: float | None, waits: bool
) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=asks)])
    (one,) = ties.all()
    one.reached, one.created_by = HERE, created_by
    assert ties.waits_for(HERE) is waits


def test_a_client_that_ended_well_has_the_only_one_that_came_on_the_engine_that_it_reached(
    proc: RealClock,
) -> None:
    for number, reached, whole in itertools.product((1, 2), (HERE, "", "unix:///another"), (True, False)):
        ties, creations = Ties(proc), Creations()
        one = client(proc, 700, 60, name=None, ask=PLAIN)
        ties.note([one])
        (noted,) = ties.all()
        noted.reached = reached
        ties.told([ClientEnd(one.process, 0, time.clock_gettime_ns(time.CLOCK_BOOTTIME))])
        found = [container(30, n + 1, "calm_euler") for n in range(number)]
        assert ties.waits_for(HERE) == (reached == HERE)
        since = time.time() - (100 if whole else 20)
        creations.begun(since)
        events = [{"Type": "container", "Action": "create", "timeNano": int(c.created_at.timestamp() * 1e9),
                   "Actor": {"ID": c.id, "Attributes": {"name": c.name, "image": c.image}}} for c in found]  # fmt: skip
        creations.answered(events if whole else [], time.time())
        ties.tie(HERE, found, time.monotonic() + 60, creations)
        sure = (number, reached, whole) == (1, HERE, True)
        assert set(ties.clients()) == ({found[0].id} if sure else set())
        may = set() if sure or reached == "unix:///another" else {c.id for c in found}
        assert set(ties.untied()) == may, (number, reached, whole)
        proc.end(700)


DETACHED = Ask("x", None, "image", attached=False, sure=True)


@pytest.mark.parametrize(
    ("status", "owned"), [(0, True), (9, True), (143 << 8, True), (125 << 8, False), (1 << 8, False)]
)
def test_a_name_is_not_the_clients_that_ended_with_an_error(
    proc: RealClock, status: int, owned: bool
) -> None:
    """The engine refuses a name that is given; who has it nobody need have seen."""
    for early in (True, False):  # the engine is listed before its end, too
        ties, creations = Ties(proc), Creations()
        one = client(proc, 700, 60, ask=DETACHED)
        ties.note([one])
        found = container(30, 1)
        if early:
            assert tied(ties, found) == ["1"]
        ties.told([ClientEnd(one.process, status, time.clock_gettime_ns(time.CLOCK_BOOTTIME))])
        proc.end(700)
        ties.note([])
        ties.tie(HERE, [found], time.monotonic() + 60, creations)
        assert set(ties.clients()) == ({found.id} if owned else set())
        whys = [may.why for may in ties.untied().get(found.id, ())]
        assert whys == ([] if owned else [f"docker client 700 may have created it: {ASKED}"])


ASKED = "it asked for this name, and ended with an error"


def test_a_rival_that_came_and_went_between_two_looks_counts(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    start = proc.ago(40)
    rival = process(
        OTHERS, identity=Identity(701, start), argv=("docker", "run", "-d", "--name", "x", "image")
    )
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 20 * 10**9
    ties.told([ClientEnd(rival, 0, at)])
    assert tied(ties, container(30, 1)) == []


def made_by_engine(*found: Container, exec_of: tuple[str, str] | None = None) -> Creations:
    """All that an engine created in the last minutes; exec_of: what was run in each of them, as id and words."""
    creations = Creations()
    creations.begun(time.time() - 300)
    action = "create" if exec_of is None else f"exec_create: {exec_of[1]}"
    creations.answered(
        [
            {
                "Type": "container",
                "Action": action,
                "timeNano": int(c.created_at.timestamp() * 1e9),
                "Actor": {
                    "ID": c.id,
                    "Attributes": {
                        "name": c.name,
                        "image": c.image,
                        "execID": f"{(exec_of or ' ')[0]}{c.id[0]}",
                    },
                },
            }
            for c in found
        ],
        time.time(),
    )
    return creations


@pytest.mark.parametrize(
    ("rival", "sure"),
    [
        (None, True),
        ({"label": OTHERS}, False),
        ({"label": None}, False),
        ({"label": OURS}, True),
        ({"label": OTHERS, "age": 20}, True),  # it came later
        ({"label": OTHERS, "failed": True}, True),
        ({"label": OTHERS, "container": "f" * 64}, True),  # that one is its
        ({"label": OTHERS, "created_by": 0.0}, True),  # it had created its own by then
        ({"label": OTHERS, "gone_for": 40}, True),  # it had ended by then
        ({"label": OTHERS, "gone_for": 20}, False),
        ({"label": OTHERS, "ask": replace(PLAIN, attached=True, command=("other",))}, True),
        ({"label": OTHERS, "ask": replace(PLAIN, attached=True, sure=False, command=("other",))}, False),
    ],
)
def test_what_a_client_is_attached_to_is_its_if_no_other_is_known_to_ask_for_it(
    proc: RealClock, rival: dict[str, Any] | None, sure: bool
) -> None:
    asks = replace(PLAIN, attached=True)
    ties = Ties(proc)
    mine = client(proc, 700, 60, name=None, ask=asks)
    ties.note([mine])
    if rival is not None:
        more = {"ask": asks, "age": 60.0, **rival}
        facts = {name: more.pop(name) for name in ("failed", "container", "created_by") if name in more}
        gone_for = more.pop("gone_for", None)
        ties.note([client(proc, 701, more.pop("age"), name=None, **more)])
        other = next(one for one in ties.all() if one.client is not mine)
        for name, value in facts.items():
            setattr(other, name, value)
        if gone_for is not None:
            proc.end(701)
            other.until = datetime.now(timezone.utc) - timedelta(seconds=gone_for)
    noted = next(one for one in ties.all() if one.client is mine)
    noted.reached, noted.created_by = HERE, time.time() - 25
    shape = Shape((), (), {}, {}, False, False, False)
    found = replace(container(30, 1, "calm_euler"), shape=shape)
    ties.tie(HERE, [found], time.monotonic() + 60, made_by_engine(found))
    assert (ties.clients().get(found.id) is mine) is sure


@pytest.mark.parametrize("twin", [False, True])
def test_what_an_exec_runs_is_its_if_only_one_was_asked_for(proc: RealClock, twin: bool) -> None:
    ties = Ties(proc)
    one = replace(client(proc, 700, 60, name=None), runs=ExecAsk("calm", ("sleep", "5"), False, True))
    ties.note([one])
    (noted,) = ties.all()
    noted.reached = HERE
    ties.told([ClientEnd(one.process, 0, time.clock_gettime_ns(time.CLOCK_BOOTTIME))])
    inside = container(30, 1, "calm"), container(20, 2, "other" if not twin else "calm")
    ties.tie(HERE, inside, time.monotonic() + 60, made_by_engine(*inside, exec_of=("e", "sleep 5")))
    assert [one.container for one in ties.execs.of(HERE)] == ([] if twin else ["e1"])
    assert ties.execs.of("unix:///another") == []
    assert ties.untied() == {}
    noted.claimed = True
    assert ties.execs.of(HERE) == [], "which process that is, is known"


def exec_event(ident: str, ago: float, command: str = "sleep 5") -> dict[str, Any]:
    return {
        "Type": "container",
        "Action": f"exec_create: {command}",
        "Actor": {"ID": "c" * 64, "Attributes": {"name": "busy", "image": "i", "execID": ident}},
        "timeNano": int((time.time() - ago) * 1e9),
    }


def test_what_an_exec_may_have_asked_for_is_named_until_it_has_ended(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    runs = ExecAsk("busy", ("sleep", "5"), attached=False, sure=True)
    ties.note([replace(client(proc, pid, 5, name=None), runs=runs) for pid in (700, 701)])
    for ident, ago, command in (("e", 2, "sleep 5"), ("f", 2, "sleep 6"), ("g", 60, "sleep 5")):
        creations.heard(exec_event(ident, ago, command))
    ties.execs.note(HERE, creations)
    ((ident, (what, may)),) = ties.execs.untied(HERE).items()
    assert (ident, what.name, what.runs, what.pid, len(may)) == ("e", "busy", "sleep 5", 0, 2)
    assert not what.paused
    assert "docker exec 700 may have asked for it" in may[0].why
    assert ties.execs.untied("unix:///elsewhere") == {}
    ties.execs.note(HERE, Creations())  # the engine tells no more of that time
    assert ties.execs.untied().keys() == {"e"}

    (known, _) = (json.loads(json.dumps(one.facts())) for one in ties.all())
    later = Ties(proc)
    later.restore([noted(known, OURS, None)])
    proc.end(700)
    later.note([])
    later.execs.note(HERE, Creations())  # after a restart nothing was heard
    assert later.execs.untied().keys() == {"e"}
    later.execs.ended("e")
    later.execs.note(HERE, creations)
    assert later.execs.untied() == {}


class Execs:
    """An engine that knows what became of some execs."""

    url = HERE

    def exec_process(self, ident: str) -> tuple[str, int, bool] | None:
        return {"runs": ("c", 700, False), "ended": ("c", 0, True)}.get(ident)


def test_an_exec_that_the_engine_knows_no_more_or_that_has_ended_is_not_named(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    runs = ExecAsk("busy", ("sleep", "5"), attached=False, sure=True)
    ties.note([replace(client(proc, pid, 5, name=None), runs=runs) for pid in (700, 701)])
    for ident in ("runs", "ended", "forgotten"):
        creations.heard(exec_event(ident, 2))
    ties.execs.note(HERE, creations)
    assert ties.execs.untied().keys() == {"runs", "ended", "forgotten"}
    ties.execs.drop_ended(Execs())  # type: ignore[arg-type]
    assert ties.execs.untied().keys() == {"runs"}


def test_an_exec_that_is_tied_or_has_failed_is_not_in_doubt(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    runs = ExecAsk("busy", ("sleep", "5"), attached=False, sure=True)
    ties.note([replace(client(proc, pid, 5, name=None), runs=runs) for pid in (700, 701)])
    creations.heard(exec_event("e", 2))
    assert ties.execs.doubtful()
    strangers = Ties(proc)
    strangers.note([replace(client(proc, 702, 5, name=None, label=None), runs=runs)])
    strangers.execs.note(HERE, creations)
    assert not strangers.execs.doubtful() and strangers.execs.untied() == {}
    ties.execs.note(HERE, creations)
    one, other = ties.all()
    one.container, other.failed = "e", True
    assert ties.execs.doubtful(), "what it may run was noted before it was tied"
    ties.execs.note(HERE, creations)
    assert ties.execs.untied() == {} and not ties.execs.doubtful()
    ties.note([client(proc, 703, 5, name=None, ask=PLAIN)])
    assert not ties.execs.doubtful(), "it runs nothing in a container that is there"


def test_a_container_that_is_tied_is_nobody_elses(proc: RealClock) -> None:
    """Another client of the same task that asked for that name comes to be known later."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    assert tied(ties, container(30, 1)) == ["1"]
    ties.note([client(proc, 701, 70)])
    assert tied(ties, container(30, 1)) == ["1"]
    (owner,) = ties.clients().values()
    assert owner.process.pid == 700
    assert ties.execs.of(HERE) == []


def test_a_container_is_of_one_client_though_two_of_a_task_asked_for_it(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60), client(proc, 701, 70)])
    assert tied(ties, container(30, 1)) == ["1"]
    assert [bool(one.container) for one in ties.all()] == [True, False]


def test_an_old_cidfile_names_somebody_elses_container(proc: RealClock) -> None:
    """The client refuses to write over it, and ends; what it names is older."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, cidfile="cid")])
    (one,) = ties.all()
    one.cid = "1" * 64
    assert tied(ties, container(90, 1)) == []
    assert tied(ties, container(30, 2)) == []
    assert tied(ties, container(30, 1)) == ["1"]


@pytest.mark.parametrize(
    ("ago", "wanted"), [(60 + 50, ["1"]), (60 + 150, []), (-50, ["1"]), (-150, [])], ids=str
)
def test_an_engines_clock_may_be_behind_or_ahead(
    proc: RealClock, ago: float, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients_module, "SLACK", 100.0)  # however busy the machine is
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    assert tied(ties, container(ago, 1)) == wanted


def test_only_what_makes_one_container_is_waited_for_by_its_name_or_file(proc: RealClock) -> None:
    """Not an exec, nor a compose, nor a stranger's client, nor one whose container is known."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 5), client(proc, 701, 5, label=None), composing(proc, 702)])
    ties.note([replace(client(proc, 703, 5, name=None), runs=RUNS), client(proc, 704, 5, name="y")])
    ties.all()[-1].container = "1" * 64
    assert [one.client.process.pid for one in ties.open()] == [700]


def test_what_is_new_of_the_tasks_clients_is_to_be_saved(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, label=None)])
    assert not ties.changed
    ties.note([client(proc, 701, 60), client(proc, 702, 60, label=None)])
    assert ties.changed
    ties.saved()
    ties.note([])
    assert not ties.changed
    proc.end(701)
    ties.note([])
    assert ties.changed


def test_what_became_of_a_client_is_to_be_saved(proc: RealClock) -> None:
    """Once, whatever it is: a later listener goes by it."""
    ties, creations = Ties(proc), Creations()
    named, plain = client(proc, 700, 60), client(proc, 701, 60, name=None, ask=PLAIN)
    run = replace(client(proc, 702, 5, name=None), runs=replace(RUNS, attached=False))
    ties.note([named, plain, run])
    creations.heard(exec_event("e", 2))
    mine, its = container(30, 1), container(30, 2, "calm_euler")
    far = time.monotonic() + 600

    def end(one: Client, status: int) -> None:
        ties.told([ClientEnd(one.process, status, time.clock_gettime_ns(time.CLOCK_BOOTTIME))])
        proc.end(one.process.pid)

    steps: tuple[Callable[[], None], ...] = (
        lambda: ties.tie(HERE, [mine], far),
        lambda: ties.tie(HERE, [mine, its], far),
        lambda: ties.execs.note(HERE, creations),
        lambda: ties.execs.ended("e"),
        lambda: end(plain, 125 << 8),
        lambda: end(run, 125 << 8),
        lambda: ties.note([]),
        lambda: ties.tie(HERE, [mine], far),  # the two that failed are forgotten, once they are unseen
    )
    for happens in steps:
        ties.saved()
        happens()
        assert ties.changed, happens
        if ties.execs.untied():
            ties.saved()
            ties.execs.note(HERE, creations)
            assert not ties.changed
        for one in ties.all():
            one.unseen = -1e9 if one.failed else None
    assert [one.client for one in ties.all()] == [named]
    ties.saved()
    ties.tie(HERE, [mine], far)
    ties.execs.ended("another")
    assert not ties.changed


def test_an_end_that_says_nothing_hides_no_other(proc: RealClock) -> None:
    """Of a stranger that nobody noted, and of one that stays with its container."""
    ties = Ties(proc)
    stays = client(proc, 700, 60, name=None, ask=replace(PLAIN, attached=True))
    one = client(proc, 701, 60, name=None, ask=PLAIN)
    named = client(proc, 702, 60)
    ties.note([stays, named, one])
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    stranger = process(None, identity=Identity(999, 1))
    who = (stranger, *(known.process for known in (stays, named, one)))
    ties.told(ClientEnd(process, 0, at) for process in who)
    created_by = {noted.client.process.pid: noted.created_by for noted in ties.all()}
    assert created_by[700] is None and created_by[702] is None
    assert created_by[701] is not None and abs(created_by[701] - time.time()) < 30


ATTACHED = replace(PLAIN, attached=True)
RUNS = ExecAsk("busy", ("sleep", "5"), attached=True, sure=True)


class Sockets:
    """What the clients hold open, and what is connected to each engine's socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[int, int] = {}  # pid -> how many connections
        self.engine = "/here"
        self.asked: list[int] = []
        monkeypatch.setattr("dagstop.host.unix_peers.sockets_of", self.sockets_of)
        monkeypatch.setattr("dagstop.host.unix_peers.connected_to", self.connected_to)

    def sockets_of(self, root: str, pid: int) -> frozenset[int]:
        self.asked.append(pid)
        return frozenset(range(pid * 10, pid * 10 + self.held.get(pid, 0)))

    def connected_to(self, path: str) -> frozenset[int]:
        numbers = [range(pid * 10, pid * 10 + count) for pid, count in self.held.items()]
        return frozenset(n for them in numbers for n in them) if path == self.engine else frozenset()


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    return Sockets(monkeypatch)


@pytest.mark.parametrize(
    ("asks", "held", "created"),
    [
        ({"ask": ATTACHED}, 3, True),
        ({"ask": ATTACHED}, 2, False),
        ({"ask": PLAIN}, 3, False),  # it may have others open
        ({"runs": RUNS}, 2, True),
        ({"runs": RUNS}, 1, False),
        ({"runs": replace(RUNS, attached=False)}, 2, False),
    ],
)
def test_how_many_connections_prove_what_a_client_has_created(
    proc: RealClock, sockets: Sockets, asks: dict[str, Any], held: int, created: bool
) -> None:
    ties = Ties(proc)
    ties.note([replace(client(proc, 700, 5, name=None), **asks)])
    (one,) = ties.all()
    ties.saved()
    ties.connections.see(["tcp://far", HERE])
    assert one.reached == "" and one.created_by is None and not ties.changed
    sockets.held[700] = held
    ties.connections.see(["tcp://far", "unix:///another", HERE])
    assert one.reached == HERE and ties.changed
    if one.streams_since is not None:  # for a moment an exec may have two as well
        assert one.created_by is None
        one.streams_since -= connections.EXECS_FOR
        since = one.streams_since
        ties.connections.see([HERE])
        assert one.streams_since == since
    assert (one.created_by is not None) is created
    assert created or one.streams_since is None
    if one.created_by is not None:
        assert abs(one.created_by - time.time()) < 30


def composing(proc: RealClock, pid: int = 700, *words: str) -> Client:
    argv = ("docker", "compose", *words, "up", "-d")
    return replace(client(proc, pid, 5, name=None, of={"argv": argv}), compose=read_compose(argv))


def test_a_program_that_nobody_knows_and_that_is_connected_to_an_engine_is_noted(
    proc: RealClock, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may create what a compose seems to; not the listener itself, nor a client that is known."""
    ties = Ties(proc)
    ties.note([composing(proc), client(proc, 701, 5, name=None, ask=PLAIN), client(proc, 702, 5)])
    proc.end(702)
    ties.note([])
    ours = {os.getpid(): 2, 700: 3, 701: 1}
    for held, url, seen in (
        (ours, HERE, 0),
        (ours | {999: 1}, "unix:///elsewhere", 0),
        (ours | {999: 1}, "tcp:///here", 0),
        (ours | {999: 1}, HERE, 1),
        (ours | {702: 1}, HERE, 2),  # another process has that pid by now
    ):
        sockets.held = dict(held)
        before = time.time()
        ties.connections.see_others(url)
        assert len(ties.connections.strangers) == seen, (held, url)
    assert before <= ties.connections.strangers[-1] <= time.time()


def test_a_connection_of_a_moment_is_nobodys(
    proc: RealClock, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one that the listener itself has closed meanwhile."""
    ties = Ties(proc)
    ties.note([composing(proc)])
    sockets.held = {999: 1}
    answers = iter([frozenset({1, 2}), frozenset({3})])
    monkeypatch.setattr("dagstop.host.unix_peers.connected_to", lambda _: next(answers))
    ties.connections.see_others(HERE)
    assert ties.connections.strangers == []


def test_while_nothing_composes_nobody_asks_who_is_connected(
    proc: RealClock, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 701, 5, name=None, ask=PLAIN)])
    monkeypatch.setattr("dagstop.host.unix_peers.connected_to", lambda _: pytest.fail("it asks"))
    ties.connections.see_others(HERE)


def test_of_more_strangers_than_it_keeps_the_oldest_are_forgotten_and_that_is_known(
    proc: RealClock, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST", 2)
    ties = Ties(proc)
    ties.note([composing(proc)])
    sockets.held = {999: 1}
    for _ in range(3):
        ties.connections.see_others(HERE)
    _, second, third = ties.connections.strangers
    assert ties._clients.forgot_at == float("-inf")
    ties.connections.see_others(HERE)
    assert ties.connections.strangers[:2] == [second, third] and len(ties.connections.strangers) == 3
    assert ties._clients.forgot_at == third, "what was seen by then may not be known any more"


def test_one_compose_among_other_clients_is_enough(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 701, 5, label=None, name=None, ask=PLAIN)])
    assert not (ties.composes() or ties.connections.composes_now() or ties.may_count(HERE))
    ties.note([client(proc, 702, 5, name=None, ask=PLAIN)])
    assert not ties.composes(), "a task's `docker run` composes nothing"
    ties.note([composing(proc)])
    assert ties.composes() and ties.connections.composes_now() and ties.may_count(HERE)


def test_one_client_that_holds_nothing_hides_no_other(proc: RealClock, sockets: Sockets) -> None:
    ties = Ties(proc)
    ties.note([client(proc, pid, 5, name=None, ask=ATTACHED) for pid in (700, 701)])
    sockets.held[701] = 3
    ties.connections.see([HERE])
    assert [one.reached for one in ties.all()] == ["", HERE]


def test_who_holds_connections_that_reach_no_engine_is_not_known(proc: RealClock, sockets: Sockets) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 5, name=None, ask=ATTACHED)])
    (one,) = ties.all()
    sockets.held[700], sockets.engine = 3, "/elsewhere"
    ties.connections.see([HERE, "tcp:///elsewhere"])
    assert (one.reached, one.created_by) == ("", None)


def test_a_pid_that_was_given_out_again_reaches_nothing(proc: RealClock, sockets: Sockets) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 5, name=None, ask=ATTACHED)])
    (one,) = ties.all()
    proc.end(700)
    proc.add(700, argv=("docker", "run"), start=proc.ago(1))
    sockets.held[700] = 3
    ties.connections.see([HERE])
    assert (one.reached, one.created_by) == ("", None)


def test_whose_connections_are_looked_at(
    proc: RealClock, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time of those that have just begun, now and then of the others, never of what is known."""
    monkeypatch.setattr(connections, "LOOK_PAUSE", 1000.0)  # however slow the test is
    ties = Ties(proc)
    old = client(proc, 700, 60, name=None, ask=ATTACHED)
    young = client(proc, 701, 1, name=None, ask=ATTACHED)
    known = [client(proc, pid, 60, name=None, ask=PLAIN) for pid in (702, 703, 704)]
    named = client(proc, 705, 60)  # an earlier listener's: its words are not known
    ties.note([old, young, *known, named])
    by_pid = {one.client.process.pid: one for one in ties.all()}
    by_pid[700].noted_at -= connections.YOUNG
    by_pid[701].noted_at += 1000
    by_pid[702].container, by_pid[703].created_by, by_pid[704].reached = "1" * 64, 5.0, HERE
    ties.connections.see([HERE])
    assert sockets.asked == [700, 701]
    sockets.asked.clear()
    ties.connections.see([HERE])
    assert sockets.asked == [701]
    sockets.asked.clear()
    ties.connections._next_look = 0.0
    proc.end(701)
    ties.note([])
    ties.connections.see([HERE])
    assert sockets.asked == [700]


def test_a_client_that_has_just_begun_is_about_to_connect(proc: RealClock) -> None:
    ties = Ties(proc)
    assert not ties.connections.about_to_connect()
    stranger = client(proc, 700, 0, label=None, name=None, ask=PLAIN)
    ties.note([stranger])
    assert not ties.connections.about_to_connect()
    ties.note([client(proc, 701, 0, name=None, ask=ATTACHED)])
    one = ties.all()[1]
    one.noted_at += 1000  # however slow the test is
    assert ties.connections.about_to_connect()
    one.reached = HERE
    assert not ties.connections.about_to_connect()
    one.reached, one.created_by = "", 5.0
    assert not ties.connections.about_to_connect()
    one.created_by, one.noted_at = None, one.noted_at - 1000 - 2 * connections.BEGINS
    assert not ties.connections.about_to_connect()
    one.noted_at += 1000
    proc.end(701)
    assert not ties.connections.about_to_connect()


def test_what_an_engine_creates_counts_while_a_tasks_client_may_have_asked_for_it(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 5, label=None, name=None, ask=PLAIN), client(proc, 701, 5)])
    assert not ties.may_count(HERE)
    ties.note([client(proc, 702, 5, name=None, ask=PLAIN)])
    one = ties.all()[2]
    assert ties.may_count(HERE)
    for facts in ({"container": "1" * 64}, {"failed": True}, {"reached": "unix:///another"}):
        for name, value in facts.items():
            usual = getattr(one, name)
            setattr(one, name, value)
            assert not ties.may_count(HERE), facts
            setattr(one, name, usual)
    one.reached = HERE
    assert ties.may_count(HERE)
    one.failed = True
    ties.note([replace(client(proc, 703, 5, name=None), runs=RUNS)])
    assert ties.may_count(HERE)


def test_an_exec_is_open_until_it_is_tied_or_gone(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 5, name=None, ask=PLAIN)])
    ties.note([replace(client(proc, 701, 5, label=None, name=None), runs=RUNS)])
    assert not ties.execs.open()
    ties.note([replace(client(proc, pid, 5, name=None), runs=RUNS) for pid in (702, 703)])
    assert ties.execs.open()
    of_task = ties.all()[2:]
    of_task[0].container = "e"
    assert ties.execs.open()
    proc.end(703)
    ties.note([])
    assert not ties.execs.open()


def test_whether_its_connections_may_say_something(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 5, name=None, ask=ATTACHED)])
    (one,) = ties.all()
    assert one.unproven
    one.reached = HERE
    assert one.unproven  # it may be seen to have created what it is attached to
    one.client = replace(one.client, ask=PLAIN)
    assert not one.unproven
    one.reached = ""
    assert one.unproven
    for name, value in (("container", "1" * 64), ("created_by", 5.0), ("client", client(proc, 701, 5))):
        usual = getattr(one, name)
        setattr(one, name, value)
        assert not one.unproven
        setattr(one, name, usual)
    one.client = composing(proc, 702)
    assert one.unproven
    one.reached = HERE
    assert not one.unproven, "what it creates is not seen by that"


@pytest.mark.parametrize(
    ("rival", "sure"),
    [
        (None, True),
        ({"runs": RUNS}, False),
        ({"runs": RUNS, "label": OURS}, True),
        ({"runs": replace(RUNS, command=("sleep", "6"))}, True),
        ({"runs": replace(RUNS, command=("sleep", "6"), sure=False)}, False),
        ({"ask": ATTACHED}, True),  # it runs nothing in a container that is there
        ({}, True),
    ],
)
def test_what_an_attached_exec_runs_is_its_if_no_other_is_known_to_ask_for_it(
    proc: RealClock, rival: dict[str, Any] | None, sure: bool
) -> None:
    ties = Ties(proc)
    ties.note([replace(client(proc, 700, 60, name=None), runs=RUNS)])
    (mine,) = ties.all()
    mine.reached, mine.created_by = HERE, time.time() - 25
    if rival is not None:
        facts = {"label": OTHERS, **rival}
        ties.note([replace(client(proc, 701, 60, label=facts.pop("label"), name=None), **facts)])
    inside = container(30, 1, "busy")
    ties.tie(HERE, [inside], time.monotonic() + 60, made_by_engine(inside, exec_of=("e", "sleep 5")))
    assert [one.container for one in ties.execs.of(HERE)] == (["e1"] if sure else [])


def test_what_one_engine_says_of_an_exec_is_no_word_of_another(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    ties.note([replace(client(proc, 700, 5, name=None), runs=replace(RUNS, attached=False))])
    (one,) = ties.all()
    one.reached = HERE
    creations.heard(exec_event("e", 2))
    ties.execs.note(HERE, creations)
    assert ties.execs.untied().keys() == {"e"}
    ties.execs.note("unix:///another", Creations())
    assert ties.execs.untied().keys() == {"e"}
    one.failed = True
    ties.execs.note(HERE, creations)
    assert ties.execs.untied() == {}


def test_what_one_exec_may_run_on_several_engines_is_named_for_each(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([replace(client(proc, 700, 5, name=None), runs=RUNS)])
    (one,) = ties.all()
    engines = {"e": "unix:///another", "f": HERE, "g": "unix:///another"}
    one.may_run = {ident: MayRun(url, "others", "web", "sh", 7.5) for ident, url in engines.items()}
    assert ties.execs.untied(HERE).keys() == {"f"}
    assert ties.execs.untied("unix:///another").keys() == {"e", "g"}
    assert ties.execs.untied().keys() == engines.keys()


@pytest.mark.parametrize(
    ("engine", "named"), [(None, True), (HERE, True), (ANOTHER_CONTEXT, True), ("tcp://far", False)]
)
def test_a_client_may_have_created_what_is_on_the_engine_that_it_talks_to(
    proc: RealClock, engine: str | None, named: bool
) -> None:
    """Which engine a context means is not known here."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, engine=engine, ask=PLAIN)])
    tied(ties, container(30, 1, "calm_euler"))
    assert bool(ties.untied()) is named


def test_what_a_later_listener_kept_stays_though_it_knows_what_the_engine_created(proc: RealClock) -> None:
    """It does not know the client's words any more."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=PLAIN)])
    mine, other = container(30, 1, "calm_euler"), container(30, 2, "web")
    tied(ties, mine, other)
    (one,) = ties.all()
    one.created_by = time.time()
    (known,) = (json.loads(json.dumps(one.facts())) for one in ties.all())
    later = Ties(proc)
    later.restore([noted(known, OURS, None)])
    for _ in range(2):
        later.tie(HERE, [mine, other], time.monotonic() + 60, made_by_engine(mine, other))
        assert later.untied().keys() == {mine.id}
    later.tie(HERE, [other], time.monotonic() + 60, made_by_engine(mine, other))
    assert later.untied() == {}


def test_a_client_that_knows_its_words_asks_for_them_again(proc: RealClock) -> None:
    """What it was thought to have created, and has not, is not kept."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=PLAIN)])
    mine = container(30, 1, "calm_euler")
    tied(ties, mine)
    assert ties.untied().keys() == {mine.id}
    renamed = replace(mine, name="web")
    ties.tie(HERE, [renamed], time.monotonic() + 60, made_by_engine(mine))
    assert ties.untied() == {}


def test_what_a_client_may_have_created_stays_where_the_engines_events_are_not_known(proc: RealClock) -> None:
    """As in `dagstop explain`: the listener, which knows them, found it."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=PLAIN)])
    mine = container(30, 1, "calm_euler")
    for name in ("calm_euler", "web"):
        tied(ties, replace(mine, name=name))
        assert ties.untied().keys() == {mine.id}


def test_a_client_that_an_earlier_release_kept_is_believed(proc: RealClock) -> None:
    """It kept no doubted one, and said nothing of doubts."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    (known,) = (one.facts() for one in ties.all())
    for name in ("doubts", "unread", "failed", "reached", "created_by", "fitting", "may_run"):
        del known[name]
    again = noted(known, OURS, None)
    assert again.client.process.trusted and again.client.process.evidence == ("environment",)
    assert (again.failed, again.reached, again.created_by, again.fitting) == (False, "", None, {})


@pytest.mark.parametrize(
    ("words", "may"),
    [
        ("docker exec --new busy sleep", True),
        ("docker exec --new cccc sleep", True),
        ("docker exec --new ccc sleep", False),
        ("docker exec --new other sleep", False),
    ],
)
def test_an_exec_that_is_not_understood_may_be_of_any_container_that_it_names(
    proc: RealClock, words: str, may: bool
) -> None:
    ties, creations = Ties(proc), Creations()
    one = client(proc, 700, 5, name=None, of={"argv": tuple(words.split())})
    ties.note([replace(one, runs=replace(RUNS, sure=False))])
    creations.heard(exec_event("e", 2, "sleep 7"))
    ties.execs.note(HERE, creations)
    assert bool(ties.execs.untied()) is may


@pytest.mark.parametrize(("before", "may"), [(50, True), (150, False)])
def test_an_exec_is_asked_for_once_its_client_lives(
    proc: RealClock, before: float, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a tick, and what a clock is adjusted by."""
    for module in (counting, fitting, execs):  # however busy the machine is
        monkeypatch.setattr(module, "SLACK", 100.0)
    ties, creations = Ties(proc), Creations()
    ties.note([replace(client(proc, 700, 5, name=None), runs=RUNS)])
    creations.heard(exec_event("e", 5 + before))
    ties.execs.note(HERE, creations)
    assert bool(ties.execs.untied()) is may


@pytest.mark.parametrize(
    ("more", "words", "may"),
    [
        ({"com.docker.compose.project": "p", "com.docker.compose.project.working_dir": "/srv/p"}, "up", True),
        (
            {"com.docker.compose.project": "p", "com.docker.compose.project.working_dir": "/srv/q"},
            "up",
            False,
        ),
        ({"com.docker.compose.project": "p"}, "up", False),
        ({"com.docker.compose.project": "p"}, "-p p up", True),
        (
            {"com.docker.compose.project": "p", "com.docker.compose.project.working_dir": "/srv/q"},
            "--project-directory /srv/q up",
            True,
        ),
        ({"com.docker.compose.project": "p"}, "-p P. up", True),
        (
            {"com.docker.compose.project": "q", "com.docker.compose.project.working_dir": "/srv/q"},
            "-f ../q/compose.yaml up",
            True,
        ),
        (
            {"com.docker.compose.project": "srv", "com.docker.compose.project.working_dir": "/srv"},
            "up",  # it looks for its file upwards
            True,
        ),
        (
            {"com.docker.compose.project": "srv", "com.docker.compose.project.working_dir": "/srv"},
            "-f compose.yaml up",
            False,
        ),
        ({"com.docker.compose.project.working_dir": "/srv/p"}, "up", False),
        ({}, "up", False),
    ],
)
def test_a_compose_may_have_created_what_is_of_its_project(
    proc: RealClock, more: dict[str, str], words: str, may: bool
) -> None:
    """By its folder, or as its words name it; never what was there before."""
    ties = Ties(proc)
    argv = ("docker", "compose", *words.split())
    one = replace(client(proc, 700, 60, name=None, of={"argv": argv}), compose=read_compose(argv))
    proc.works_in(700, "/srv/p")
    ties.note([client(proc, 699, 60, label=None, name=None, ask=PLAIN), one])
    shape = Shape((), (), {}, more, False, False, False)
    young, old = replace(container(30, 1), shape=shape), replace(container(90, 2), shape=shape)
    tied(ties, young, old, container(30, 3))
    assert ties.untied().keys() == ({young.id} if may else set())
    if may:
        ((one_of,),) = ties.untied().values()
        assert "docker compose, pid 700, may have created it" in one_of.why


def test_a_container_that_came_while_an_exec_was_asked_for_is_not_the_execs(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([replace(client(proc, 700, 60, name=None), runs=RUNS)])
    (one,) = ties.all()
    one.reached, one.created_by = HERE, time.time() - 25
    came = container(30, 1, "calm_euler")
    ties.tie(HERE, [came], time.monotonic() + 60, made_by_engine(came))
    assert ties.clients() == {} and ties.untied() == {}


def test_who_ended_a_moment_ago_is_kept_until_a_listing_that_began_later(
    proc: RealClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asked for may not have started when that listing was made."""
    monkeypatch.setattr(clients_module, "LATE", 1000.0)  # however slow the test is
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, label=None)])
    proc.end(700)
    ties.note([])
    ties.tie(HERE, [], time.monotonic() + 500)
    assert len(ties.all()) == 1
    ties.tie(HERE, [], time.monotonic() + 1500)
    assert ties.all() == []


def test_a_cidfile_is_read_by_one_thread_that_nobody_waits_for(
    proc: RealClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless asked to: its file system may hang."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, cidfile="cid"), client(proc, 701, 60)])
    (one, _) = ties.all()
    may_go_on, asked = threading.Event(), []

    def read(of: Client, path: str | None) -> str:
        asked.append(of.process.pid)
        may_go_on.wait(60)
        return "1" * 64

    monkeypatch.setattr("dagstop.evidence.cidfiles.read", read)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda *_: pytest.fail("it waits"))
        ties.read_cidfiles()
        ties.read_cidfiles()
    assert one.cid == ""
    may_go_on.set()
    ties.read_cidfiles(60.0)
    assert (one.cid, asked) == ("1" * 64, [700])
    ties.read_cidfiles(60.0)
    assert asked == [700], "it is known"
    assert ties._reading.daemon, "the listener can end while it hangs"
    assert tied(ties, container(30, 1)) == ["1"]


def test_what_runs_no_more_still_rules_itself_out(proc: RealClock) -> None:
    """Two came in the client's time; one is gone, and was seen to be something else."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=replace(PLAIN, command=("sleep", "5")))])
    (one,) = ties.all()
    one.reached, one.created_by = HERE, time.time() - 25
    shape = Shape(("sleep", "5"), (), {}, {}, False, False, False)
    mine = replace(container(30, 1, "calm_euler"), shape=shape)
    gone = replace(container(30, 2, "odd_euler"), shape=replace(shape, command=("true",)))
    later = time.monotonic() + 60
    ties.tie(HERE, [mine], later, made_by_engine(mine, gone))
    assert ties.clients() == {}
    ties.tie(HERE, [mine], later, made_by_engine(mine, gone), {gone.id: gone})
    assert ties.clients().keys() == {mine.id}


def test_of_more_ends_of_execs_than_it_keeps_the_oldest_are_forgotten(
    proc: RealClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs, "MOST", 2)
    ties = Ties(proc)
    for ident in "abc":
        ties.execs.ended(ident)
    assert list(ties.execs._ended) == ["b", "c"]


@pytest.mark.parametrize(
    ("known", "whole", "why"),
    [
        ({}, True, "it was not seen connected to this engine"),
        ({"reached": HERE}, True, "it was not seen to have"),
        ({"reached": HERE, "created_by": 25}, True, "and so may others"),
        ({"reached": HERE, "created_by": 25}, False, "the engine's events do not reach back that far"),
        ({"reached": HERE, "created_by": 25}, None, "and so may others"),
        ({"reached": "unix:///another"}, True, None),
        ({"failed": True}, True, None),
    ],
)
def test_why_it_is_not_certain_what_a_client_created(
    proc: RealClock, known: dict[str, Any], whole: bool | None, why: str | None
) -> None:
    """whole: the engine's events of that time are known; None: nobody asks for them."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=PLAIN)])
    (one,) = ties.all()
    for name, value in known.items():
        setattr(one, name, time.time() - value if name == "created_by" else value)
    found = [container(30, number, "calm_euler") for number in (1, 2)]
    creations = {True: made_by_engine(*found), False: Creations(), None: None}[whole]
    ties.tie(HERE, found, time.monotonic() + 60, creations)
    assert {may.why.partition(": ")[0] for untied in ties.untied().values() for may in untied} <= {
        "docker client 700 may have created it",
        "docker client 700 may have created it, and so may others",
    }
    assert [why in may.why for untied in ties.untied().values() for may in untied if why] == [True] * (
        2 if why else 0
    )


def unread_kin(proc: RealClock, pid: int, age: float, ended: float, label: Label = OURS) -> UnreadKin:
    """A task's process that executed something so many seconds ago and ended unread."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    whose = client(proc, 600, 100, label=label).process
    identity = Identity(pid, proc.ago(age))
    return UnreadKin(identity, whose, now - int(age * 1e9), now - int(ended * 1e9))


def unread_whys(ties: Ties) -> dict[str, list[str]]:
    return {ident[0]: [may.why for may in found] for ident, found in ties.untied().items()}


UNREAD_WHY = "process 700 may have created it: it ended before it was read"


def test_what_came_while_a_tasks_process_was_unread_is_named_as_long_as_it_runs(
    proc: RealClock, tmp_path: Path
) -> None:
    ties = Ties(proc)
    found = [container(age, number) for number, age in ((1, 61), (2, 40), (3, 19))]
    ties.told([], [unread_kin(proc, 700, 60, 20)])
    for _ in range(2):
        ties.name_unread(HERE, found, Creations())
        assert unread_whys(ties) == {"2": [UNREAD_WHY]} and ties.clients() == {}
        seen = ties.untied()[found[1].id][0].client.process
        assert (seen.label, seen.state, seen.argv) == (OURS, "X", ()), "what it was nobody knows"
        ties.tie(HERE, found, time.monotonic() + 60)
    assert ties.changed, "ps and explain read what is saved"
    ties.saved()
    ties.name_unread(HERE, found, Creations())
    assert not ties.changed, "it is named already"
    memory.save(tmp_path, "boot", [], ties.all())
    later = Ties(proc)
    later.restore(memory.load(tmp_path, "boot").all_clients())
    later.tie(HERE, found, time.monotonic() + 60)
    assert unread_whys(later) == {"2": [UNREAD_WHY]}
    ties.tie(HERE, [], time.monotonic() + 60)
    assert unread_whys(ties) == {}


@pytest.mark.parametrize(
    "more",
    [
        {"tags": {"AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_DAG_RUN_ID": "r"}},
        {"airflow": Airflow("/opt/airflow", None, None)},
        {"kubernetes": "default"},
        {"tags": {"DAGSTOP_SPARE": "1"}},
    ],
)
def test_what_says_whose_it_is_was_not_created_by_who_was_unread(
    proc: RealClock, more: dict[str, Any]
) -> None:
    ties = Ties(proc)
    ties.told([], [unread_kin(proc, 700, 60, 20)])
    ties.name_unread(HERE, [replace(container(40, 1), **more)], Creations())
    assert ties.untied() == {}


def test_of_more_that_ended_unread_than_it_keeps_the_latest_are_asked_for(
    proc: RealClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients_module, "MOST", 2)
    ties = Ties(proc)
    kin = unread_kin(proc, 700, 60, 20)
    ties.told([], [kin._replace(identity=Identity(pid, kin.identity.start)) for pid in (700, 701, 702)])
    ties.name_unread(HERE, [container(40, 1)], Creations())
    assert [one.client.process.pid for one in ties.all()] == [701, 702]


def test_what_is_known_to_be_a_clients_was_not_created_by_who_was_unread(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 701, 60, label=OTHERS)])
    ties.told([], [unread_kin(proc, 700, 60, 20)])
    found = container(40, 1)
    ties.tie(HERE, [found], time.monotonic() + 60)
    ties.name_unread(HERE, [found], Creations())
    assert ties.untied() == {} and set(ties.clients()) == {found.id}


def test_each_that_ended_unread_may_have_asked_for_what_came_in_its_own_life(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    one = unread_kin(proc, 700, 60, 50)
    other = one._replace(
        identity=Identity(701, one.identity.start), since=one.since + 30 * 10**9, until=one.until + 30 * 10**9
    )
    spared = replace(container(55, 1), tags={"DAGSTOP_SPARE": "1"})
    found = [spared, container(55, 2), container(40, 3), container(25, 4)]
    for event in (exec_event("first", 55), exec_event("between", 40), exec_event("second", 25)):
        creations.heard(event)
    ties.name_unread(HERE, found, creations)  # nobody ended unread so far
    ties.told([], [one])
    new = ties.told([], [other])
    ties.name_unread(HERE, found, creations, new)
    assert (set(unread_whys(ties)), set(ties.execs.untied())) == ({"4"}, {"second"}), "of the new one only"
    at_once = Ties(proc)
    at_once.told([], [one, other])
    for whole in (ties, at_once):
        whole.name_unread(HERE, found, creations)
        assert (set(unread_whys(whole)), set(whole.execs.untied())) == ({"2", "4"}, {"first", "second"})


@pytest.mark.parametrize(("ended", "lately"), [(LATE - 1, True), (LATE + 1, False)])
def test_what_a_process_asked_for_that_ended_a_moment_ago_may_not_be_heard_of_yet(
    proc: RealClock, ended: float, lately: bool
) -> None:
    ties = Ties(proc)
    assert not ties.unread_lately()
    ties.told([], [unread_kin(proc, 700, 60, ended)])
    assert ties.unread_lately() is lately


def test_what_turns_out_to_be_a_clients_is_named_no_more(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.told([], [unread_kin(proc, 700, 60, 20)])
    found = container(40, 1)
    ties.name_unread(HERE, [found], Creations())
    ties.note([client(proc, 701, 60, label=OTHERS)])
    ties.tie(HERE, [found], time.monotonic() + 60)
    assert ties.untied() == {} and set(ties.clients()) == {found.id}


def test_what_was_to_be_run_in_a_container_while_a_tasks_process_was_unread_is_named(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    ties.told([], [unread_kin(proc, 700, 60, 20)])
    for event in (exec_event("early", 61), exec_event("then", 40), exec_event("late", 19)):
        creations.heard(event)
    for _ in range(2):
        ties.name_unread(HERE, [], creations)
        ((ident, (runs, (may,))),) = ties.execs.untied().items()
        assert (ident, runs.runs) == ("then", "sleep 5")
        assert may.why == "process 700 may have asked for it: it ended before it was read"
    ties.saved()
    ties.name_unread(HERE, [], creations)
    assert not ties.changed, "it is named already"
    ties.execs.ended("then")
    ties.name_unread(HERE, [], creations)
    assert ties.execs.untied() == {}


def test_of_several_that_ended_unread_each_is_asked_for(proc: RealClock) -> None:
    ties = Ties(proc)
    kin = unread_kin(proc, 700, 60, 20)
    later = kin._replace(identity=Identity(701, kin.identity.start), since=kin.since + 30 * 10**9)
    ties.told([], [kin, later])
    ties.name_unread(HERE, [container(40, 1), container(25, 2)], Creations())
    assert unread_whys(ties) == {"1": [UNREAD_WHY], "2": [UNREAD_WHY, UNREAD_WHY.replace("700", "701")]}


def test_the_times_of_who_ended_unread_are_not_exact(
    proc: RealClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (execs, fitting):
        monkeypatch.setattr(module, "SLACK", 5.0)
    ties, creations = Ties(proc), Creations()
    ties.told([], [unread_kin(proc, 700, 60, 20)])
    times = {1: 70, 2: 62, 3: 18, 4: 10}
    for number, ago in times.items():
        creations.heard(exec_event(str(number), ago))
    ties.name_unread(HERE, [container(ago, number) for number, ago in times.items()], creations)
    assert ties.execs.untied().keys() == {"2", "3"}
    assert unread_whys(ties).keys() == {"2", "3"}


@pytest.mark.parametrize(("ended_ago", "may"), [(1, True), (30, False)])
def test_an_exec_that_came_after_a_clients_end_is_not_its(
    proc: RealClock, ended_ago: float, may: bool
) -> None:
    ties, creations = Ties(proc), Creations()
    ties.note([replace(client(proc, 700, 60, name=None), runs=RUNS)])
    (one,) = ties.all()
    one.until = datetime.now(timezone.utc) - timedelta(seconds=ended_ago)
    creations.heard(exec_event("e", 20))
    ties.execs.note(HERE, creations)
    assert bool(ties.execs.untied()) is may


@pytest.mark.parametrize("other", ["tcp://x/here", "unix:///there"])
def test_two_engines_are_not_one(other: str) -> None:
    assert one_engine(HERE, HERE) and one_engine("tcp://x", "tcp://x")
    assert not one_engine(HERE, other) and not one_engine(other, HERE)


def test_all_that_is_known_of_a_client_comes_back(proc: RealClock) -> None:
    """A reason that a later release gave counts as the weakest."""
    ties = Ties(proc)
    unread = {"unread": {"ns/pid": "permission denied"}}
    ties.note([client(proc, 700, 60, engine="tcp://far", cidfile="cid", of=unread)])
    (one,) = ties.all()
    one.path, one.cid, one.failed, one.reached, one.created_by = "/srv/cid", "1" * 64, True, HERE, 5.5
    one.composed = {"a": HERE}
    one.fitting = {"b": Fit(HERE, "gap"), "c": Fit(HERE, "of tomorrow")}
    one.may_run = {name: MayRun(HERE, why, "web", "sh", 7.5) for name, why in (("e", "others"), ("f", "x"))}
    again = noted(json.loads(json.dumps(one.facts())), OURS, None)
    for name in ("path", "cid", "failed", "reached", "created_by", "composed", "container", "engine"):
        assert getattr(again, name) == getattr(one, name), name
    assert again.fitting == {"b": Fit(HERE, "gap"), "c": Fit(HERE, "unproven")}
    assert again.may_run["e"] == one.may_run["e"]
    assert again.may_run["f"] == MayRun(HERE, "unproven", "web", "sh", 7.5)
    named = again.client
    assert (named.name, named.cidfile, named.engine) == ("x", "cid", "tcp://far")
    assert named.process.identity == one.client.process.identity and named.process.trusted
    assert named.process.unread == unread["unread"]
    assert again.until is not None and abs(again.until.timestamp() - time.time()) < 60


def test_when_a_client_ended_comes_back_or_of_one_that_lives_when_that_was_saved(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60)])
    (one,) = ties.all()
    ended = datetime.now(timezone.utc) - timedelta(seconds=1000)
    for until, ago in ((ended, 1000), (None, 0)):
        one.until = until
        again = noted(json.loads(json.dumps(one.facts())), OURS, None)
        assert again.until is not None
        assert abs(time.time() - again.until.timestamp() - ago) < 60


@pytest.mark.parametrize(("image", "may"), [("image", True), ("another", False)])
def test_a_client_that_is_not_understood_may_have_created_what_is_of_an_image_that_it_names(
    proc: RealClock, image: str, may: bool
) -> None:
    ties = Ties(proc)
    words = ("docker", "run", "--new", image, "sleep")
    asks = replace(PLAIN, sure=False)
    ties.note([client(proc, 700, 60, name=None, ask=asks, of={"argv": words})])
    tied(ties, container(30, 1, "calm_euler"))
    assert bool(ties.untied()) is may


def test_an_exec_that_is_another_clients_or_has_ended_is_in_doubt_no_more(proc: RealClock) -> None:
    ties, creations = Ties(proc), Creations()
    ties.note([replace(client(proc, pid, 5, name=None), runs=RUNS) for pid in (700, 701)])
    for ident in ("e", "f"):
        creations.heard(exec_event(ident, 2))
    ties.execs.note(HERE, creations)
    assert ties.execs.untied().keys() == {"e", "f"}
    ties.all()[0].container = "e"
    ties.execs.note(HERE, creations)
    assert ties.execs.untied().keys() == {"f"}
    ties.execs.ended("f")
    ties.execs.note(HERE, creations)
    assert ties.execs.untied() == {}


@pytest.mark.parametrize("facts", [{"reached": "unix:///another"}, {"reached": ""}, {"container": "x"}])
def test_what_another_engine_or_another_client_runs_is_no_execs(
    proc: RealClock, facts: dict[str, str]
) -> None:
    ties = Ties(proc)
    ties.note([replace(client(proc, 700, 60, name=None), runs=replace(RUNS, attached=False))])
    (one,) = ties.all()
    one.reached, one.created_by = HERE, time.time() - 25
    for name, value in facts.items():
        setattr(one, name, value)
    inside = container(30, 1, "busy")
    ties.tie(HERE, [inside], time.monotonic() - 60, made_by_engine(inside, exec_of=("e", "sleep 5")))
    assert one.container == facts.get("container", "")


def test_what_was_there_before_a_client_is_not_its_though_it_began_to_run_meanwhile(proc: RealClock) -> None:
    """As after a restart: a `docker run` creates what it starts."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, name=None, ask=PLAIN)])
    before = container(90, 1, "calm_euler")
    tied(ties, replace(before, started_at=before.created_at + timedelta(seconds=60)))
    assert ties.untied() == {}


def test_what_a_stranger_may_have_created_is_nobodys_concern(proc: RealClock) -> None:
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, label=None, name=None, ask=PLAIN)])
    tied(ties, container(30, 1, "calm_euler"))
    assert ties.untied() == {}


@pytest.mark.parametrize("of", [{"kin_spared": True}, {"environ": {"DAGSTOP_SPARE": "1"}}])
def test_a_wish_to_be_spared_is_no_doubt_of_a_client(proc: RealClock, of: dict[str, Any]) -> None:
    """It is kept with the wish; what is in doubt is kept apart."""
    ties = Ties(proc)
    ties.note([client(proc, 700, 60, of=of), client(proc, 701, 60, of={"trusted": False, **of})])
    assert [one.undoubted for one in ties.all()] == [True, False]
