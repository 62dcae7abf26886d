"""What tells our Airflow from another one on the same host."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.database.key import database_key
from dagstop.evidence.place import Place
from dagstop.evidence.site import ancestors, survey, trusted_uids
from dagstop.model import Identity, Label, Role
from tests.support.fake_proc import HOME, KEY, LISTENER, URL, FakeProc, process, site, watch_of


def test_a_home_is_the_same_by_every_link_to_it(tmp_path: Path) -> None:
    real, link, second = tmp_path / "real", tmp_path / "link", tmp_path / "second"
    real.mkdir()
    link.symlink_to(real)
    second.symlink_to(link)
    proc = FakeProc(tmp_path / "proc")
    for ours in (real, link):
        others = [
            process(environ={"AIRFLOW_HOME": f"{second}/"}),
            process(environ={"AIRFLOW_HOME": "/srv/b"}),
        ]
        site = survey([str(ours)], [URL], others, proc, LISTENER)
        for home in (real, link, second):
            assert (
                site.is_home(str(home))
                and site.is_home(f"{home}/")
                and site.is_home(f"{home}/../{home.name}")
            )
        assert not site.is_home("/srv/b") and not site.is_home(str(tmp_path)) and not site.is_home("")
        assert site.foreign_homes == {"/srv/b"}
        assert site.databases == {KEY}


def test_a_home_is_ours_by_the_name_that_we_were_given_wherever_its_link_leads_since(tmp_path: Path) -> None:
    """As where each release has a folder of its own."""
    old, new, link = tmp_path / "1", tmp_path / "2", tmp_path / "airflow"
    link.symlink_to(old)
    ours = survey([str(link)], [URL], [], FakeProc(tmp_path / "proc"), LISTENER)
    link.unlink()
    link.symlink_to(new)
    assert ours.is_home(str(link)) and ours.is_home(str(old)) and not ours.is_home(str(new))


@pytest.mark.parametrize(
    ("home", "database", "ours"),
    [
        (None, None, True),
        (HOME, KEY, True),
        (None, KEY, True),
        (HOME, None, True),
        ("/srv/b", None, False),
        ("/srv/b", KEY, False),
        (HOME, "db.example:5432/b", False),
        (None, "db.example:5432/b", False),
    ],
)
def test_what_names_another_home_or_database_is_not_ours(
    home: str | None, database: str | None, ours: bool
) -> None:
    assert site().may_be_ours(Label(airflow_home=home, database=database)) is ours


def test_itself_and_its_ancestors_are_untouchable(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.add(80, ppid=1)
    proc.add(81, ppid=80)
    proc.add(82, ppid=81)
    assert ancestors(proc, 82) == {82, 81, 80, 1}
    assert survey([], [], [], proc, 82).untouchable == {0, 1, 2, 80, 81, 82}
    assert ancestors(proc, 4711) == {4711}
    assert survey([], [], [], proc, 4711).untouchable == {0, 1, 2, 4711}


def test_a_site_knows_the_containers_that_it_is_given(tmp_path: Path) -> None:
    proc, init = FakeProc(tmp_path), Identity(400, 50)
    assert survey([], [], [], proc, LISTENER).places == {}
    assert survey([], [], [], proc, LISTENER, {init: Place(init)}).places == {init: Place(init)}


def test_a_loop_of_parents_ends(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.add(80, ppid=81)
    proc.add(81, ppid=80)
    assert ancestors(proc, 80) == {80, 81}


def test_who_owns_a_home_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    owner = tmp_path.stat().st_uid
    assert trusted_uids([str(tmp_path), "/nowhere"], [4711]) == {owner, 4711}
    assert trusted_uids(["/nowhere", str(tmp_path)]) == {owner}
    assert trusted_uids([], []) == frozenset()
    for user in (1, 1234):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert trusted_uids([], []) == {user}


SAME = [
    "postgresql://localhost/airflow",
    "postgresql+psycopg2://u:p@localhost:5432/airflow",
    "postgres://u@127.0.0.1/airflow",
    "postgresql://u:p@127.0.1.1/airflow",
    "postgresql:///airflow",
    "postgresql://u:p@/airflow?host=/var/run/postgresql",
    "postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/airflow",
    "postgresql://u:p%40ss@[::1]:5432/airflow?sslmode=require",
    f"postgresql://{socket.gethostname()}/airflow",
    "postgresql://u:12#w@x@localhost/airflow",  # a password that nobody escaped
]


@pytest.mark.parametrize("url", SAME)
def test_one_database_has_one_key(url: str) -> None:
    assert database_key(url) == "local:5432/airflow"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (URL, KEY),
        ("postgresql://DB.example:6432/airflow", "db.example:6432/airflow"),
        ("postgresql://db.example/a?port=5433", "db.example:5433/a"),
        ("postgresql://db.example/other", "db.example:5432/other"),
        ("sqlite:////opt/airflow/airflow.db", "sqlite:"),
        ("mysql+pymysql://u:p@localhost/airflow", "mysql:"),
        ("airflow-db-not-allowed:///", None),  # 3.x, in every task
        ("", None),
        ("postgresql://db.example:port/a", None),
        ("postgresql://two.example:2,one.example/a", "one.example:5432,two.example:2/a"),
        ("postgresql+psycopg2:///a?host=two.example:2&host=one.example", "one.example:5432,two.example:2/a"),
        ("postgresql://u@db.example/a?colour=red", "db.example:5432/a"),  # libpq would refuse it
        ("postgresql://airflow@db.example", "db.example:5432/airflow"),
    ],
)
def test_another_database_has_another_key(url: str, key: str | None) -> None:
    assert database_key(url) == key


@given(st.text(max_size=40) | st.text(max_size=40).map("postgresql://".__add__))
def test_no_url_breaks_it(url: str) -> None:
    database_key(url)


OURS = "postgresql+psycopg2://u@/a?host=one.example:1&host=two.example:2&target_session_attrs=read-write"


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("postgresql://u@one.example:1,two.example:2/a", True),
        ("postgresql://u@two.example:2,one.example:1/a", True),
        ("postgresql://other:login@two.example:2/a", True),  # after a failover only one may be left
        ("postgresql://u@/a?host=three.example,two.example&port=2", True),
        ("postgresql://u@one.example:1,two.example:2/b", False),
        ("postgresql://u@one.example:2,two.example:1/a", False),
        ("postgresql://u@three.example/a", False),
        ("sqlite:////a", False),
    ],
)
def test_urls_of_several_servers_name_one_database_if_they_share_one(
    tmp_path: Path, url: str, ours: bool
) -> None:
    site = survey([], [OURS], [], FakeProc(tmp_path), LISTENER)
    key = database_key(url)
    assert key is not None and site.is_database(key) is ours


def test_another_airflow_is_one_that_names_another_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = FakeProc(tmp_path / "proc")
    named = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    homes = {name: tmp_path / name for name in ("by_config", "sqlite", "none", "same", "huge", "by_command")}
    for home in homes.values():
        home.mkdir()
    config = "[core]\nsql_alchemy_conn = {}\n"
    (homes["by_config"] / "airflow.cfg").write_text(config.format("postgresql://b@db.example/b"))
    another = config.format("postgresql://b@db.example/b")
    (homes["huge"] / "airflow.cfg").write_text(another.ljust(1 << 20, "#"))
    (homes["sqlite"] / "airflow.cfg").write_text(config.format("sqlite:////srv/airflow.db"))
    (homes["same"] / "airflow.cfg").write_text(config.format(URL))
    (homes["by_command"] / "airflow.cfg").write_text(another)
    others = [process(environ={"AIRFLOW_HOME": str(home)}) for home in homes.values()]
    # what it names by a command may be ours, whatever its configuration says
    others += [process(environ={"AIRFLOW_HOME": str(homes["by_command"]), f"{named}_CMD": "vault read url"})]
    others += [
        process(environ={"AIRFLOW_HOME": "/srv/b", named: "postgresql://b@db.example/b"}),
        process(environ={"AIRFLOW_HOME": "/srv/c", named: URL}),
        process(environ={"AIRFLOW_HOME": "/srv/c", named: "postgresql://b@db.example/b"}),
        process(environ={"AIRFLOW_HOME": str(tmp_path), named: "postgresql://b@db.example/b"}),
    ]
    site = survey([str(tmp_path)], [URL], others, proc, LISTENER)
    assert site.other_airflows == {"/srv/b", str(homes["by_config"])}
    assert survey([str(tmp_path)], [], others, proc, LISTENER).other_airflows == frozenset()
    monkeypatch.chdir(tmp_path)  # a relative home means another folder there than here
    relative = [process(environ={"AIRFLOW_HOME": "by_config"})]
    assert survey([str(tmp_path)], [URL], relative, proc, LISTENER).other_airflows == frozenset()


def test_an_airflow_in_another_pid_namespace_has_no_process_in_this_one(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.add(91, namespace="pid:[2]")
    proc.add(92, namespace="pid:[2]")
    proc.add(93)
    homes = {91: "/srv/away", 92: "/srv/both", 93: "/srv/both", 4711: "/srv/unread"}
    others = [
        process(identity=Identity(pid, 1), environ={"AIRFLOW_HOME": home}) for pid, home in homes.items()
    ]
    site = survey([HOME], [URL], others, proc, LISTENER)
    assert site.foreign_homes == {"/srv/both", "/srv/unread"}
    assert site.homes_elsewhere == {"/srv/away"}
    blind = survey([HOME], [URL], others, proc, 4712)  # its own cannot be read either
    assert blind.foreign_homes == set(homes.values())


def test_whose_environment_cannot_be_read_may_be_of_an_airflow_that_nobody_knows(tmp_path: Path) -> None:
    """Unless its ancestors have shown its home, or none is missing."""
    proc = FakeProc(tmp_path)
    of_a_home = process(unread={"environ": "no"})
    without = process(Label(dag_id="d", run_id="r"), unread={"environ": "why"})
    unlabelled = process(unread={"environ": "why"})
    unlabelled.label = None
    words = process(Label(dag_id="d", run_id="r"), unread={"cmdline": "no"})
    assert survey([HOME], [URL], [of_a_home, words], proc, LISTENER).unread is None
    for one in (without, unlabelled):
        assert survey([HOME], [URL], [of_a_home, words, one], proc, LISTENER).unread == "why"


def test_an_airflow_lives_here_if_a_service_of_it_is_in_the_listeners_namespace(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    ours, words = {"AIRFLOW_HOME": HOME}, ("python", "airflow", "scheduler")

    def lives_here() -> bool:
        watch = watch_of(proc)
        watch.look()
        return survey([HOME], [URL], watch.at_homes(), proc, LISTENER).lives_here

    proc.add(80, argv=words, environ=ours, namespace="pid:[2]")
    proc.add(81, argv=words, environ={"AIRFLOW_HOME": "/srv/b"})
    proc.add(82, argv=("sleep", "1"), environ=ours)
    assert not lives_here()
    silent = process(role=Role.SERVICE, environ={"AIRFLOW_CTX_DAG_ID": "d"})
    assert not survey([HOME], [URL], [silent], proc, LISTENER).lives_here
    proc.add(83, argv=words, environ=ours)
    assert lives_here()
    for pids in ([83], [LISTENER], [83, LISTENER]):  # what cannot be read proves nothing
        proc.refused = {(pid, "ns/pid"): errno.EACCES for pid in pids}
        assert not lives_here()
