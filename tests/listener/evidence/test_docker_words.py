"""A docker command line is read as the docker CLI reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.evidence import docker_words
from dagstop.evidence.docker_words import (
    Ask,
    ComposeAsk,
    may_create,
    read_ask,
    read_compose,
    read_exec,
    read_words,
)
from tests.conftest import missing


def ask(line: str | list[str]) -> Ask | None:
    words = read_words(line.split() if isinstance(line, str) else line)
    return read_ask(words) if words is not None else None


READ: list[tuple[str, dict[str, Any]]] = [
    ("docker run img", {"image": "img", "attached": True, "sure": True}),
    ("docker run -d img sleep 5", {"command": ("sleep", "5"), "attached": False, "sure": True}),
    ("docker run -dit img", {"attached": False, "tty": True, "stdin": True, "sure": True}),
    ("docker run -d=false --rm=true img", {"attached": True, "remove": True, "sure": True}),
    ("docker run --detach=0 --rm=0 img", {"attached": True, "remove": False, "sure": True}),
    ("docker run --detach=maybe img", {"sure": False}),
    ("docker create --rm img", {"attached": False, "remove": True, "sure": True}),
    ("docker create -d img", {"sure": False}),
    ("docker create -d x img", {"sure": False}),
    ("docker run -- --rm", {"image": "--rm", "remove": False}),
    ("docker container run -e A=1 -eB=2 -e=C=3 --env D=4 -e E -e A=5 img",
     {"environment": {"B": "2", "C": "3", "D": "4", "A": "5"}, "sure": True}),
    ("docker run -e A=1 -e B=2 --name A -e B img", {"environment": {"A": "1"}, "sure": True}),
    ("docker run -l a=b --label c img", {"labels": {"a": "b"}, "sure": True}),
    ("docker run -l a=b -e C=1 img", {"labels": {"a": "b"}, "environment": {"C": "1"}, "sure": True}),
    ("docker run --entrypoint sh img -c x", {"entrypoint": "sh", "command": ("-c", "x"), "sure": True}),
    ("docker run -itv /a:/b -p80:80 -w/x -m512m img", {"image": "img", "tty": True, "sure": True}),
    ("docker run -- img --name x", {"image": "img", "command": ("--name", "x"), "name": None}),
    ("docker run --name x --new-option=1 img", {"name": "x", "image": "img", "sure": False}),
    ("docker run --name x", {"name": "x", "image": "", "sure": False}),
    ("docker run -d", {"image": "", "sure": False}),
    ("docker run --disable-content-trust=false img", {"sure": False}),
    ("docker --host tcp://x -D -l debug run img", {"image": "img", "sure": True}),
    ("docker --new=1 run img", {"sure": False}),
    ("podman run -d img", {"image": "img", "attached": False, "sure": False}),
    ("podman run --replace --name x img sleep 5", {"name": "x", "image": "img", "command": ("sleep", "5")}),
    ("docker run --of-tomorrow value img", {"image": "img", "sure": False}),
    ("nerdctl run --name x img", {"name": "x", "sure": False}),
    ("docker run --name= --cidfile= img", {"name": None, "cidfile": None, "image": "img", "sure": True}),
    ("docker run --disable-content-trust img", {"image": "img", "sure": True}),
    ("docker run -d - x", {"image": "-", "command": ("x",), "sure": True}),
    ("docker run --new=1 --rm img", {"remove": True, "sure": False}),
    ("docker run --new=1 -d img", {"attached": False, "sure": False}),
    ("docker run -dZ img sleep", {"attached": False, "image": "sleep", "sure": False}),
    ("docker run --detach=maybe --rm img", {"remove": True, "sure": False}),
    ("docker run -e= img", {"environment": {"": ""}, "sure": True}),
    ("docker run -e=C img", {"environment": {}, "sure": True}),
    ("docker run -e", {"image": "", "sure": False}),
    ("docker run --name", {"name": None, "image": "", "sure": False}),
    ("docker run --sig-proxy=false --detach-keys ctrl-a img", {"image": "img", "sure": True}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "facts"), READ, ids=[line for line, _ in READ])
def test_what_a_line_asks_for(line: str, facts: Mapping[str, Any]) -> None:
    found = ask(line)
    assert found is not None
    assert {name: getattr(found, name) for name in facts} == facts


@pytest.mark.parametrize(
    "line",
    [
        "docker run --help",
        "docker run -d img",
        "docker -v run img",
        "docker --help run img",
        "docker exec c run x",
    ],
)
def test_what_makes_no_container(line: str) -> None:
    assert (ask(line) is None) == (line != "docker run -d img")


def _of_cli(*command: str) -> dict[str, bool]:
    """The options that the installed docker CLI has for a command, and which take no value."""
    if shutil.which("docker") is None:
        missing(RuntimeError("no docker CLI here: apt-get install docker.io"))
    text = subprocess.run(["docker", *command, "--help"], capture_output=True, text=True).stdout
    found = {}
    for letter, name, kind in re.findall(r"^ +(?:-(\w), +)?--([\w-]+)(?: (\S+))?(?=\s\s|$)", text, re.M):
        found[f"--{name}"] = not kind
        if letter:
            found[f"-{letter}"] = not kind
    return found


@pytest.mark.parametrize(
    ("line", "may"),
    [
        ("docker compose up -d", True),
        ("docker compose -f a.yml -p x run web", True),
        ("/usr/libexec/docker/cli-plugins/docker-compose compose up", True),
        ("docker-compose up", True),
        ("docker-compose create", True),
        ("docker-compose scale web=2", True),
        ("docker compose watch", True),
        ("/usr/bin/python3 /usr/bin/docker-compose up", True),
        ("docker compose ps", False),
        ("docker-compose ps", False),
        ("python3 /usr/bin/docker-compose logs", False),
        ("docker run compose up", False),
        ("python3 up.py docker-compose up", False),
        ("sh /usr/bin/docker-compose up", False),
        ("sleep up", False),
        ("docker", False),
        ("python3", False),
        ("docker-compose", False),
        ("docker --version compose up", False),
    ],
)
def test_what_may_be_a_compose_that_creates(line: str, may: bool) -> None:
    assert (read_compose(line.split()) is not None) == may
    assert read_compose([]) is None


@pytest.mark.parametrize(
    ("line", "ask"),
    [
        ("docker compose up -d", ComposeAsk(None, (), None, "up", True, True)),
        (
            "docker compose -p shop -f a.yml -f /srv/b.yml up web",
            ComposeAsk("shop", ("a.yml", "/srv/b.yml"), None, "up", False, True),
        ),
        (
            "docker-compose --project-name=shop --file=a.yml up",
            ComposeAsk("shop", ("a.yml",), None, "up", False, True),
        ),
        (
            "/usr/bin/python3 /usr/bin/docker-compose -pshop --project-directory /srv up",
            ComposeAsk("shop", (), "/srv", "up", False, True),
        ),
        (
            "/x/docker-compose compose --ansi never --verbose -p up up",
            ComposeAsk("up", (), None, "up", False, True),
        ),
        ("docker -H unix:///x compose --profile a -p b up -p", ComposeAsk("b", (), None, "up", False, True)),
        ("docker-compose --workdir /srv up --wait", ComposeAsk(None, (), "/srv", "up", True, True)),
        ("docker-compose --what=1 run web", ComposeAsk(None, (), None, "run", False, False)),
        ("docker --what=1 compose up", ComposeAsk(None, (), None, "up", False, False)),
        ("docker-compose up caf\ufffd", ComposeAsk(None, (), None, "up", False, False)),
        ("docker-compose -v up", ComposeAsk(None, (), None, "up", False, True)),
        ("docker-compose up --detach", ComposeAsk(None, (), None, "up", True, True)),
        ("docker-compose up --no-start", ComposeAsk(None, (), None, "up", True, True)),
        ("docker-compose -f up", ComposeAsk(None, ("up",), None, "", False, True)),
        ("docker-compose --project-directory= up", ComposeAsk(None, (), None, "up", False, True)),
        ("docker-compose --workdir= up", ComposeAsk(None, (), None, "up", False, True)),
        ("podman-compose up -d", ComposeAsk(None, (), None, "up", True, False)),
        ("python3 /usr/bin/podman-compose up", ComposeAsk(None, (), None, "up", False, False)),
        ("/opt/docker-compose-1.29.2 up", ComposeAsk(None, (), None, "up", False, False)),
    ],
)
def test_what_a_compose_says_of_its_project(line: str, ask: ComposeAsk) -> None:
    assert read_compose(line.split()) == ask


@pytest.mark.parametrize(
    ("line", "may"),
    [
        ("/usr/bin/docker ps", True),
        ("podman run img", True),
        ("nerdctl run img", True),
        ("docker-compose up", True),
        ("/usr/bin/podman-compose up", True),
        ("/opt/docker-compose-1.29.2 up", True),
        ("python3 /usr/bin/docker-compose up", True),
        ("python3 up.py docker-compose", False),
        ("sleep docker", False),
        ("", False),
    ],
)
def test_what_may_create_a_container(line: str, may: bool) -> None:
    """Whatever it is told to do: how such a program ends is to be known."""
    assert may_create(line.split()) is may


def test_a_group_of_commands_alone_asks_for_nothing() -> None:
    words = read_words(["docker", "container"])
    assert words is not None and (words.command, words.rest) == ("container", ())


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("docker exec web sleep 5", ("web", ("sleep", "5"), True, True)),
        ("docker exec -d -e A=1 -u me -w /x web sh -c x", ("web", ("sh", "-c", "x"), False, True)),
        ("docker container exec -it web sh", ("web", ("sh",), True, True)),
        ("docker exec --new=1 web sh", ("web", ("sh",), True, False)),
        ("podman exec web sh", ("web", ("sh",), True, False)),
        ("docker exec web", None),
        ("docker exec --help web sh", None),
        ("docker run web sh", None),
    ],
)
def test_what_an_exec_runs(line: str, facts: tuple[Any, ...] | None) -> None:
    words = read_words(line.split())
    found = read_exec(words) if words is not None else None
    seen = (found.container, found.command, found.attached, found.sure) if found is not None else None
    assert seen == facts


@pytest.mark.parametrize(
    ("command", "table"),
    [
        ((), docker_words._OF_DOCKER),
        (("run",), docker_words._OF_RUN),
        (("create",), docker_words._OF_CREATE),
        (("exec",), docker_words._OF_EXEC),
    ],
    ids=["docker", "run", "create", "exec"],
)
def test_it_knows_all_options_of_the_docker_cli(command: tuple[str, ...], table: docker_words._Table) -> None:
    options = _of_cli(*command)
    assert len(options) > 10
    for name, bare in options.items():
        full = name if name.startswith("--") else table.letters.get(name[1:], f"no letter {name}")
        assert full in (table.switches if bare else table.valued), name


_SWITCH = st.sampled_from(["--rm", "-d", "-it", "-t", "--init", "--read-only=true", "-di"])
_VALUED = st.tuples(
    st.sampled_from(["--name", "-e", "--label", "-v", "--entrypoint", "--cidfile", "-w", "--network"]),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=6),
    st.sampled_from([" ", "="]),
)


@given(st.lists(_SWITCH | _VALUED, max_size=8), st.lists(st.text(max_size=5), max_size=4))
def test_what_comes_after_the_image_is_the_containers(options: list[Any], command: list[str]) -> None:
    words = ["docker", "run"]
    for option in options:
        if isinstance(option, str):
            words.append(option)
        elif option[2] == " ":
            words += [option[0], option[1]]
        else:
            words.append(f"{option[0]}={option[1]}")
    found = ask([*words, "img", *command])
    assert found is not None
    assert (found.image, found.command) == ("img", tuple(command))
    names = [option[1] for option in options if not isinstance(option, str) and option[0] == "--name"]
    assert found.name == (names[-1] if names else None)
    assert found.attached == (not {"-d", "-di"} & set(map(str, options)))
    assert found.sure or any("\ufffd" in word for word in command)


@given(
    st.lists(
        st.text(max_size=6) | st.sampled_from(["run", "create", "--", "-", "-e", "--name", "-d=", "--="])
    )
)
def test_no_words_break_it(words: list[str]) -> None:
    ask(["docker", *words])
    ask(["docker", "run", *words])


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True"])
def test_a_switch_may_be_said_to_be_on(word: str) -> None:
    found = ask(f"docker run --rm={word} img")
    assert found is not None and found.remove and found.sure


@pytest.mark.parametrize("word", ["0", "f", "F", "FALSE", "false", "False"])
def test_a_switch_may_be_said_to_be_off(word: str) -> None:
    found = ask(f"docker run --rm={word} img")
    assert found is not None and not found.remove and found.sure


def test_a_word_that_is_not_utf_8_makes_it_unsure() -> None:
    for line in ("docker run -e A=\ufffd img x", "docker exec c cat \ufffd"):
        words = read_words(line.split())
        assert words is not None
        found = read_ask(words) or read_exec(words)
        assert found is not None and not found.sure


@pytest.mark.parametrize("word", ["--debug", "-D", "--tls", "--tlsverify", "--tls=false"])
def test_a_switch_of_docker_itself_takes_no_word(word: str) -> None:
    words = docker_words.read_words(["docker", word, "run", "image"])
    assert words is not None and (words.command, words.rest, words.sure) == ("run", ("image",), True)


@pytest.mark.parametrize("word", ["--version", "-v", "--help", "--help=true"])
def test_a_docker_that_only_tells_of_itself_has_no_command(word: str) -> None:
    assert docker_words.read_words(["docker", word, "run", "image"]) is None
