"""How long a session or process group is remembered that has no member left."""

from __future__ import annotations

from dagstop.evidence.groups import _KEPT, Groups
from dagstop.model import Identity
from tests.support.fake_proc import process


def test_an_empty_group_is_forgotten_in_time_and_a_living_one_never() -> None:
    leader, other = process(identity=Identity(600, 100)), process(identity=Identity(700, 100))
    groups = Groups("session", {600: leader, 700: other})
    groups.seen(leader, 600, 1000)
    groups.seen(other, 700, 1000)
    groups.forget_the_old(1000 + _KEPT)
    assert 600 in groups and 700 in groups
    groups.seen(other, 700, 1001 + _KEPT)
    groups.forget_the_old(1001 + _KEPT)
    assert 600 not in groups and 700 in groups
    assert groups.leader_of(process(identity=Identity(601, 200)), 600) is None
