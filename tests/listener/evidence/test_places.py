"""Containers on a fake /proc: what is found, named and read of them, and whose their processes are."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence.consent import selectors
from dagstop.evidence.match import judge
from dagstop.evidence.place import Place
from dagstop.evidence.places import KEPT, LISTED, Places
from dagstop.evidence.watch import Watch
from dagstop.host.containers import Container
from dagstop.model import Decision, Identity, Process
from tests.support.fake_proc import HOME, KEY, LISTENER, URL, FakeProc, at, order, row, site, watch_of

OURS, TWIN = "3f2a90c41b7d" + "0" * 52, "9b1c55d0e2aa" + "0" * 52
UID = os.geteuid()  # whose the folders of these tests are


class Machine(FakeProc):
    """A machine with containers of Airflow."""

    def container(self, pid: int, ident: str, hostname: str | None = None, **environ: str) -> Identity:
        """One with its init at `pid`, a home and a host name inside."""
        name = hostname or ident[:12]
        variables = {
            "AIRFLOW_HOME": HOME,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": URL,
            "HOSTNAME": name,
            **environ,
        }
        shown = {name: value for name, value in variables.items() if value}
        self.add(pid, argv=("dumb-init",), environ=shown, namespace=f"pid:[{pid}]", inner=1, uid=UID)
        (self.path / str(pid) / "cgroup").write_text(f"0::/docker/{ident}\n")
        root = self.path / str(pid) / "root"
        (root / HOME.lstrip("/")).mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc" / "hostname").write_text(f"{name}\n")
        stat = self.stat(pid)
        assert stat is not None
        return Identity(pid, stat.start)

    def task(self, init: int, number: int, inner: int = 31) -> int:
        """A runner and its bash in a container; gives the pid of bash."""
        title = "airflow task runner: d t r 7"
        inside: Any = {"namespace": f"pid:[{init}]", "uid": UID}
        self.add(number, ppid=init, argv=(title,), environ={"AIRFLOW_HOME": HOME}, inner=inner, **inside)
        return self.add(number + 1, ppid=number, argv=("bash",), inner=inner + 1, **inside)


@pytest.fixture
def proc(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def containers(**projects: str) -> list[Container]:
    """As an engine lists them: id of each project's container."""
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    facts: dict[str, Any] = {"pid": 0, "created_at": moment, "paused": False, "restart_policy": "no"}
    return [
        Container(ident, name, "image", tags={}, project=name, **facts) for name, ident in projects.items()
    ]


def places_of(proc: Machine, *words: str, **more: Any) -> Places:
    facts: dict[str, Any] = {
        "urls": (URL,),
        "machine": {"host-1"},
    }
    return Places(proc, selectors(words or ("compose=shop",)), **{**facts, **more})


RUNNING = containers(shop=OURS, bank=TWIN)


def seen(
    proc: Machine, places: Places, listed: Iterable[Container] = RUNNING
) -> tuple[Watch, Mapping[Identity, Place]]:
    watch = watch_of(proc, trusted=())
    watch._labelling._init_of = places.init_of
    watch._hostname_of = places.hostname_of
    watch.look()
    return watch, places.survey(watch.processes, listed)


def only(proc: Machine, places: Places, listed: Iterable[Container] = RUNNING) -> Place:
    _, found = seen(proc, places, listed)
    (one,) = found.values()
    return one


def decide(process: Process, found: Mapping[Identity, Place], hostname: str = OURS[:12]) -> Any:
    rows = (row(hostname=hostname, pid=31),)
    asked = order(targets=rows, present=(replace(rows[0], state="failed"),))
    return judge(asked, process, at(-60), site(homes=frozenset(), places=found))


def test_what_is_read_of_a_container(proc: Machine) -> None:
    init = proc.container(400, OURS)
    assert only(proc, places_of(proc)) == Place(
        init, OURS, OURS[:12], HOME, frozenset({UID}), frozenset({KEY}), "compose=shop"
    )


def test_processes_of_ours_die_and_those_of_the_twin_live(proc: Machine) -> None:
    """Both have the same home, URL, ids, job id and pids inside."""
    proc.container(400, OURS)
    proc.container(500, TWIN)
    ours, twin = proc.task(400, 410), proc.task(500, 510)
    watch, found = seen(proc, places_of(proc))
    for pid in (ours, ours - 1):
        assert decide(watch.processes[pid], found).decision is Decision.KILL
    for pid in (twin, twin - 1):
        assert decide(watch.processes[pid], found).decision is Decision.SPARE
    # consent to both: only the host name in the database differs
    watch, found = seen(proc, places_of(proc, "compose=*sh*", "compose=bank"))
    assert decide(watch.processes[ours], found).decision is Decision.KILL
    assert decide(watch.processes[twin], found).decision is Decision.SPARE


def test_the_same_fixed_host_name_spares_both(proc: Machine) -> None:
    proc.container(400, OURS, "worker")
    proc.container(500, TWIN, "worker")
    pids = proc.task(400, 410), proc.task(500, 510)
    watch, found = seen(proc, places_of(proc))
    for pid in pids:
        assert decide(watch.processes[pid], found, "worker").decision is Decision.SPARE


def test_a_container_whose_host_name_is_hidden_may_have_that_name(proc: Machine) -> None:
    proc.container(400, OURS, "worker-1")
    pid = proc.task(400, 410)
    places = places_of(proc)
    watch, found = seen(proc, places)
    assert decide(watch.processes[pid], found, "worker-1").decision is Decision.KILL
    proc.container(500, TWIN, "anything")
    proc.refused[(500, "environ")] = errno.EACCES
    watch, found = seen(proc, places_of(proc))
    assert decide(watch.processes[pid], found, "worker-1").decision is Decision.SPARE


def test_only_a_container_whose_host_name_is_hidden_casts_doubt_on_others(proc: Machine) -> None:
    """Not one that shows all and has none, nor one of which only something else is unknown."""
    init = proc.container(400, OURS, "worker-1")
    proc.container(500, TWIN, HOSTNAME="")
    proc.container(600, "5f" + TWIN[2:], "worker-2")
    (proc.path / "600" / "root" / "etc" / "hostname").write_text("another\n")
    _, found = seen(proc, places_of(proc, "cgroup=/docker/3f*", "cgroup=/docker/5f*"))
    assert [init.pid for init, place in found.items() if place.unread is not None] == [600]
    assert not found[init].shares_name


def test_the_machines_own_name_is_not_a_containers(proc: Machine) -> None:
    """`network_mode: host`: what runs on the machine has it, too."""
    proc.container(400, OURS, "host-1")
    pid = proc.task(400, 410)
    watch, found = seen(proc, places_of(proc))
    assert decide(watch.processes[pid], found, "host-1").decision is Decision.SPARE


def test_an_unreadable_container_is_foreign_and_named(proc: Machine) -> None:
    proc.container(400, OURS)
    proc.refused[(400, "environ")] = errno.EACCES
    places = places_of(proc)
    place = only(proc, places)
    assert place.unread is not None and "/proc/400/environ cannot be read" in place.unread
    assert places.names() == frozenset()
    assert len(places.unread()) == 1


def test_the_user_of_the_first_process_runs_airflow_too(proc: Machine) -> None:
    """`user: "${AIRFLOW_UID}:0"` of the official compose file, where the image's home is another user's."""
    init = proc.container(400, OURS)
    proc.becomes_user(400, 1000, 1)
    place = only(proc, places_of(proc))
    assert place.init.pid == init.pid and place.uids == {UID, 1000}


def test_a_database_of_the_same_project_is_told_of_as_one(proc: Machine) -> None:
    proc.container(400, OURS)
    postgres = proc.container(500, OURS.replace("3f", "4f"), "postgres")
    proc.become(postgres.pid, ("postgres",), {"HOSTNAME": "postgres"})
    proc.container(600, OURS.replace("3f", "5f"), "no-home", AIRFLOW_HOME="")  # an Airflow all the same
    places = places_of(proc, "cgroup=/docker/*")
    seen(proc, places)
    assert [(one["hostname"], one["airflow"], one["refused"] is None) for one in places.facts()] == [
        ("no-home", True, False),
        (OURS[:12], True, True),
        ("postgres", False, False),
    ]


@pytest.mark.parametrize(
    ("number", "file", "wanted"),
    [
        (errno.EACCES, "400/root", "CAP_SYS_PTRACE is needed"),
        (errno.EACCES, "/etc/hostname", "CAP_DAC_OVERRIDE is needed"),
        (errno.ENOSYS, "/etc/hostname", "a systemd unit without RestrictSUIDSGID=yes"),
    ],
)
def test_what_cannot_be_read_says_what_is_missing(
    proc: Machine, monkeypatch: pytest.MonkeyPatch, number: int, file: str, wanted: str
) -> None:
    proc.container(400, OURS)

    def refuse(*_: object) -> bytes:
        raise OSError(number, os.strerror(number), file if file.startswith("/") else f"{proc.root}/{file}")

    monkeypatch.setattr("dagstop.evidence.places.host.read_inside", refuse)
    place = only(proc, places_of(proc))
    assert place.unread is not None and place.unread.endswith(f"{wanted})"), place.unread


def test_any_other_trouble_with_its_files_is_said_as_it_is(
    proc: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.container(400, OURS)

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/etc/hostname")

    monkeypatch.setattr("dagstop.evidence.places.host.read_inside", broken)
    assert only(proc, places_of(proc)).unread == "/etc/hostname: Input/output error"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[database]\nsql_alchemy_conn = postgresql://a@elsewhere/airflow\n", {"elsewhere:5432/airflow"}),
        ("[core]\nsql_alchemy_conn = postgresql+psycopg2://a:%%40@elsewhere/x\n", {"elsewhere:5432/x"}),
        ("[database]\nsql_alchemy_conn = sqlite:////opt/airflow/airflow.db\n", set()),
        ("not a configuration", set()),
        ("[core]\nsql_alchemy_conn = postgresql://a@old/x\n[database]\nsql_alchemy_conn_cmd = true\n", set()),
        (
            "[core]\nsql_alchemy_conn = postgresql://a@old/x\n"
            "[database]\nsql_alchemy_conn = postgresql://a@elsewhere/x\n",
            {"elsewhere:5432/x"},
        ),
    ],
)
def test_without_a_url_in_the_environment_its_configuration_counts(
    proc: Machine, text: str, wanted: set[str]
) -> None:
    proc.container(400, OURS, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="")
    (proc.path / "400" / "root" / HOME.lstrip("/") / "airflow.cfg").write_text(text)
    assert only(proc, places_of(proc)).databases == wanted


@pytest.mark.parametrize("section", ["DATABASE", "CORE"])
@pytest.mark.parametrize("how", ["CMD", "SECRET"])
def test_where_a_variable_names_who_knows_the_url_the_configuration_does_not_count(
    proc: Machine, section: str, how: str
) -> None:
    said = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "", f"AIRFLOW__{section}__SQL_ALCHEMY_CONN_{how}": "x"}
    proc.container(400, OURS, **said)
    text = "[database]\nsql_alchemy_conn = postgresql://a@elsewhere/airflow\n"
    (proc.path / "400" / "root" / HOME.lstrip("/") / "airflow.cfg").write_text(text)
    assert only(proc, places_of(proc)).databases == set()


def test_a_host_name_that_leads_out_is_not_read(proc: Machine) -> None:
    proc.container(400, OURS)
    outside = proc.path / "name"
    outside.write_text("worker")
    name = proc.path / "400" / "root" / "etc" / "hostname"
    name.unlink()
    name.symlink_to(outside)
    place = only(proc, places_of(proc))
    assert (place.hostname, place.unread) == (OURS[:12], None)  # that of its environment


def test_a_host_name_that_the_environment_does_not_show_is_read_inside(proc: Machine) -> None:
    proc.container(400, OURS, HOSTNAME="")
    assert only(proc, places_of(proc)).hostname == OURS[:12]


def test_a_home_that_is_no_whole_path_is_none(proc: Machine) -> None:
    proc.container(400, OURS)
    proc.become(400, ("dumb-init",), {"AIRFLOW_HOME": HOME.lstrip("/"), "HOSTNAME": OURS[:12]})
    place = only(proc, places_of(proc))
    assert (place.home, place.unread, place.uids) == (None, None, frozenset())


def test_a_container_at_its_end_cannot_be_read(proc: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not to be read, and is gone before the kernel is asked why."""
    proc.container(400, OURS)
    monkeypatch.setattr(proc, "environ", lambda pid: None)
    place = only(proc, places_of(proc))
    assert (place.named_by, place.unread) == ("compose=shop", "it is ending")


def test_an_empty_host_name_is_none(proc: Machine) -> None:
    proc.container(400, OURS)
    proc.become(400, ("dumb-init",), {"AIRFLOW_HOME": HOME, "HOSTNAME": ""})
    (proc.path / "400" / "root" / "etc" / "hostname").write_text("\n")
    assert only(proc, places_of(proc)).hostname is None


def test_two_host_names_are_none(proc: Machine) -> None:
    proc.container(400, OURS)
    (proc.path / "400" / "root" / "etc" / "hostname").write_text("another\n")
    place = only(proc, places_of(proc))
    assert place.unread is not None and "its host name is another in /etc/hostname" in place.unread


def test_files_of_a_container_that_nobody_named_are_not_opened(proc: Machine) -> None:
    proc.container(400, TWIN)
    os.mkfifo(proc.path / "400" / "root" / "etc" / "airflow.cfg")
    place = only(proc, places_of(proc))
    assert (place.named_by, place.uids, place.databases) == (None, frozenset(), frozenset())


def test_a_pod_by_its_namespace(proc: Machine) -> None:
    proc.container(400, OURS, "pod-1")
    folder = proc.path / "400" / "root" / "run" / "secrets" / "kubernetes.io" / "serviceaccount"
    folder.mkdir(parents=True)
    (folder / "namespace").write_text("airflow")
    (proc.path / "400" / "root" / "var").mkdir()
    (proc.path / "400" / "root" / "var" / "run").symlink_to("/run")
    assert only(proc, places_of(proc, "kubernetes=airflow"), ()).named_by == "kubernetes=airflow"
    assert only(proc, places_of(proc, "kubernetes=other"), ()).named_by is None
    both = places_of(proc, "compose=shop", "kubernetes=airflow")
    assert only(proc, both, ()).named_by == "kubernetes=airflow"


def test_by_its_cgroup_without_an_engine(proc: Machine) -> None:
    proc.container(400, OURS)
    assert only(proc, places_of(proc, "cgroup=/docker/*"), ()).named_by == "cgroup=/docker/*"


def test_an_engine_that_does_not_know_a_container_yet_is_asked(proc: Machine) -> None:
    proc.container(400, OURS)
    places = places_of(proc)
    watch, found = seen(proc, places, ())
    (place,) = found.values()
    assert places.unlisted and (place.named_by, place.unlisted) == (None, True)
    (place,) = places.survey(watch.processes, containers(shop=OURS)).values()
    assert not places.unlisted and (place.named_by, place.unlisted) == ("compose=shop", False)


def test_an_engine_is_not_asked_for_ever_for_what_it_does_not_have(
    proc: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.container(400, OURS)
    places = places_of(proc)
    watch, _ = seen(proc, places, ())
    assert places.unlisted
    moment = time.monotonic() + LISTED
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    (place,) = places.survey(watch.processes, ()).values()
    assert not places.unlisted and not place.unlisted


def test_a_container_that_nobody_can_make_sense_of_is_foreign(proc: Machine) -> None:
    proc.container(400, OURS)

    def broken() -> Iterator[Container]:
        yield from RUNNING
        raise ValueError("no engine speaks so")

    watch, found = seen(proc, places_of(proc), broken())
    assert found == {} and 400 in watch.processes


def test_a_container_that_is_started_again_is_another_place(proc: Machine) -> None:
    """The same id, host name, pid namespace and even pid; what was seen in the first is not in the second."""
    first = proc.container(400, OURS)
    places = places_of(proc)
    watch, _ = seen(proc, places)
    proc.end(400)
    second = proc.container(400, OURS)
    watch.look()
    found = places.survey(watch.processes, RUNNING)
    assert first != second and set(found) == {first, second}
    assert places.names() == {OURS[:12]}


def test_an_engine_is_not_asked_for_what_another_fact_names(proc: Machine) -> None:
    proc.container(400, OURS)
    places = places_of(proc, f"cgroup=*{OURS}", "compose=bank")
    place = only(proc, places, ())
    assert place.named_by == f"cgroup=*{OURS}" and not place.unlisted and not places.unlisted


def test_a_container_has_the_pid_of_something_that_was_there_before(proc: Machine) -> None:
    proc.add(400, argv=("sleep", "1"))
    places = places_of(proc)
    watch, found = seen(proc, places)
    assert found == {}
    proc.end(400)
    init = proc.container(400, OURS)
    watch.look()
    assert set(places.survey(watch.processes, RUNNING)) == {init}


def test_it_answers_for_a_container_that_has_ended(proc: Machine) -> None:
    """And its tasks count as ended, where they were seen."""
    proc.container(400, OURS)
    proc.container(500, TWIN)
    ours, twin = proc.task(400, 410), proc.task(500, 510)
    places = places_of(proc)
    watch, _ = seen(proc, places)
    for pid in (ours, ours - 1, 400, twin, twin - 1, 500):
        proc.end(pid)
    watch.look()
    found = places.survey(watch.processes, RUNNING)
    assert [place.hostname for place in found.values()] == [OURS[:12]]
    assert places.names() == {OURS[:12]} and places.facts() == []
    rows = (row(hostname=OURS[:12], pid=31),)
    here = site(homes=frozenset())
    assert list(watch.departed.of(order(targets=rows, present=()), here)) != []
    rows = (row(hostname=TWIN[:12], pid=31),)
    assert list(watch.departed.of(order(targets=rows, present=()), here)) == []


def test_it_answers_for_the_latest_containers_that_have_ended(
    proc: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagstop.evidence.places.MOST_ENDED", 2)
    places = places_of(proc, "cgroup=/docker/*")
    for number in range(3):
        proc.container(400, OURS, f"worker-{number}")
        seen(proc, places)
        proc.end(400)
        seen(proc, places)
    assert places.names() == {"worker-1", "worker-2"}


def test_a_listener_inside_keeps_its_container(proc: Machine) -> None:
    proc.container(400, OURS)
    pid = proc.task(400, 410)
    proc.add(
        430, ppid=400, argv=("python", "/opt/dagstop/bin/dagstop", "listen"), namespace="pid:[400]", inner=9
    )
    places = places_of(proc)
    watch, found = seen(proc, places)
    verdict = decide(watch.processes[pid], found)
    assert verdict.decision is Decision.SPARE and "listener in its container, pid 430" in verdict.reason
    assert places.names() == frozenset()


@pytest.mark.parametrize(
    "words", [("sh", "-c", "x", "/opt/dagstop", "not", "listen"), ("nc", "listen"), ("dagstop", "ps")]
)
def test_who_only_speaks_of_a_listener_keeps_no_container(proc: Machine, words: tuple[str, ...]) -> None:
    proc.container(400, OURS)
    proc.task(400, 410)
    proc.add(430, ppid=400, argv=words, namespace="pid:[400]", inner=9)
    assert only(proc, places_of(proc)).kept_by is None


def test_orphans_belong_to_the_container_that_adopted_them(proc: Machine) -> None:
    """Its init is pid 1 to them: being its child says nothing, and a shell there is nobody's."""
    proc.container(400, OURS)
    pid = proc.task(400, 410)
    places = places_of(proc)
    watch, _ = seen(proc, places)
    proc.become(400, ("airflow", "scheduler"))
    proc.end(410, adopted_by=400)
    watch.look()
    found = places.survey(watch.processes, RUNNING)
    assert decide(watch.processes[pid], found).decision is Decision.KILL


def test_what_somebody_runs_by_docker_exec_is_spared(proc: Machine) -> None:
    proc.container(400, OURS)
    proc.add(300, argv=("containerd-shim",), uid=0)
    tagged = {
        "AIRFLOW_HOME": HOME,
        "AIRFLOW_CTX_DAG_ID": "d",
        "AIRFLOW_CTX_DAG_RUN_ID": "r",
        "AIRFLOW_CTX_TASK_ID": "t",
    }
    proc.add(420, ppid=300, argv=("bash",), environ=tagged, namespace="pid:[400]", inner=50, uid=UID)
    watch, found = seen(proc, places_of(proc))
    verdict = decide(watch.processes[420], found)
    assert verdict.decision is Decision.SPARE and "it runs under 'containerd-shim'" in verdict.reason


def test_what_nobody_expects_is_in_the_log_once(
    proc: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = places_of(proc)
    for said in ("a", "a", "b"):
        monkeypatch.setattr(places, "_survey", lambda *_, said=said: {}[said])
        assert places.survey({}, ()) == {}
    assert len([one for one in caplog.records if "not read" in str(one.msg)]) == 2


def test_without_a_selector_nothing_is_looked_for(proc: Machine) -> None:
    proc.container(400, OURS)
    proc.task(400, 410)
    places = Places(proc, ())
    watch = watch_of(proc)
    watch.look()
    assert not places.wanted and places.survey(watch.processes, RUNNING) == {}
    assert not places.unlisted, "no engine is asked"
    assert places_of(proc).wanted
    assert {p.contrary for p in watch.labelled()} == {"it lives in another pid namespace"}
    assert LISTENER in watch.processes


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("compose=shop", True),
        ("image=airflow*", True),
        ("cgroup=/shop/*", False),
        ("kubernetes=shop", False),
        ("cgroup=/shop/* compose=shop", True),
    ],
)
def test_an_engine_is_asked_only_for_what_it_alone_can_tell(proc: Machine, word: str, asked: bool) -> None:
    proc.container(400, OURS)
    places = places_of(proc, *word.split())
    place = only(proc, places, ())
    assert (places.unlisted, place.unlisted) == (asked, asked)


def test_what_a_heartbeat_says_of_each_container_of_an_airflow(proc: Machine) -> None:
    """What is refused first, then ours; not a container without an Airflow that nobody named."""
    proc.container(400, OURS)
    proc.container(500, TWIN)
    proc.container(600, "a" * 64, AIRFLOW_HOME="", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="")
    places = places_of(proc)
    seen(proc, places)
    twin, ours = places.facts()
    assert ours == {
        "hostname": OURS[:12], "container": OURS[:12], "named_by": "compose=shop", "refused": None,
        "unread": False, "airflow": True, "kept_by": None,
    }  # fmt: skip
    assert (twin["hostname"], twin["named_by"], twin["unread"]) == (TWIN[:12], None, False)
    assert "no --container names" in twin["refused"]
    assert places.names() == {OURS[:12]} and places.uids() == {UID} and places.unread() == []


def test_the_log_has_each_container_once_and_again_when_its_verdict_changes(
    proc: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    init = proc.container(400, OURS)
    proc.container(500, TWIN)
    places = places_of(proc)

    def said() -> list[tuple[str, bool]]:
        seen(proc, places)
        lines = [one.getMessage() for one in caplog.records if "verdict" in one.getMessage()]
        caplog.clear()
        return sorted((OURS[:12] if OURS[:12] in line else "twin", "verdict=ours" in line) for line in lines)

    assert said() == [(OURS[:12], True), ("twin", False)]
    assert said() == []
    proc.become(400, ("dumb-init",), {"HOSTNAME": OURS[:12]})
    places._seen[init].read_at = time.monotonic() - KEPT - 1
    assert said() == [(OURS[:12], False)]


def test_what_is_named_and_refused_goes_unseen_only_if_it_cannot_be_read(proc: Machine) -> None:
    proc.container(400, OURS, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql://bank/b")
    proc.container(500, TWIN)
    proc.refused[(500, "environ")] = errno.EACCES
    places = places_of(proc)
    seen(proc, places)
    assert places.unread() == [] and places.uids() == frozenset()
    (refused,) = places.facts()
    assert "the metadata database" in refused["refused"]
    both = places_of(proc, "compose=shop", "compose=bank")
    seen(proc, both)
    assert len(both.unread()) == 1 and "cannot be read" in both.unread()[0]
    assert [one["unread"] for one in both.facts()] == [False, True]


def test_what_no_engine_has_listed_is_not_read_anew_with_each_look(proc: Machine) -> None:
    proc.container(400, OURS, "first")
    places = places_of(proc)
    seen(proc, places, ())
    proc.become(400, ("dumb-init",), {"HOSTNAME": "second"})
    assert only(proc, places, ()).hostname == "first"
    assert only(proc, places).hostname == "second", "the engine has listed it: what it shows is read"


def test_each_process_is_asked_once_whether_it_is_a_containers_first(
    proc: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders wait for it, and a host has thousands."""
    init = proc.container(400, OURS)
    proc.task(400, 410)
    places = places_of(proc)
    watch, _ = seen(proc, places)
    asked: list[int] = []

    def inner_pids(pid: int) -> tuple[int, ...]:
        asked.append(pid)
        return ()

    monkeypatch.setattr(proc, "inner_pids", inner_pids)
    for _ in range(2):
        assert set(places.survey(watch.processes, RUNNING)) == {init}
    assert set(asked) <= {LISTENER}, "it may be one in a container"


def test_a_container_is_read_again_after_a_while(proc: Machine) -> None:
    """Its first process may still execute something; not each time, since orders wait for it."""
    init = proc.container(400, OURS)
    places = places_of(proc)
    seen(proc, places)
    other = {
        "AIRFLOW_HOME": HOME,
        "HOSTNAME": OURS[:12],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://bank/b",
    }
    proc.become(400, ("dumb-init",), other)
    places._seen[init].read_at = time.monotonic() + 1000  # however slow the test is
    _, found = seen(proc, places)
    assert found[init].databases == {KEY}
    places._seen[init].read_at = time.monotonic() - KEPT - 1
    _, found = seen(proc, places)
    assert found[init].databases == {"bank:5432/b"}
