"""A /proc in which strangers wrote what they could, and files that end anywhere: nobody else dies, nobody is missed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dagstop.evidence.index import Index
from dagstop.evidence.match import judge
from dagstop.evidence.site import survey
from dagstop.model import Decision
from tests.support.fake_proc import (
    DATE,
    HOME,
    LISTENER,
    ORDERED,
    UID,
    URL,
    FakeProc,
    order,
    row,
    tags,
    watch_of,
)

STRANGER = 1000
RUNNER = "airflow task runner: d t r 7"
NAMED = "".join(f"{name}={value}\0" for name, value in tags().items()).encode()
TRUE = {
    "stat": b"700 (x) S 1 700 700 " + b"0 " * 15 + b"900 0\n",
    "status": b"Name:\tx\nUid:\t1000\t1000\t1000\t1000\nSigIgn:\t0\nSigCgt:\t0\n",
    "cmdline": RUNNER.encode() + b"\0",
    "environ": NAMED,
    "comm": b"x\n",
}
# stat and status are the kernel's own words: they may end early, but lie only in the command's name
CRAFTED = {
    "stat": [b"700 (x) S 300 ) R 1 2 3) S 1 700 700 " + b"0 " * 15 + b"900 0\n", b"700 (a\nb) Z 1 700 700 " + b"0 " * 18],
    "status": [b"Name:\tUid:\t50000\t50000\nUid:\t1000\t1000\t1000\t1000\nSigIgn:\t0\nSigCgt:\tffff\n"],
    "cmdline": [
        b"airflow task runner: d t r 99999999999999999999999\0", b"airflow\0tasks\0run\0d\0t\0r\0--raw\0--local\0",
        b"\x1b[2J\0" * 500, b"bash\0-c\0exec airflow tasks run d t '\0", b"docker\0run\0--name\0" + b"x" * 10_000,
        b"airflow task supervisor: ['airflow', 'tasks', 'run', 'd'\0", b" \0", "\u2028".encode() + b"\xff\0",
    ],
    "environ": [
        NAMED * 300, NAMED.replace(b"=1", b"=" + b"9" * 4000), b"=\0==\0AIRFLOW_CTX_DAG_ID\0AIRFLOW_=" + b"\xff" * 50,
        NAMED + b"AIRFLOW_CTX_EXECUTION_DATE=99999-13-45T99:99\0AIRFLOW_CTX_MAP_INDEX=-\0DOCKER_HOST=tcp://[::\0",
        NAMED + b"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql://[bad:%zz@/\0",
    ],
    "comm": [b") S 1 1 1", b"", b"\n\n"],
}  # fmt: skip


def content(name: str) -> st.SearchStrategy[bytes]:
    """A file's bytes: true but cut anywhere, crafted, or, where its owner writes them, anything."""
    true = TRUE[name]
    cut = st.integers(0, len(true)).map(lambda at: true[:at])
    made = cut | st.sampled_from(CRAFTED[name])
    return made if name in {"stat", "status"} else made | st.binary(max_size=200)


strangers = st.fixed_dictionaries({name: content(name) for name in TRUE})


@settings(max_examples=150)
@example([{name: crafted[-1] for name, crafted in CRAFTED.items()}])
@given(st.lists(strangers, min_size=1, max_size=4))
def test_what_strangers_write_kills_nobody_and_hides_nobody(found: list[dict[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        proc = FakeProc(Path(folder))
        watch = watch_of(proc)
        runner = proc.add(500, argv=[RUNNER], environ=tags())
        bash = proc.add(501, ppid=runner, argv=("bash", "x"), environ=tags())
        watch.tick()
        for number, files in enumerate(found):
            pid = proc.add(700 + number, uid=STRANGER)
            for name, data in files.items():
                data = data.replace(b"700", str(pid).encode()) if name == "stat" else data
                (proc.path / str(pid) / name).write_bytes(data)
        watch.tick()
        watch.look()
        site = survey([HOME], [URL], watch.processes.values(), proc, LISTENER)
        asked: Any = order(targets=(row(),), logical_date=DATE)
        picked = {
            process.pid
            for process in Index(watch.labelled(), lambda p: p.label).of(asked)
            if judge(asked, process, ORDERED, site).decision in {Decision.KILL, Decision.SETTLE}
        }
        assert picked == {runner, bash}


def test_an_owner_whose_status_cannot_be_read_is_nobody_of_ours(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    watch = watch_of(proc)
    pid = proc.add(600, argv=["bash"], environ=tags(), uid=UID)
    (proc.path / str(pid) / "status").write_bytes(b"Name:\tx\n")
    watch.look()
    assert [p.trusted for p in watch.labelled() if p.pid == pid] in ([], [False])
