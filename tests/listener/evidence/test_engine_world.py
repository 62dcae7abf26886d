"""Docker clients and an engine whose truth is known: which container is tied to whom, and to whom it must not be.

Clients of two runs and of nobody ask for the same things at the same time. They end well or not, are killed, are
seen or not, talk to another engine; programs that nobody sees create containers, too. The truth is what the test
built: it asks nothing of the code under test but what is tied at the end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

from hypothesis import event, given, settings
from hypothesis import strategies as st

from dagstop.evidence.containers import read_client
from dagstop.evidence.lineage import ClientEnd, UnreadKin
from dagstop.evidence.ties import Ties
from dagstop.host.containers import Container, Shape
from dagstop.host.creations import Creations
from dagstop.model import Identity, Label, Process
from tests.support.fake_proc import RealClock, process

HERE, THERE = "unix:///here", "unix:///there"
OURS, OTHERS = Label(dag_id="d", run_id="r", task_id="t"), Label(dag_id="d", run_id="s", task_id="t")
SPAN = 60
"""Seconds ago at which all of it begins."""


@dataclass(frozen=True)
class Typed:
    """One who asks for a container. Times are seconds ago."""

    whose: Label | None
    image: str
    command: str
    name: str
    attached: bool
    born: float
    lasts: float
    creates: bool
    end: Literal["well", "failed", "killed", "lives"]
    engine: str
    seen: bool  # by the listener, while it lives
    reached: bool  # seen connected to its engine
    told: bool  # the kernel told how it ended
    read: bool  # its words, between two looks: else nobody knows that it was a client

    @property
    def argv(self) -> tuple[str, ...]:
        options = [] if self.attached else ["-d"]
        return (
            "docker",
            "run",
            *options,
            *(["--name", self.name] if self.name else []),
            self.image,
            self.command,
        )

    @property
    def unread(self) -> bool:
        return not self.seen and not self.read

    @property
    def ended(self) -> float:
        return 0.0 if self.end == "lives" else max(0.0, self.born - self.lasts)

    @property
    def created(self) -> float:
        """In the middle of its life."""
        return (self.born + self.ended) / 2


@dataclass(frozen=True)
class Made:
    """A container, and who created it."""

    whose: Label | None
    shown: Container
    ago: float
    removed: float  # seconds ago; 0: it is there


def _known_by_name(one: Typed) -> bool:
    """Of two who ask for one name both are known: docs/limits.md."""
    return not one.name or one.seen or (one.told and one.read and one.end != "lives")


TYPED = st.builds(
    Typed,
    whose=st.sampled_from([OURS, OURS, OTHERS, None]),
    image=st.sampled_from(["tool", "tool", "other"]),
    command=st.sampled_from(["x", "x", "y"]),
    name=st.sampled_from(["", "", "n"]),
    attached=st.booleans(),
    born=st.floats(1, SPAN),
    lasts=st.floats(0.05, SPAN),
    creates=st.booleans(),
    end=st.sampled_from(["well", "well", "failed", "killed", "lives"]),
    engine=st.sampled_from([HERE, HERE, HERE, THERE]),
    seen=st.sampled_from([True, True, True, False]),
    reached=st.sampled_from([True, True, False]),
    told=st.sampled_from([True, True, False]),
    read=st.booleans(),
).filter(_known_by_name)
UNSEEN = st.tuples(st.floats(0.5, SPAN), st.sampled_from(["tool", "other"]), st.sampled_from(["x", "y"]))
"""Containers that programs create of which nobody knows: since when, image, command. The engine names them."""


@dataclass
class World:
    """The truth."""

    typed: Sequence[Typed]
    made: list[Made] = field(default_factory=list)
    by: dict[int, Made] = field(default_factory=dict)  # by the number of the client

    def create(self, unseen: Sequence[tuple[float, str, str]], removed: Sequence[bool]) -> None:
        """All that comes into being, in its order: a name is given once at a time."""
        gone = iter([*removed, *[False] * 100])
        coming: list[tuple[float, int | None, tuple[str, str]]] = [
            (one.created, number, (one.image, one.command))
            for number, one in enumerate(self.typed)
            if one.end == "well" or (one.end != "failed" and one.creates)
        ]
        coming += [(ago, None, (image, command)) for ago, image, command in unseen]
        for ago, number, (image, command) in sorted(coming, key=lambda each: -each[0]):
            one = self.typed[number] if number is not None else None
            if one is not None and one.engine != HERE:
                continue
            name = one.name if one is not None and one.name else f"calm_euler{len(self.made)}"
            if any(made.shown.name == name and made.removed < ago for made in self.made):
                continue  # `clashes` says so of its client
            left = ago / 2 if next(gone) else 0.0
            made = Made(
                one.whose if one else None, _container(ago, len(self.made), name, image, command), ago, left
            )
            self.made.append(made)
            if number is not None:
                self.by[number] = made

    def clashes(self, number: int) -> bool:
        """Whether the engine refused the client, since the name was given."""
        one = self.typed[number]
        return one.end == "well" and one.engine == HERE and number not in self.by


def _container(ago: float, number: int, name: str, image: str, command: str) -> Container:
    made = datetime.now(timezone.utc) - timedelta(seconds=ago)
    shape = Shape((command,), (), {}, {}, remove=False, tty=False, stdin=False)
    return Container(f"{number:064x}", name, image, 700, made, False, "no", {}, shape=shape)


def _event(made: Made) -> dict[str, Any]:
    attributes = {"name": made.shown.name, "image": made.shown.image}
    at = int(made.shown.created_at.timestamp() * 1e9)
    actor = {"ID": made.shown.id, "Attributes": attributes}
    return {"Type": "container", "Action": "create", "timeNano": at, "Actor": actor}


def moments(middle: float | None) -> Iterator[float]:
    """Seconds ago at which the engine is listed."""
    if middle is not None:
        yield middle
    yield 0.0


def watch(world: World, ties: Ties, proc: RealClock, moment: float, heard_since: float) -> None:
    """Tell the ties all that a listener knows by then."""
    for number, one in enumerate(world.typed):
        pid = 1000 + number
        if one.born <= moment or not (proc.path / str(pid)).exists():
            continue
        client = read_client(process(one.whose, identity=_identity(proc, pid), argv=one.argv))
        assert client is not None
        client.process.label = one.whose
        if one.seen:
            ties.note([client])
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        ended = one.end != "lives" and one.ended >= moment
        if ended:
            proc.end(pid)
            if one.told and one.unread:
                ties.told([], [_unread(client.process, one, boot)] if one.whose is not None else [])
            elif one.told:
                ties.told([ClientEnd(client.process, _status(world, number), boot - int(one.ended * 1e9))])
    ties.note([])
    by_pid = {noted.client.process.pid: noted for noted in ties.all()}
    now = datetime.now(timezone.utc)
    for number, one in enumerate(world.typed):
        noted = by_pid.get(1000 + number)
        if noted is None:
            continue
        if noted.until is not None:
            noted.until = now - timedelta(seconds=one.ended)
        if one.reached:
            noted.reached = one.engine
        made = world.by.get(number)
        if one.attached and one.reached and made is not None and made.ago > moment:
            noted.created_by = (made.shown.created_at + timedelta(seconds=0.01)).timestamp()
    known = sorted((made for made in world.made if made.ago > moment), key=lambda made: -made.ago)
    creations = Creations()
    creations.begun(time.time() - heard_since)
    creations.answered([_event(made) for made in known if made.ago < heard_since], time.time() - moment)
    listed = [made.shown for made in known if not made.removed or made.removed < moment]
    ties.tie(HERE, listed, time.monotonic() - moment, creations)
    ties.name_unread(HERE, listed, creations)


def _unread(of: Process, one: Typed, boot: int) -> UnreadKin:
    """Of the same task; it executed its program as soon as it had begun."""
    return UnreadKin(of.identity, of, boot - int(one.born * 1e9), boot - int(one.ended * 1e9))


def _identity(proc: RealClock, pid: int) -> Identity:
    stat = proc.stat(pid)
    assert stat is not None
    return Identity(pid, stat.start)


def _status(world: World, number: int) -> int:
    """As wait(2) has it."""
    if world.typed[number].end == "killed":
        return 9
    return 125 << 8 if world.typed[number].end == "failed" or world.clashes(number) else 0


@settings(max_examples=300)
@given(
    typed=st.lists(TYPED, min_size=1, max_size=6),
    unseen=st.lists(UNSEEN, max_size=2),
    removed=st.lists(st.booleans(), max_size=8),
    middle=st.none() | st.floats(1, SPAN / 2),
    heard_since=st.sampled_from([2.0 * SPAN, 2.0 * SPAN, SPAN / 2]),
)
def test_what_is_tied_to_a_run_is_what_a_client_of_it_created(
    typed: list[Typed],
    unseen: list[tuple[float, str, str]],
    removed: list[bool],
    middle: float | None,
    heard_since: float,
) -> None:
    world = World(typed)
    world.create(unseen, removed)
    with tempfile.TemporaryDirectory() as folder:
        proc = RealClock(Path(folder))
        for number, one in enumerate(typed):
            proc.add(1000 + number, argv=one.argv, start=proc.ago(one.born))
        ties = Ties(proc)
        for moment in moments(middle):
            watch(world, ties, proc, moment, heard_since)
        named = ties.untied()
        tied = {ident: client.process.label for ident, client in ties.clients().items()}
    truth = {made.shown.id: made.whose for made in world.made}
    wrong = {ident: (label, truth[ident]) for ident, label in tied.items() if label and label != truth[ident]}
    assert not wrong
    for number, one in enumerate(typed):
        created = world.by.get(number)
        ended_unread = one.told and one.unread and one.end != "lives"
        if one.whose is not None and ended_unread and created is not None and not created.removed:
            assert created.shown.id in named or created.shown.id in tied, "nobody says anything of it"
    for made in world.made:
        if made.whose is not None:
            event("a task's container is tied" if made.shown.id in tied else "a task's container is not tied")
