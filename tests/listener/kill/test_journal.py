"""What a listener was about to signal: kept for the next one, whatever befell the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_what_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    opened(tmp_path).note(1, item(10))
    (tmp_path / "begun.jsonl").chmod(0o622)
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
