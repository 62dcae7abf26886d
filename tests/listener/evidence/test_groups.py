"""Whose processes a remembered session or process group still identifies."""

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


def test_a_group_whose_number_is_another_processs_speaks_for_nobody() -> None:
    leader, member = process(identity=Identity(600, 100)), process(identity=Identity(601, 200))
    processes = {600: leader}
    groups = Groups("session", processes)
    groups.seen(leader, 600, 1000)
    assert groups.leader_of(member, 600) is leader
    del processes[600]  # it outlives its leader
    assert groups.leader_of(member, 600) is leader
    processes[600] = process(identity=Identity(600, 900))
    assert groups.leader_of(member, 600) is None
    groups.died(member, 600, 2000)  # says nothing of the group that stood before
    del processes[600]
    assert groups.leader_of(process(identity=Identity(602, 1500)), 600) is None
    assert groups.leader_of(process(identity=Identity(602, 1000)), 600) is leader


def test_only_who_leads_makes_a_group() -> None:
    leader, member = process(identity=Identity(600, 100)), process(identity=Identity(601, 200))
    groups = Groups("session", {600: leader, 601: member})
    groups.seen(member, 600, 1000)
    assert 600 not in groups and groups.leader_of(member, 600) is None
    groups.died(member, 600, 1000)
    assert 600 not in groups
    groups.seen(leader, 600, 1000)
    assert groups.leader_of(member, 600) is leader


def test_a_group_stands_until_its_last_labelled_member_was_seen_or_died() -> None:
    leader, member = process(identity=Identity(600, 100)), process(identity=Identity(601, 200))
    groups = Groups("session", {600: leader, 601: member})
    late = process(identity=Identity(602, 1500))
    groups.seen(leader, 600, 1000)
    assert groups.leader_of(late, 600) is None
    groups.seen(member, 600, 1499)
    assert groups.leader_of(late, 600) is None
    groups.died(member, 600, 1500)
    assert groups.leader_of(late, 600) is leader
    groups.died(leader, 600, 1400)  # told of later
    assert groups.leader_of(late, 600) is leader


def test_who_leads_a_number_that_was_given_out_again_makes_a_group_of_its_own() -> None:
    first, second = process(identity=Identity(600, 100)), process(identity=Identity(600, 900))
    processes = {600: first}
    groups = Groups("session", processes)
    groups.seen(first, 600, 800)
    processes[600] = second
    groups.seen(second, 600, 1000)
    assert groups.leader_of(process(identity=Identity(601, 950)), 600) is second
