"""No client is ever tied to a container that another one created: in random worlds of which the truth is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from random import Random

import pytest

from dagstop.evidence.creators import Creator, assigned, fits, may_be, may_run, resolve
from dagstop.evidence.docker_words import Ask, read_ask, read_exec, read_words
from dagstop.host.containers import Container, Shape
from dagstop.host.creations import Creation, ExecCreation
from dagstop.model import Identity

WORLDS = int(os.environ.get("DAGSTOP_WORLDS", "1000"))


def ask(line: str) -> Ask:
    words = read_words(line.split())
    found = read_ask(words) if words is not None else None
    assert found is not None and found.sure
    return found


def container(ident: str, made_by: Ask, name: str, at: float) -> Container:
    """As the docker CLI makes it."""
    shape = Shape(
        made_by.command or ("of", "image"),
        (made_by.entrypoint,) if made_by.entrypoint else (),
        {"PATH": "/bin", **made_by.environment},
        {"of": "image", **made_by.labels},
        made_by.remove,
        made_by.tty,
        made_by.stdin,
    )
    moment = datetime.fromtimestamp(at, timezone.utc)
    return Container(ident, name, made_by.image, 0, moment, False, "no", {}, shape=shape)


LINES = [
    "docker run img sleep 5", "docker run -d img sleep 5", "docker run -d img sleep 6", "docker run img",
    "docker run --rm img sleep 5", "docker run -d --name web img sleep 5", "docker run -e A=1 img sleep 5",
    "docker run -e A=2 img sleep 5", "docker create img sleep 5", "docker run --entrypoint sh img -c x",
]  # fmt: skip


@pytest.mark.parametrize("part", range(10))
def test_what_is_tied_is_the_clients_own(part: int) -> None:
    tied = possible = 0
    for seed in range(part, WORLDS, 10):
        random = Random(seed)
        known: list[Creation] = []
        shown: dict[str, Container] = {}
        truth: dict[Identity, str] = {}
        askers: list[tuple[Identity, Ask, float, float]] = []
        lines = random.sample(LINES, random.randrange(1, 4))
        for number in range(random.randrange(1, 8)):
            made_by, at = ask(random.choice(lines)), random.uniform(0, random.choice([1, 5, 60]))
            ident = f"{number}" * 64
            name = made_by.name or random.choice(["calm_ride", "odd_euler7"])
            known.append(Creation(ident, name, made_by.image, at))
            if random.random() < 0.8:  # else it was gone before anybody looked
                shown[ident] = container(ident, made_by, name, at)
            if random.random() < 0.7:  # else by a stranger whom nobody sees
                who = Identity(number, number)
                truth[who] = ident
                since, until = at - random.uniform(0, 1), at + random.uniform(0, random.choice([0.1, 3]))
                askers.append((who, made_by, since, until))
        creators = [
            Creator(who, made_by, since, until, [one for one in known if since - 0.1 <= one.at <= until])
            for who, made_by, since, until in askers
            if random.random() < 0.9  # else it is not proven to have created one
        ]
        found = resolve(creators, shown)
        assert found == {who: truth[who] for who in found}
        tied += len(found)
        possible += len(creators)
    assert tied > possible / 4, "so strict that nothing is tied"


def creators(*asked: tuple[str, float, float], known: Sequence[Creation]) -> list[Creator]:
    return [
        Creator(Identity(n, n), ask(line), since, until, known)
        for n, (line, since, until) in enumerate(asked)
    ]


ONE, OTHER = Creation("a", "calm_ride", "img", 5.0), Creation("b", "odd_euler", "img", 6.0)


def test_two_that_came_in_the_time_of_one_client_are_nobodys() -> None:
    assert resolve(creators(("docker run img", 4, 7), known=[ONE, OTHER]), {}) == {}


def test_what_is_anothers_leaves_one() -> None:
    both = creators(("docker run img", 4, 7), ("docker run img", 5.5, 7), known=[ONE, OTHER])
    assert resolve(both, {}) == {Identity(0, 0): "a", Identity(1, 1): "b"}


def test_two_that_are_sure_of_one_have_none() -> None:
    both = creators(("docker run img", 4, 5.5), ("docker run img", 4, 5.5), known=[ONE])
    assert resolve(both, {}) == {}


@pytest.mark.parametrize(
    ("line", "change", "may_be"),
    [
        ("docker run img a", {}, True),
        ("docker run img a", {"command": ("b",)}, False),
        ("docker run img a", {"command": ()}, False),
        ("docker run img a", {"command": ("", "")}, False),
        ("docker run img a", {"command": ("a", "")}, True),  # /proc/PID/cmdline does not show that
        ("docker run img", {"command": ("whatever",)}, True),
        ("docker run -t img a", {"tty": False}, False),
        ("docker run img a", {"remove": True}, False),
        ("docker run -e A=1 img a", {"environment": {"A": "2"}}, False),
        ("docker run -e A img a", {"environment": {}}, True),
        ("docker run -l a=b img a", {"labels": {}}, False),
        ("docker run --entrypoint x img a", {"entrypoint": ("y",)}, False),
    ],
)
def test_what_rules_a_container_out(line: str, change: dict[str, object], may_be: bool) -> None:
    asked = ask(line)
    made = container("a" * 64, asked, "calm_ride", 0.0)
    assert made.shape is not None
    changed = replace(made, shape=replace(made.shape, **change))  # type: ignore[arg-type]
    assert fits(asked, "calm_ride", "img", changed) == may_be


def test_names_rule_out_and_in() -> None:
    assert not fits(ask("docker run img"), "web", "img", None)
    assert not fits(ask("docker run img"), "project-web-1", "img", None)
    assert fits(ask("docker run img"), "calm_ride3", "img", None)
    assert not fits(ask("docker run --name web img"), "calm_ride", "img", None)
    assert not fits(ask("docker run img"), "calm_ride", "img:latest", None)
    for line in ("docker run img", "docker run --name web img"):
        assert fits(ask(line), "", "img", None), "the engine did not say under which name"


def test_what_two_are_sure_of_takes_nothing_from_a_third() -> None:
    a, b, c = (Identity(n, n) for n in range(3))
    assert assigned({a: {"1"}, b: {"1"}, c: {"2"}}) == {c: "2"}
    assert assigned({a: {"1"}, b: {"1", "2"}, c: {"1", "2", "3"}}) == {a: "1", b: "2", c: "3"}


@pytest.mark.parametrize(("at", "possible"), [(3.8, False), (3.95, True), (7.0, True), (7.1, False)])
def test_a_container_comes_while_its_client_lives(at: float, possible: bool) -> None:
    (creator,) = creators(("docker run img", 4, 7), known=[])
    assert may_be(creator, replace(ONE, at=at), None) is possible


@pytest.mark.parametrize(
    ("line", "possible"),
    [
        ("docker exec web sleep 5", True),
        ("docker exec /web sleep 5", True),
        ("docker exec 0123 sleep 5", True),
        ("docker exec web sleep 6", False),
        ("docker exec we sleep 5", False),
        ("docker exec 123 sleep 5", False),
    ],
)
def test_an_exec_is_of_that_container_and_that_command(line: str, possible: bool) -> None:
    words = read_words(line.split())
    asked = read_exec(words) if words is not None else None
    assert asked is not None
    assert may_run(asked, ExecCreation("e", "0123456789ab", "web", "sleep 5 ", 5.0)) is possible


@pytest.mark.parametrize(
    ("words", "same"), [("a b c", True), ("a b  c ", False), ("a x c", False), ("a b", False)]
)
def test_each_word_of_a_command_counts(words: str, same: bool) -> None:
    made = container("c", ask("docker run img a b c"), "calm_ride", 5.0)
    assert made.shape is not None
    shape = replace(made.shape, command=tuple(words.split(" ")))
    assert fits(ask("docker run img a b c"), "calm_ride", "img", replace(made, shape=shape)) is same
