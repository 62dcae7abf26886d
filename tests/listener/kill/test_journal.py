"""What a listener was about to signal: kept for the next one, whatever befell the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dagstop.kill import journal
from dagstop.kill.journal import SignalJournal


def item(pid: int) -> dict[str, Any]:
    return {"pid": pid, "start": 7, "signals": [["SIGTERM", "2026-11-22T10:00:00+00:00"]], "died_at": None}


def opened(folder: Path, boot: str = "boot") -> SignalJournal:
    one = SignalJournal(folder)
    one.load(boot)
    return one


def test_the_next_listener_knows_what_was_noted(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.note(1, item(10))
    first.note(2, item(20))
    first.note(1, item(11))
    second = opened(tmp_path)
    assert second.of(1) == [item(10), item(11)] and second.of(2) == [item(20)] and second.of(3) == []
    second.note(3, item(30))
    assert opened(tmp_path).of(1) == [item(10), item(11)]
    assert opened(tmp_path).of(3) == [item(30)]


def test_pids_of_another_boot_are_nobodys(tmp_path: Path) -> None:
    opened(tmp_path).note(1, item(10))
    assert opened(tmp_path, "another boot").of(1) == []


def test_emptied_only_when_nothing_is_left_open(tmp_path: Path) -> None:
    opened(tmp_path).note(1, item(10))
    second = opened(tmp_path)
    second.settle([], complete=False)  # the orders were not read yet
    assert opened(tmp_path).of(1)
    second.settle([5], complete=True)  # one is under way
    assert opened(tmp_path).of(1)
    second.settle([], complete=True)
    assert second.of(1) == []
    assert opened(tmp_path).of(1) == [] and (tmp_path / "begun.jsonl").stat().st_size == 0


def test_a_large_file_keeps_only_what_is_under_way(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 1000)
    one = opened(tmp_path)
    for number in range(100):
        one.note(number, item(number))
    one.settle([98, 99], complete=True)
    again = opened(tmp_path)
    assert again.of(97) == [] and again.of(98) == [item(98)] and again.of(99) == [item(99)]


def test_what_is_broken_costs_its_line_only(tmp_path: Path) -> None:
    opened(tmp_path).note(1, item(10))
    with (tmp_path / "begun.jsonl").open("ab") as file:
        file.write(b'["boot", 1, {"pid"\n[]\n"x"\n["boot", 1, {"pid": 1}]\n\xff\n["boot", "x", 1]\n')
    opened(tmp_path).note(1, item(11))
    assert opened(tmp_path).of(1) == [item(10), item(11)]


@pytest.mark.parametrize(
    ("complete", "kept"), [(True, [5]), (False, [0, 1, 2, 5, 7])], ids=["all read", "not read yet"]
)
def test_of_a_large_file_what_may_be_open_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: bool, kept: list[int]
) -> None:
    """What an earlier listener left, until all open orders were read; what has ended since is not."""
    monkeypatch.setattr(journal, "MOST_BYTES", 300)
    first = opened(tmp_path)
    for number in range(3):
        first.note(number, item(number))
    second = opened(tmp_path)
    for number in (5, 6, 7):
        second.note(number, item(number))
    second.settle([5] if complete else [5, 7], complete=complete)
    again = opened(tmp_path)
    assert [number for number in range(10) if again.of(number)] == kept


@pytest.mark.parametrize(("more", "rewritten"), [(1, False), (0, True), (-1, True)])
def test_a_file_is_large_from_one_size_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, rewritten: bool
) -> None:
    for number in (1, 2):
        opened(tmp_path).note(number, item(10))
    size = (tmp_path / "begun.jsonl").stat().st_size
    monkeypatch.setattr(journal, "MOST_BYTES", size + more)
    opened(tmp_path).settle([1], complete=True)
    assert bool(opened(tmp_path).of(2)) is not rewritten


def test_a_file_that_stays_large_is_not_rewritten_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once more when it is twice as large as it was after that; and what is empty is not emptied."""
    monkeypatch.setattr(journal, "MOST_BYTES", 1000)
    emptied: list[int] = []
    truncate = os.ftruncate

    def counted(descriptor: int, size: int) -> None:
        emptied.append(size)
        truncate(descriptor, size)

    monkeypatch.setattr(os, "ftruncate", counted)
    one, numbers = opened(tmp_path), range(1000, 1020)
    one.settle([], complete=True)
    assert emptied == []
    for number in numbers:
        one.note(number, item(number))
    for _ in range(3):
        one.settle(numbers, complete=True)
    assert emptied == [0]
    for number in range(1020, 1045):
        one.note(number, item(number))
    one.settle(numbers, complete=True)
    assert emptied == [0, 0]
    for _ in range(2):
        one.settle([], complete=True)
    assert emptied == [0, 0, 0]


def test_a_container_is_known_by_its_id_and_what_lacks_something_is_not(tmp_path: Path) -> None:
    box: dict[str, Any] = {"id": "abc", "signals": [], "died_at": None}
    lacking = [{k: v for k, v in item(10).items() if k != name} for name in item(10)]
    one = opened(tmp_path)
    for facts in (*lacking, box):
        one.note(1, facts)
    assert opened(tmp_path).of(1) == [box]


@pytest.mark.parametrize(
    ("mode", "believed"), [(0o600, True), (0o645, True), (0o620, False), (0o602, False)], ids=oct
)
def test_what_others_could_have_written_is_not_believed(
    tmp_path: Path, mode: int, believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything written to it, or held open, or to what is opened after it."""
    opened(tmp_path).note(1, item(10))
    file = tmp_path / "begun.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(mode)
    before = file.read_bytes()
    closed: list[int] = []
    close = os.close

    def noted(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", noted)
        one = opened(tmp_path)
    assert bool(one.of(1)) is believed and bool(closed) is not believed
    other = (tmp_path / "other").open("xb", buffering=0)
    assert not closed or other.fileno() == closed[0]
    other.write(b"kept")
    one.note(2, item(20))
    one.settle([], complete=True)
    assert (file.read_bytes() == before) is not believed
    other.close()
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_what_another_user_owns_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).note(1, item(10))
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert opened(tmp_path).of(1) == []


def test_without_a_state_directory_nothing_is_kept() -> None:
    one = SignalJournal(None)
    one.load("boot")
    one.note(1, item(10))
    one.settle([], complete=True)
    assert one.of(1) == []


def test_a_disk_that_is_full_is_no_error(tmp_path: Path, monkeypatch: Any) -> None:
    one = opened(tmp_path)
    one.note(1, item(10))

    def full(descriptor: int, line: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dagstop.kill.journal.os.write", full)
        one.note(1, item(11))
    one.note(1, item(12))
    assert opened(tmp_path).of(1) == [item(10), item(12)]


def test_a_line_that_was_written_in_part_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has each such time once."""
    one = opened(tmp_path)
    write = os.write

    def in_part(descriptor: int, line: bytes) -> int:
        write(descriptor, line[:20])
        raise OSError(28, "No space left on device")

    for number in (10, 20):
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", in_part)
            one.note(1, item(number))
            one.note(1, item(number + 1))
            one.note(1, item(number + 1))
        one.note(1, item(number + 2))
        one.note(1, item(number + 3))
    assert opened(tmp_path).of(1) == [item(number) for number in (12, 13, 22, 23)]
    assert sum("journal not written" in line for line in caplog.messages) == 2


def test_a_file_that_cannot_be_emptied_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = opened(tmp_path)
    one.note(1, item(10))

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", refuse)
        one.settle([], complete=True)
    assert "journal not emptied" in caplog.text
    one.settle([], complete=True)
    assert opened(tmp_path).of(1) == []
