"""`--container` names containers; what it cannot mean gets one line."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from dagstop.errors import DagstopError
from dagstop.evidence.consent import selectors
from dagstop.host.containers import Container

ID = "3f2a90c41b7d" + "0" * 52
CGROUPS = f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/docker-{ID}.scope\n"
CONTAINER = Container(
    id=ID,
    name="shop-worker-1",
    image="apache/airflow:2.11.2",
    pid=400,
    created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
    paused=False,
    restart_policy="no",
    tags={},
    project="shop",
    kubernetes=None,
)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("compose=shop", True),
        ("compose=sh*", True),
        ("compose=bank", False),
        ("compose=Shop", False),
        ("image=apache/airflow:*", True),
        ("image=airflow:*", False),
        ("cgroup=/docker/*", True),
        ("cgroup=/system.slice/docker-*.scope", True),
        ("cgroup=/kubepods/*", False),
        ("kubernetes=airflow", True),
        ("kubernetes=air", False),
    ],
)
def test_a_selector_names_by_one_fact(word: str, named: bool) -> None:
    (one,) = selectors([word])
    assert one.names(CGROUPS, CONTAINER, "airflow") is named
    assert str(one) == word


def test_what_only_the_engine_knows_names_nothing_without_it() -> None:
    for word in ("compose=*shop*", "image=*airflow*"):
        assert not selectors([word])[0].names(CGROUPS, None, None)
    assert not selectors(["compose=*s*"])[0].names(CGROUPS, replace(CONTAINER, project=None), None)


def test_the_engine_may_know_the_pod() -> None:
    (one,) = selectors(["kubernetes=airflow"])
    assert one.names(CGROUPS, replace(CONTAINER, kubernetes="airflow"), None)
    assert not one.names(CGROUPS, CONTAINER, None)


@pytest.mark.parametrize("word", ["", "shop", "compose=", "project=shop", "=shop", "compose"])
def test_a_bad_selector_says_how_to_write_it(word: str) -> None:
    with pytest.raises(DagstopError, match="write KIND=PATTERN, where KIND is compose, image, cgroup or"):
        selectors([word])


@pytest.mark.parametrize("word", ["compose=*", "cgroup=/*", "image=**", "kubernetes=?*"])
def test_all_containers_are_named_by_nobody(word: str) -> None:
    with pytest.raises(DagstopError, match="would name every container"):
        selectors([word])
