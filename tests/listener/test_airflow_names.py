"""The forms in which each Airflow was seen to name its processes (setproctitle, argv, environ)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.airflow_names import conflict, is_init, parse_date, read_command, read_tags
from dagstop.host.procfs import parse_argv, parse_environ
from dagstop.model import Label, Role
from tests.support.fake_proc import DATE, HOME, KEY, URL, UUID, tags

ISO = "2026-11-22T09:17:13.497594+00:00"
PYTHON, AIRFLOW = "/opt/airflow/venv/bin/python", "/opt/airflow/venv/bin/airflow"
ARGV_2 = (
    "['airflow', 'tasks', 'run', 'stubborn', 'tree', 'lab_4711', '--local', '--subdir', 'DAGS_FOLDER/s.py']"
)
RUN_2 = Label(dag_id="stubborn", task_id="tree", run_id="lab_4711")
RUN_1 = Label(dag_id="stubborn", task_id="tree", logical_date=DATE)


def job(label: Label, number: int) -> Label:
    return label.filled_from(Label(job_id=number))


RUNNERS: list[tuple[str, Sequence[str], Label]] = [
    (
        "1.10.0, bash task runner",
        [PYTHON, AIRFLOW, "run", "stubborn", "tree", ISO, "--job_id", "13", "--raw", "-sd",
         "DAGS_FOLDER/s.py",
         "--cfg_path", "/tmp/tmp2jb7ee_m"],
        job(RUN_1, 13),
    ),
    (
        "1.10.0, its shell before exec",
        ["bash", "-c", f"airflow run stubborn tree {ISO} --job_id 13 --pool p --raw -sd s.py --cfg_path c"],
        job(RUN_1, 13),
    ),
    (
        "1.10.0, run_as_user",
        ["sudo", "-E", "-H", "-u", "airflow", "PYTHONPATH=/x", AIRFLOW, "run", "stubborn", "tree", ISO,
         "--job_id", "13", "--raw"],
        job(RUN_1, 13),
    ),
    ("1.10.15 and 2.0, forked", [f"airflow task runner: stubborn tree {ISO} 2"], job(RUN_1, 2)),
    ("2.11.2, forked", ["airflow task runner: stubborn tree lab_4711 4"], job(RUN_2, 4)),
    (
        "2.11.2, exec'd",
        [PYTHON, AIRFLOW, "tasks", "run", "stubborn", "tree", "lab_4711", "--job-id", "4", "--raw",
         "--subdir",
         "s.py", "--cfg-path", "/tmp/c", "--map-index", "3"],
        job(RUN_2, 4).filled_from(Label(map_index=3)),
    ),
    ("3.3.2", [f"airflow worker -- {UUID}"], Label(ti_id=UUID)),
    (
        "dots in the ids",
        ["airflow task runner: a.b group.tree lab_4711 4"],
        Label(dag_id="a.b", task_id="group.tree", run_id="lab_4711", job_id=4),
    ),
    (
        "a run_id of spaces, quotes and newlines",
        ["airflow task runner: d t it's  \"my\"\nrun 5 6 4"],
        Label(dag_id="d", task_id="t", run_id="it's  \"my\"\nrun 5 6", job_id=4),
    ),
    (
        "a scheduled run's id",
        ["airflow task runner: d t scheduled__2026-01-01T00:00:00+00:00 4"],
        Label(dag_id="d", task_id="t", run_id="scheduled__2026-01-01T00:00:00+00:00", job_id=4),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "label"), [r[1:] for r in RUNNERS], ids=[r[0] for r in RUNNERS])
def test_a_runner_names_its_task_instance(argv: Sequence[str], label: Label) -> None:
    assert read_command(argv) == (Role.RUNNER, label)


SUPERVISORS: list[tuple[str, Sequence[str], Label | None]] = [
    ("1.10.0", [PYTHON, AIRFLOW, "run", "stubborn", "tree", ISO, "--local", "-sd", "/opt/airflow/dags/s.py"],
     RUN_1),
    (
        "1.10.15",
        [PYTHON, AIRFLOW, "run", "stubborn", "tree", ISO, "--local", "--pool", "default_pool", "-sd", "s.py"],
        RUN_1,
    ),
    ("2.11.2", [f"airflow task supervisor: {ARGV_2}"], RUN_2),
    ("2.11.2, subprocess", [PYTHON, AIRFLOW, "tasks", "run", "stubborn", "tree", "lab_4711", "--local"],
     RUN_2),
    ("3.3.2, LocalExecutor", [f"airflow worker -- LocalExecutor: {UUID}"], Label(ti_id=UUID)),
    ("3.3.2, with a team", [f"airflow worker -- LocalExecutor team_a: {UUID}"], Label(ti_id=UUID)),
    ("3.3.2, Celery", [f"airflow supervisor: {UUID}"], Label(ti_id=UUID)),
    ("cut off", [f"airflow task supervisor: {ARGV_2[:40]}"], None),
    (
        "quoted run_id",
        ["airflow task supervisor: ['airflow', 'tasks', 'run', 'd', 't', \"it's\\n\", '--local']"],
        Label(dag_id="d", task_id="t", run_id="it's\n"),
    ),
    ("1.10, a day typed by hand", ["airflow", "run", "d", "t", "2026-11-22"],
     Label(dag_id="d", task_id="t", logical_date=parse_date("2026-11-22"))),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "label"), [r[1:] for r in SUPERVISORS], ids=[r[0] for r in SUPERVISORS])
def test_a_supervisor_is_never_taken_for_a_runner(argv: Sequence[str], label: Label | None) -> None:
    assert read_command(argv) == (Role.SUPERVISOR, label)


SERVICES = [
    [f"{PYTHON} {AIRFLOW} scheduler"],  # 2.11.2 after setproctitle: one word
    [PYTHON, AIRFLOW, "scheduler"],
    [PYTHON, "-m", "airflow", "scheduler"],
    ["/bin/sh", AIRFLOW, "scheduler"],
    ["bash", "-c", "exec airflow celery worker"],
    [PYTHON, AIRFLOW, "webserver", "-p", "8080", "-w", "1"],
    [PYTHON, AIRFLOW, "triggerer"],
    [PYTHON, AIRFLOW, "dag-processor"],
    [PYTHON, AIRFLOW, "worker"],
    ["airflow executor -- LocalExecutor"],
    ["airflow worker -- LocalExecutor"],
    ["airflow worker -- LocalExecutor: <idle>"],
    [f"airflow worker -- LocalExecutor: {ARGV_2}"],
    ["airflow scheduler -- DagFileProcessorManager"],
    ["airflow scheduler -- DagFileProcessor /opt/airflow/dags/s.py"],
    ["airflow api_server -- host:0.0.0.0 port:8080"],
    ["airflow serve-logs"],
    [f"airflow worker -- {UUID} and more"],
    ["gunicorn: master [airflow-webserver]"],
    ["[ready] gunicorn: worker [airflow-webserver]"],
    ["[celeryd: celery@host:ForkPoolWorker-15]"],
    ["/usr/bin/dockerd", "-H", "fd://"],
    ["/usr/bin/containerd-shim-runc-v2", "-id", "x"],
    ["postgres: checkpointer "],
    ["/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/postgresql"],
    ["sshd: user@pts/0"],
    ["/lib/systemd/systemd", "--user"],
    ["tini", "--", "airflow", "scheduler"],
]


@pytest.mark.parametrize("argv", SERVICES, ids=lambda argv: " ".join(argv)[:60])
def test_services_are_known(argv: Sequence[str]) -> None:
    assert read_command(argv) == (Role.SERVICE, None)


@pytest.mark.parametrize(
    "argv",
    [[PYTHON, AIRFLOW, "tasks", "test", "d", "t", ISO], ["airflow", "test", "d", "t", ISO]],
)
def test_a_test_by_hand_is_known(argv: Sequence[str]) -> None:
    assert read_command(argv) == (Role.TEST, None)


OTHERS = [
    [],
    [""],
    [" "],
    ["/usr/bin/bash", "-c", "sleep 6001 & sleep 6002 & wait"],
    ["bash", "/tmp/airflowtmpper5lodb/treez_u_ll3h"],
    ["sleep", "6001.4711"],
    ["ls", "/opt/airflow", "run", "d", "t", "r", "--raw"],  # an argument is not a program
    ["sudo", "-u", "airflow", "run", "d", "t", "r", "--raw"],
    ["ssh", "airflow", "test", "-f", "x"],
    ["bash", "-c", "airflow tasks test d t r; rm -rf /data"],  # more than a wrapper
    ["bash", "-c", "airflow scheduler & work"],
    ["bash", "-c", "echo 'unfinished"],
    ["airflow", "task", "runner:", "d", "t", "r", "4"],  # a title is one word
    ["airflow task runner: d t"],  # cut off
    ["grep", "airflow task runner: d t r 4"],
    ["echo airflow task runner: d t r 4"],
    ["podman", "run", "--name", "x", "image"],
]


@pytest.mark.parametrize("argv", OTHERS, ids=lambda argv: " ".join(argv)[:60])
def test_what_only_looks_alike_is_nothing(argv: Sequence[str]) -> None:
    assert read_command(argv) == (Role.OTHER, None)


def test_what_adopts_orphans() -> None:
    assert is_init(["/lib/systemd/systemd", "--user"]) and is_init(["/usr/bin/tini", "--"])
    assert not is_init([]) and not is_init(["/usr/sbin/sshd"])


def test_the_environment_of_each_release() -> None:
    assert read_tags(tags(AIRFLOW_CTX_EXECUTION_DATE=ISO)) == Label(
        dag_id="d", run_id="r", task_id="t", try_number=1, logical_date=DATE, airflow_home=HOME, database=KEY
    )
    three = {
        "AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_LOGICAL_DATE": ISO, "AIRFLOW_CTX_MAP_INDEX": "3",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///",
    }  # fmt: skip
    assert read_tags(three) == Label(dag_id="d", logical_date=DATE, map_index=3)
    assert not read_tags({"AIRFLOW_HOME": HOME}).names_a_run()


def test_the_policy_says_whose_tags_they_are() -> None:
    environ = {"DAGSTOP_AIRFLOW_HOME": HOME, "AIRFLOW_HOME": "/srv/other"}
    assert read_tags(environ).airflow_home == HOME
    assert read_tags({"AIRFLOW_HOME": "~/airflow"}).airflow_home is None


def test_no_password_gets_into_a_label() -> None:
    label = read_tags({"AIRFLOW__CORE__SQL_ALCHEMY_CONN": URL})
    assert "secret" not in repr(label) and label.database == KEY


@pytest.mark.parametrize("text", [None, "", "r", "2026-13-01", "scheduled__" + ISO])
def test_no_date(text: str | None) -> None:
    assert parse_date(text) is None


def test_a_date_without_a_zone_is_utc() -> None:
    assert parse_date("2026-11-22T09:17:13.497594") == parse_date(ISO.replace("+00:00", "Z")) == DATE


def test_a_run_id_that_is_written_as_a_date_is_no_conflict() -> None:
    title = read_command([f"airflow task runner: d t {ISO} 4"]).label
    assert title is not None
    later = parse_date("2027-01-01")
    child = Label(dag_id="d", run_id=ISO, task_id="t", logical_date=later)
    assert conflict(child, title) is None and conflict(title, child) is None
    assert conflict(Label(dag_id="d", run_id="r", logical_date=later), title) == "logical_date"
    assert conflict(Label(dag_id="d", run_id=ISO, task_id="u", logical_date=later), title) == "task_id"


words = st.sampled_from(
    ["airflow", "airflow task runner: ", "airflow task supervisor: ", "airflow worker -- ", "run", "tasks",
     "--raw", "bash", "-c", "sudo", "-u", "python", "exec airflow run d t r", "['airflow', ", "--job-id",
     UUID]
)  # fmt: skip


@given(
    st.lists(words | st.text(max_size=20) | st.tuples(words, st.text(max_size=10)).map("".join), max_size=8)
)
def test_no_words_break_the_reader(argv: list[str]) -> None:
    named = read_command(argv)
    if named.label is not None:
        hash(named.label)
    is_init(argv)


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [b"airflow task runner: d t r 1", b"airflow", b"AIRFLOW_CTX_DAG_ID=",
             b"AIRFLOW_CTX_TRY_NUMBER=\xff1",
             b"AIRFLOW_CTX_EXECUTION_DATE=0001-01-01T00:00:00+14:00", b"AIRFLOW_HOME=/\xfe", b"\0", b"\n",
             b"AIRFLOW__CORE__SQL_ALCHEMY_CONN=postgresql://u:p/@[::1:99999999/x?port=z", b"="]
        )
    ).map(b"".join)
)  # fmt: skip
def test_no_bytes_break_the_reader(data: bytes) -> None:
    read_command(parse_argv(data))
    label = read_tags(parse_environ(data))
    hash(label)
    label.facts()
    conflict(label, Label(dag_id="d", logical_date=DATE))


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-11-22T09:17:13.5+00:00", 500000),
        ("2026-11-22T09:17:13.12345Z", 123450),
        ("2026-11-22T09:17:13.123456789", 123456),
    ],
)
def test_fractions_as_postgres_writes_them(text: str, microsecond: int) -> None:
    date = parse_date(text)
    assert date is not None and date.microsecond == microsecond and date.second == 13


@pytest.mark.parametrize("number", ["99999999999", "2147483648", "1" * 5000, "\u0663", "1_0", " 1", "1.0"])
def test_a_number_that_no_column_holds_is_none(number: str) -> None:
    """`dagstop ps` asks the database for what processes name, and anybody's environment may name it."""
    label = read_tags({"AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_MAP_INDEX": number})
    assert label == Label(dag_id="d")
    assert read_tags({"AIRFLOW_CTX_MAP_INDEX": "-1"}).map_index == -1


@pytest.mark.parametrize("word", ["t\\0", "\\ud800"])
def test_an_id_that_postgres_cannot_hold_is_nobodys(word: str) -> None:
    title = f"airflow task supervisor: ['airflow', 'tasks', 'run', 'd', '{word}', 'r']"
    assert read_command([title]) == (Role.SUPERVISOR, None)
