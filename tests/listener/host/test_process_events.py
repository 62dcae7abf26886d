"""What the kernel tells of processes: messages that it was seen to write, and its filter on them."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.host import process_events
from dagstop.host.process_events import EXEC, EXIT, FORK, RENAMED, Event, attach_filter, parse

# recorded on Linux 6.18: the answer to a subscription, a fork, the exit of that child with code 127
ANSWER = bytes.fromhex(
    "4c00000003000000000000000000000001000000010000000000000001000000280000000000000001000000"
    "f4fcbaa5d0020000000000000000000000000000000000000000000000000000"
)
FORKED = bytes.fromhex(
    "4c0000000300000001000000000000000100000001000000010000000000000028000000010000000100000069b3bba5d0020000"
    "b07d0000b07d0000da7d0000da7d00000000000000000000"
)
ENDED = bytes.fromhex(
    "4c00000003000000000000000000000001000000010000000000000000000000280000000000008000000000"
    "6a5fbea5d0020000da7d0000da7d0000007f000011000000b07d0000b07d0000"
)
PARENT, CHILD = 0x7DB0, 0x7DDA
UID, SID, COREDUMP = 0x4, 0x80, 0x40000000


def message(what: int, *pids: int) -> bytes:
    """In the shape of the recorded ones."""
    words = [*pids, 0, 0, 0, 0, 0, 0][:6]
    return FORKED[:36] + struct.pack("=IIQ6I", what, 1, 5, *words)


THREAD = message(FORK, PARENT, PARENT, CHILD, PARENT)
THREAD_ENDS = message(EXIT, CHILD, PARENT)
EXECUTED = message(EXEC, CHILD, CHILD)
NAMED = message(RENAMED, CHILD, CHILD)
THREAD_NAMED = message(RENAMED, CHILD, PARENT)


def test_what_the_kernel_was_seen_to_write() -> None:
    assert parse(FORKED, len(FORKED)) == Event(FORK, CHILD, PARENT, 3095156994921)
    assert parse(ENDED, len(ENDED)) == Event(EXIT, CHILD, 0, 3095157170026, 127 << 8)
    assert parse(EXECUTED, len(EXECUTED)) == Event(EXEC, CHILD, 0, 5)
    assert parse(NAMED, len(NAMED)) == Event(RENAMED, CHILD, 0, 5)
    assert parse(ANSWER, len(ANSWER)) is None


def test_a_thread_is_no_process() -> None:
    assert parse(THREAD, len(THREAD)) is None
    assert parse(THREAD_ENDS, len(THREAD_ENDS)) is None
    assert parse(THREAD_NAMED, len(THREAD_NAMED)) is None


@given(st.binary(max_size=100))
def test_nothing_that_is_written_raises(data: bytes) -> None:
    parse(data, len(data))
    parse(FORKED[:36] + data, len(data) + 36)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What the first one sends the kernel gives to the second one, if the filter lets it pass."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setblocking(False)
        attach_filter(receiver)
        yield sender, receiver


def test_the_kernel_drops_what_nobody_needs(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    wanted = [ANSWER, FORKED, ENDED, EXECUTED, NAMED]
    others = [message(what, CHILD, CHILD) for what in (UID, SID, COREDUMP)]
    for data in [THREAD, *wanted, THREAD_ENDS, THREAD_NAMED, *others, FORKED[:60], b""]:
        sender.send(data)
    got = []
    while True:
        try:
            got.append(receiver.recv(4096))
        except BlockingIOError:
            break
    assert got == wanted


def test_it_says_why_the_kernel_tells_nothing_and_gives_its_right_up() -> None:
    script = (
        "from dagstop.host.process_events import subscribe\n"
        "print(subscribe()[1]); print(open('/proc/self/status').read())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    if process_events._pid_namespace() != process_events._INITIAL_PID_NAMESPACE:
        assert said.startswith("it runs in a pid namespace of its own\n")
    sets = [line.split()[1] for line in said.splitlines() if line.startswith(("CapPrm", "CapEff", "CapAmb"))]
    assert len(sets) == 3 and not any(int(found, 16) & 1 << 12 for found in sets)
