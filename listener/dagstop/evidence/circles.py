"""Sessions and process groups that labelled processes lead, remembered beyond their leader's death.

A process that lost its parents keeps its session and group. Their numbers are the leader's pid, which
the kernel gives out again once no member lives, so a circle counts only for who joined while it stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dagstop.model import Process

_KEPT = 6000  # clock ticks for which an empty circle is remembered


@dataclass(slots=True)
class _Circle:
    leader: Process
    alive_until: int  # clock ticks since boot at which it last had a labelled member


class Circles:
    """Circles of one kind, by number."""

    def __init__(self, word: str, processes: Mapping[int, Process]) -> None:
        self.word = word
        self._processes = processes
        self._circles: dict[int, _Circle] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._circles

    def leader_of(self, process: Process, number: int) -> Process | None:
        """The labelled leader of the circle that `process` is in, if it joined while that stood."""
        circle = self._circles.get(number)
        if circle is None or process.identity.start > circle.alive_until or not self._stands(circle):
            return None
        return circle.leader

    def seen(self, member: Process, number: int, now: int) -> None:
        """Note a living labelled member; one that leads makes the circle."""
        circle = self._circles.get(number)
        if circle is not None and self._stands(circle):
            circle.alive_until = now
        elif number == member.pid:
            self._circles[number] = _Circle(member, now)

    def died(self, member: Process, number: int, now: int) -> None:
        """Note the death of a labelled member: whoever it forked was forked by now."""
        circle = self._circles.get(number)
        if circle is not None and self._stands(circle):
            circle.alive_until = max(circle.alive_until, now)

    def forget_the_old(self, now: int) -> None:
        for number in [n for n, c in self._circles.items() if c.alive_until < now - _KEPT]:
            del self._circles[number]

    def _stands(self, circle: _Circle) -> bool:
        """False if the number is another process's by now: the circle has ended."""
        holder = self._processes.get(circle.leader.pid)
        return holder is None or holder.identity == circle.leader.identity
