"""Sessions and process groups that labelled processes lead, remembered beyond their leader's death.

A process that lost its parents keeps its session and group. Their numbers are the leader's pid, which
the kernel gives out again once no member lives, so a group counts only for who joined while it stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dagstop.model import Process

_KEPT = 6000  # clock ticks for which an empty group is remembered


@dataclass(slots=True)
class _Group:
    leader: Process
    alive_until: int  # clock ticks since boot at which it last had a labelled member


class Groups:
    """Groups of one kind, by number."""

    def __init__(self, word: str, processes: Mapping[int, Process]) -> None:
        self.word = word
        self._processes = processes
        self._groups: dict[int, _Group] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._groups

    def leader_of(self, process: Process, number: int) -> Process | None:
        """The labelled leader of the group that `process` is in, if it joined while that stood."""
        group = self._groups.get(number)
        if group is None or process.identity.start > group.alive_until or not self._stands(group):
            return None
        return group.leader

    def seen(self, member: Process, number: int, now: int) -> None:
        """Note a living labelled member; one that leads makes the group."""
        group = self._groups.get(number)
        if group is not None and self._stands(group):
            group.alive_until = now
        elif number == member.pid:
            self._groups[number] = _Group(member, now)

    def died(self, member: Process, number: int, now: int) -> None:
        """Note the death of a labelled member: whoever it forked was forked by now."""
        group = self._groups.get(number)
        if group is not None and self._stands(group):
            group.alive_until = max(group.alive_until, now)

    def forget_the_old(self, now: int) -> None:
        for number in [n for n, c in self._groups.items() if c.alive_until < now - _KEPT]:
            del self._groups[number]

    def _stands(self, group: _Group) -> bool:
        """False if the number is another process's by now: the group has ended."""
        holder = self._processes.get(group.leader.pid)
        return holder is None or holder.identity == group.leader.identity
