"""What a compose may be at work on, by its words, its environment and its folder."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dagstop.evidence.compose import Project, read_project
from dagstop.evidence.containers import read_client
from dagstop.host.containers import Container, Shape
from tests.support.fake_proc import FakeProc, at, process

PID = 600
NAME, FOLDER = "com.docker.compose.project", "com.docker.compose.project.working_dir"
SHOP = Project(frozenset({"shop"}), frozenset({"/srv/shop"}), named=False, certain=True)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def project(
    proc: FakeProc, line: str, folder: str = "/srv/shop", environ: Mapping[str, str] | None = None
) -> Project:
    proc.add(PID, argv=line.split(), environ=environ or {"HOME": "/"})
    if folder:
        proc.works_in(PID, folder)
    client = read_client(process(argv=tuple(line.split())))
    assert client is not None
    found = read_project(client, proc)
    assert found is not None
    return found


def container(labels: Mapping[str, str] | None) -> Container:
    shape = Shape(("sleep",), (), {}, labels, False, False, False) if labels is not None else None
    return Container("a" * 64, "x", "image", 9, at(-10), False, "no", {}, shape=shape)


@pytest.mark.parametrize(
    ("line", "environ", "folders"),
    [
        ("docker-compose up", {}, {"/srv/shop", "/srv", "/"}),  # it looks for its file upwards
        ("docker-compose -f a.yaml up", {}, {"/srv/shop"}),
        ("docker-compose -f sub/a.yaml -f /opt/b.yaml up", {}, {"/srv/shop/sub", "/opt"}),
        ("docker-compose -f ../a.yaml up", {}, {"/srv"}),
        ("docker-compose up", {"COMPOSE_FILE": "sub/a.yaml:/opt/b.yaml"}, {"/srv/shop/sub", "/opt"}),
        ("docker-compose -f a.yaml up", {"COMPOSE_FILE": "/opt/b.yaml"}, {"/srv/shop"}),
        ("docker-compose up", {"COMPOSE_FILE": ""}, {"/srv/shop", "/srv", "/"}),
        ("docker-compose --project-directory sub up", {}, {"/srv/shop/sub"}),
        (
            "docker-compose -f /opt/b.yaml --project-directory sub up",
            {},
            {"/opt", "/srv/shop/sub"},
        ),
        ("docker-compose -f a.yaml up", {"PWD": "/data/link"}, {"/srv/shop", "/data/link"}),
    ],
)
def test_the_folders_that_a_compose_may_be_at_work_on(
    proc: FakeProc, line: str, environ: dict[str, str], folders: set[str]
) -> None:
    assert project(proc, line, environ=environ).folders == folders


@pytest.mark.parametrize(
    ("line", "environ", "names"),
    [
        ("docker-compose up", {}, set()),
        ("docker-compose -p Shop.1 up", {}, {"Shop.1", "shop1"}),  # compose 1 leaves the dot out
        ("docker-compose up", {"COMPOSE_PROJECT_NAME": "shop"}, {"shop"}),
        ("docker-compose -p own up", {"COMPOSE_PROJECT_NAME": "shop"}, {"own"}),
    ],
)
def test_the_names_that_a_compose_may_be_at_work_on(
    proc: FakeProc, line: str, environ: dict[str, str], names: set[str]
) -> None:
    found = project(proc, line, environ=environ)
    assert (found.names, found.named) == (names, bool(names))


def test_where_its_folder_or_its_environment_is_not_shown_its_project_is_not_certain(proc: FakeProc) -> None:
    assert project(proc, "docker-compose up").certain
    proc.end(PID)
    unshown = project(proc, "docker-compose up", folder="")
    assert not unshown.certain and unshown.folders == frozenset()
    proc.end(PID)
    proc.refused[PID, "environ"] = errno.EACCES
    unread = project(proc, "docker-compose up")
    assert not unread.certain and "/srv/shop" in unread.folders


def test_another_client_has_no_project(proc: FakeProc) -> None:
    client = read_client(process(argv=("docker", "run", "image")))
    assert client is not None and read_project(client, proc) is None


@pytest.mark.parametrize(
    ("labels", "has", "surely"),
    [
        ({NAME: "shop", FOLDER: "/srv/shop"}, True, True),
        ({NAME: "other", FOLDER: "/srv/shop"}, True, True),
        ({NAME: "shop", FOLDER: "/srv/other"}, True, False),
        ({NAME: "shop"}, True, False),
        ({NAME: "other", FOLDER: "/srv/other"}, False, False),
        ({FOLDER: "/srv/shop"}, False, False),  # not of compose
        ({}, False, False),
        (None, False, False),
    ],
)
def test_what_is_of_a_project_by_its_labels(
    labels: Mapping[str, str] | None, has: bool, surely: bool
) -> None:
    one = container(labels)
    assert (SHOP.has(one), SHOP.may_have(one), SHOP.surely_has(one)) == (has, has, surely)


def test_a_name_that_was_asked_for_has_to_be_that_of_the_container() -> None:
    named = replace(SHOP, named=True)
    assert named.surely_has(container({NAME: "shop", FOLDER: "/srv/shop"}))
    assert not named.surely_has(container({NAME: "other", FOLDER: "/srv/shop"}))


@pytest.mark.parametrize(
    ("named", "certain", "may"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_a_compose_of_which_nothing_is_known_may_be_at_work_on_anything(
    named: bool, certain: bool, may: bool
) -> None:
    other = container({NAME: "other", FOLDER: "/srv/other"})
    assert replace(SHOP, named=named, certain=certain).may_have(other) is may
