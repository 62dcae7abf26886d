"""What is kept across a restart of the listener, and what is not believed."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.evidence import memory, runners
from dagstop.evidence.containers import read_client
from dagstop.evidence.gaps import Gap
from dagstop.evidence.memory import Known
from dagstop.evidence.noted import Noted
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


def docker_run(pid: int, **more: Any) -> Noted:
    client = read_client(process(argv=("docker", "run", "image"), identity=Identity(pid, 1), **more))
    assert client is not None
    return Noted(client, None)


def test_what_is_doubted_is_kept_apart_and_comes_back_with_all_else(tmp_path: Path) -> None:
    sure, doubted = process(FULL), process(FULL, identity=Identity(601, 5), contrary="because", uid=3)
    ties = [docker_run(700), docker_run(701, contrary="because")]
    memory.save(tmp_path, "boot", [sure, doubted], ties)
    loaded = memory.load(tmp_path, "boot")
    assert loaded.processes.keys() == {sure.identity} and loaded.doubted.keys() == {doubted.identity}
    assert loaded.everything() == loaded.processes | loaded.doubted
    assert loaded.processes[sure.identity].doubts is None
    against = loaded.doubted[doubted.identity].doubts
    assert against is not None and (against["contrary"], against["uid"]) == ("because", 3)
    assert [one.client.process.pid for one in loaded.clients] == [700]
    assert [one.client.process.pid for one in loaded.doubted_clients] == [701]
    assert loaded.all_clients() == [*loaded.clients, *loaded.doubted_clients]


def test_a_strangers_client_comes_back_without_a_label(tmp_path: Path) -> None:
    stranger = docker_run(700)
    stranger.client.process.label = None
    memory.save(tmp_path, "boot", [], [stranger, docker_run(701)])
    one, other = memory.load(tmp_path, "boot").all_clients()
    assert (one.client.process.pid, one.label) == (701, docker_run(701).label)
    assert (other.client.process.pid, other.label) == (700, None)


def test_the_runner_of_a_client_comes_back_with_it(tmp_path: Path) -> None:
    runner = process(FULL, identity=Identity(590, 90), role=Role.RUNNER)
    memory.save(tmp_path, "boot", [], [docker_run(700, runner=runner)])
    (one,) = memory.load(tmp_path, "boot").clients
    again = one.client.process.runner
    assert again is not None and (again.identity, again.label) == (runner.identity, FULL)


def test_when_nobody_was_told_comes_back(tmp_path: Path) -> None:
    gaps = [Gap(None, DATE, "the first start"), Gap(DATE, DATE, "the kernel was faster")]
    memory.save(tmp_path, "boot", [], gaps=gaps)
    assert memory.load(tmp_path, "boot").gaps == gaps


def test_a_file_of_an_earlier_release_lacks_what_that_did_not_keep(tmp_path: Path) -> None:
    memory.save(tmp_path, "boot", [])
    early = {"boot_id": "boot", "labels": [[600, 100, FULL.facts()]]}
    saved(tmp_path).write_text(json.dumps(early))
    loaded = memory.load(tmp_path, "boot")
    assert loaded == memory.Remembered({Identity(600, 100): Known(FULL)}, [], {}, {}, [], [])


def test_what_was_saved_before_is_replaced_as_a_whole(tmp_path: Path) -> None:
    memory.save(tmp_path, "boot", [process(FULL, identity=Identity(600 + n, 1)) for n in range(9)])
    draft = tmp_path / f".remembered.json.{os.getpid()}"
    draft.write_text("x" * 9999)  # a listener of that pid was killed while it wrote
    memory.save(tmp_path, "boot", [process(FULL)])
    assert memory.load(tmp_path, "boot").processes == {Identity(600, 100): Known(FULL)}
    assert saved(tmp_path).name == "remembered.json"


def test_the_last_sign_of_a_listener_is_what_it_saved_or_left_since(tmp_path: Path) -> None:
    assert memory.last_sign(tmp_path) is None
    memory.still_here(tmp_path, 5.0)
    assert memory.last_sign(tmp_path) is None, "nothing was saved"
    memory.save(tmp_path, "boot", [process(FULL)])
    last = memory.last_sign(tmp_path)
    assert last is not None and abs(last.timestamp() - time.time()) < 60
    memory.still_here(tmp_path, 1_800_000_000.5)
    assert memory.last_sign(tmp_path) == datetime.fromtimestamp(1_800_000_000.5, timezone.utc)
    assert memory.load(tmp_path, "boot").processes != {}
