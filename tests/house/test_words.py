"""tests/words.py finds words to avoid and long lines, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import words


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(words, "ROOT", tmp_path)
    (tmp_path / "listener" / "dagstop").mkdir(parents=True)
    return tmp_path


def test_a_page_in_the_old_manner_is_named_by_line(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 21
    (house / "README.md").write_text(f"# dagstop\n\nIt begins anew.\nThis is no page.\n{long}\n")
    assert words.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in said] == ["README.md:3", "README.md:4", "README.md:5"]


def test_code_is_read_where_people_read_it(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (house / "listener" / "dagstop" / "x.py").write_text(
        'beats = 1  # a process of Airflow\'s\n"""It mends\nand goes before it."""\n'
    )
    (house / "tests").mkdir()
    (house / "tests" / "test_x.py").write_text("# It starts anew.\n")
    assert words.main() == 1
    said = capsys.readouterr().out
    assert "tests/test_x.py:1: 'anew'" in said
    assert 'x.py:1: "of Airflow\'s"' in said and "x.py:2: 'mends'" in said and "x.py:3: 'goes before'" in said
    assert "'beats'" not in said  # a name, not a word


def test_plain_words_tables_links_and_code_pass(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = "| a | " + "x" * 120 + " |"
    link = "[a page](https://example.org/" + "y" * 100 + ")"
    code = "z" * 150
    (house / "README.md").write_text(
        f"The owner of Airflow's tables is no longer asked. There is no other.\n\n{row}\n{link}\n```\n{code}\n```\n"
    )
    assert words.main() == 0, capsys.readouterr().out
