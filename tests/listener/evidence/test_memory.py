"""What is kept across a restart of the listener, and what is not believed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.evidence import memory, runners
from dagstop.evidence.memory import Known
from dagstop.model import Identity, Label, Role
from tests.support.fake_proc import DATE, HOME, KEY, UUID, process

FULL = Label("d", "r", DATE, "t", 3, 2, 7, UUID, HOME, KEY)


def saved(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_labels_come_back(tmp_path: Path) -> None:
    memory.save(tmp_path, "boot", [process(FULL), process(Label(ti_id=UUID), identity=Identity(601, 5))])
    assert memory.load(tmp_path, "boot").processes == {
        Identity(600, 100): Known(FULL),
        Identity(601, 5): Known(Label(ti_id=UUID)),
    }
    assert saved(tmp_path).stat().st_mode & 0o777 == 0o600


def test_only_what_may_die_is_kept(tmp_path: Path) -> None:
    found = [process(FULL, role=role, identity=Identity(600 + n, 1)) for n, role in enumerate(Role)]
    found.append(process(FULL, trusted=False, identity=Identity(610, 1)))
    found.append(process(FULL, contrary="because", identity=Identity(611, 1)))
    found.append(process(FULL, place=Identity(4, 5), identity=Identity(612, 1)))  # whose that is may change
    memory.save(tmp_path, "boot", found)
    assert {identity.pid for identity in memory.load(tmp_path, "boot").processes} == {
        600,
        604,
    }  # runner, other


@pytest.mark.parametrize("changed", [{"contrary": 5}, {"uid": "x"}, {"uid": True}, {"vouchers": ["x"]}])
def test_doubts_of_another_shape_are_not_believed(changed: dict[str, Any]) -> None:
    known = runners.doubts(process(FULL, contrary="because"))
    assert runners.checked(known)["contrary"] == "because"
    with pytest.raises(ValueError):
        runners.checked({**known, **changed})


@pytest.mark.parametrize(("contrary", "believed"), [("because", True), (5, False)])
def test_what_is_doubted_comes_back_with_its_doubts_or_not_at_all(
    tmp_path: Path, contrary: Any, believed: bool
) -> None:
    memory.save(tmp_path, "boot", [])
    against = {**runners.doubts(process(FULL)), "contrary": contrary}
    row = [600, 100, FULL.facts(), None, json.loads(json.dumps(against))]
    text = {"boot_id": "boot", "labels": [], "doubted": {"labels": [row], "clients": []}}
    saved(tmp_path).write_text(json.dumps(text))
    loaded = memory.load(tmp_path, "boot")
    assert any(Identity(600, 100) in kept for kept in loaded if isinstance(kept, dict)) is believed


def test_nothing_is_believed_of_another_boot(tmp_path: Path) -> None:
    memory.save(tmp_path, "boot", [process(FULL)])
    assert memory.load(tmp_path, "another").processes == {}


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert memory.load(tmp_path, "boot").processes == {}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_nothing_is_believed_that_others_could_have_written(tmp_path: Path, mode: int) -> None:
    memory.save(tmp_path, "boot", [process(FULL)])
    saved(tmp_path).chmod(mode)
    assert memory.load(tmp_path, "boot").processes == {}


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_what_others_may_only_read_is_believed(tmp_path: Path, mode: int) -> None:
    memory.save(tmp_path, "boot", [process(FULL)])
    saved(tmp_path).chmod(mode)
    assert memory.load(tmp_path, "boot").processes.keys() == {Identity(600, 100)}


def test_nothing_is_believed_that_another_user_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.save(tmp_path, "boot", [process(FULL)])
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert memory.load(tmp_path, "boot").processes == {}


json_values = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dag_id", "job_id", "logical_date", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
odd_numbers = st.sampled_from(["Infinity", "NaN", "1e400", "-1", "true", "9" * 5000])
files = odd_numbers.map(
    lambda n: f'{{"boot_id": "boot", "labels": [[{n}, {n}, {{"job_id": {n}}}]]}}'.encode()
)
files |= st.binary(max_size=50) | st.builds(
    lambda labels: json.dumps({"boot_id": "boot", "labels": labels}).encode(),
    json_values
    | st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.just({}), json_values), max_size=2)
    | st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), json_values), max_size=2),
)


@given(files)
def test_no_file_breaks_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "remembered.json"
    path.write_bytes(data)
    path.chmod(0o600)
    for known in memory.load(folder, "boot").processes.values():
        hash(known.label)
        known.label.facts()


@pytest.mark.parametrize(
    "facts", ["x", [], {"job_id": "7"}, {"dag_id": ["d"]}, {"map_index": True}, {"new": "x"}]
)
def test_labels_of_another_shape_are_not_believed(tmp_path: Path, facts: Any) -> None:
    memory.save(tmp_path, "boot", [process(FULL)])
    saved(tmp_path).write_text(json.dumps({"boot_id": "boot", "labels": [[600, 100, facts]]}))
    loaded = memory.load(tmp_path, "boot").processes
    assert loaded in ({}, {Identity(600, 100): Known(Label())})


def test_the_runner_that_something_descends_from_comes_back_with_it(tmp_path: Path) -> None:
    runner = process(FULL, identity=Identity(590, 90), role=Role.RUNNER, line=frozenset({590, 580}))
    child, spared = process(FULL, runner=runner), process(FULL, identity=Identity(601, 5))
    spared.runner = process(FULL, identity=Identity(591, 91), contrary="because")
    memory.save(tmp_path, "boot", [child, spared])
    (known,) = memory.load(tmp_path, "boot").processes.values()
    assert known.runner is not None
    for name in ("identity", "label", "line", "role", "trusted"):
        assert getattr(known.runner, name) == getattr(runner, name)
