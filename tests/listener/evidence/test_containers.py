"""Whose a container is: by its tags, or by the docker client that a task ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop.evidence.containers import Client, judge_container, read_client, watches
from dagstop.evidence.docker_words import Ask
from dagstop.evidence.match import ELSEWHERE
from dagstop.host.containers import Container
from dagstop.model import Decision, Identity, Label, Process, Whose
from tests.support.fake_proc import HOME, UUID, at, order, process, row, site

TAGS = {"AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_DAG_RUN_ID": "r", "AIRFLOW_CTX_TASK_ID": "t",
        "AIRFLOW_CTX_TRY_NUMBER": "1", "AIRFLOW_CTX_MAP_INDEX": "-1",
        "DAGSTOP_AIRFLOW_HOME": HOME}  # fmt: skip


UNTAGGED = {name: value for name, value in TAGS.items() if not name.startswith("DAGSTOP_")}


def container(tags: Mapping[str, str]) -> Container:
    return Container("c" * 64, "name", "image", 700, at(-10), False, "no", tags)


def client(argv: Sequence[str], **more: Any) -> Client | None:
    return read_client(process(argv=tuple(argv), **more))


def verdict(
    tags: Mapping[str, str], through: Process | None = None, *, foreign: bool = False, **more: Any
) -> Decision:
    # in another pid namespace, where it has no process that could be taken for ours, but containers
    here = site(homes_elsewhere=frozenset({"/srv/b"}) if foreign else frozenset())
    by = Client("name", None, through) if through is not None else None
    return judge_container(order(**more), container(tags), by, at(-10), here).decision


def case(*arguments: Any, **more: Any) -> Callable[[], Decision]:
    """Asked for in the test, not while the tests are collected."""
    return partial(verdict, *arguments, **more)


CASES: list[tuple[str, Callable[[], Decision], Decision]] = [
    ("the run's", case(TAGS), Decision.KILL),
    ("its labels lack the home", case({**TAGS, "DAGSTOP_AIRFLOW_HOME": ""}), Decision.KILL),
    ("no home, two Airflows", case({**TAGS, "DAGSTOP_AIRFLOW_HOME": ""}, foreign=True), Decision.SPARE),
    ("no home, two Airflows, its runner was pid 1 of a pod",
     case({**TAGS, "DAGSTOP_AIRFLOW_HOME": ""}, foreign=True, targets=(row(pid=1),)), Decision.SPARE),
    ("docker run -e AIRFLOW_HOME, two Airflows", case({**UNTAGGED, "AIRFLOW_HOME": HOME}, foreign=True),
     Decision.KILL),
    ("its image's own home", case({**UNTAGGED, "AIRFLOW_HOME": "/opt/other"}), Decision.KILL),
    ("its image's own home, two Airflows",
     case({**UNTAGGED, "AIRFLOW_HOME": "/opt/other"}, foreign=True), Decision.SPARE),
    ("another Airflow's", case({**TAGS, "DAGSTOP_AIRFLOW_HOME": "/srv/b"}), Decision.SPARE),
    ("another run's", case({**TAGS, "AIRFLOW_CTX_DAG_RUN_ID": "s"}), Decision.FOREIGN),
    ("nobody's", case({"AIRFLOW_TMP_DIR": "/tmp/airflow"}), Decision.FOREIGN),
    ("of a task that reports itself", case(TAGS, targets=(row(state="failed"),)), Decision.KILL),
    ("through a client of the run", case({}, process()), Decision.KILL),
    ("through a client of another run", case({}, process(Label(dag_id="d", run_id="s"))),
     Decision.FOREIGN),
    ("the run's tags, a client of another run",
     case(TAGS, process(Label(dag_id="d", run_id="s", task_id="t"))), Decision.SPARE),
    ("through a client of the run, and asks to be spared", case({"DAGSTOP_SPARE": "1"}, process()),
     Decision.SPARE),
    ("through a client whose ancestor asked to be spared", case({}, process(kin_spared=True)), Decision.SPARE),
    ("through a stranger's client", case({}, process(trusted=False)), Decision.SPARE),
    ("through a contradicted client", case({}, process(contrary="because")), Decision.SPARE),
    ("a client of the run, another run's tags", case({**TAGS, "AIRFLOW_CTX_DAG_RUN_ID": "s"}, process()),
     Decision.SPARE),
    ("a client that shows no home, tags that do, two Airflows",
     case(TAGS, process(Label(dag_id="d", run_id="r", task_id="t")), foreign=True), Decision.KILL),
    ("neither shows a home, two Airflows",
     case({}, process(Label(dag_id="d", run_id="r", task_id="t")), foreign=True), Decision.SPARE),
    ("a client that shows no home, another Airflow's tags",
     case({**TAGS, "DAGSTOP_AIRFLOW_HOME": "/srv/b"}, process(Label(dag_id="d", run_id="r", task_id="t"))),
     Decision.SPARE),
    ("through a 3.x client by its uuid",
     case({}, process(Label(ti_id=UUID)), targets=(row(ti_id=UUID),)), Decision.KILL),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_whose_a_container_is(seen: Callable[[], Decision], wanted: Decision) -> None:
    assert seen() is wanted


COMMANDS: list[tuple[str, str | None, str | None]] = [
    ("docker run --name x image", "x", None),
    ("/usr/bin/docker run --name=x image", "x", None),
    ("docker container run --rm -it --name x image", "x", None),
    ("docker run --cidfile /tmp/cid image", None, "/tmp/cid"),
    (
        "docker run -d --rm --init -e A=B -v /a:/b -p 80:80 --network none --name x --cidfile=c image sh",
        "x",
        "c",
    ),
    ("docker run -itv /a:/b -eNAME -p80:80 -w/x -m512m --name x image", "x", None),
    ("podman run --replace --name x image", "x", None),
    ("docker -D --log-level debug run --name x image", "x", None),
    # after the image come the container's own arguments
    ("docker run image --name x", None, None),
    ("docker run --rm image sh -c y --name x --cidfile c", None, None),
    ("docker run -eNAME image --name x", None, None),
    ("docker run -it image --name x", None, None),
    ("docker run --name y image --name x", "y", None),
    ("docker run -e --name image", None, None),  # the value of -e
    ("docker run -- --name x", None, None),
    ("docker exec web run --name x", None, None),
    ("docker compose run --name x web", None, None),
    ("docker ps", None, None),
    ("docker", None, None),
    ("sleep run --name x", None, None),
    ("docker run --name", None, None),
    ("docker run --name= image", None, None),
]


@pytest.mark.parametrize(("command", "name", "cidfile"), COMMANDS)
def test_what_a_docker_command_names(command: str, name: str | None, cidfile: str | None) -> None:
    found = client(command.split())
    assert ((found.name, found.cidfile) if found else (None, None)) == (name, cidfile)
    assert (found is None) == (" run" not in command or command.startswith("sleep"))


@pytest.mark.parametrize(
    ("command", "environ", "engine"),
    [
        ("docker run --name x i", {}, None),
        ("docker -H tcp://far:2375 run --name x i", {}, "tcp://far:2375"),
        ("docker --host=unix:///run/b.sock run --name x i", {}, "unix:///run/b.sock"),
        ("docker run --name x i", {"DOCKER_HOST": "tcp://far:2375"}, "tcp://far:2375"),
        ("docker --context far run --name x i", {}, "another context"),
        ("docker -c far run --name x i", {}, "another context"),
    ],
)
def test_which_engine_a_docker_command_talks_to(
    command: str, environ: dict[str, str], engine: str | None
) -> None:
    found = client(command.split(), environ=environ)
    assert found is not None and found.engine == engine


@given(
    st.lists(
        st.sampled_from(["run", "--name", "-e", "-it", "--", "-", "x", "--name=y"]) | st.text(max_size=5)
    )
)
def test_no_command_breaks_it(words: list[str]) -> None:
    found = client(["docker", *words])
    if found is not None and "--name" not in words and found.name is not None:
        assert f"--name={found.name}" in words


def test_a_client_that_nothing_labels_leaves_it_to_the_tags() -> None:
    nobodys = process()
    nobodys.label = None
    assert verdict(TAGS, nobodys) is Decision.KILL
    assert verdict({}, nobodys) is Decision.FOREIGN


@pytest.mark.parametrize(("contrary", "why"), [("because", "because"), (None, ELSEWHERE)])
def test_a_client_in_a_container_is_in_doubt(contrary: str | None, why: str) -> None:
    by = Client("name", None, process(contrary=contrary, place=Identity(400, 50)))
    assert judge_container(order(), container(TAGS), by, at(-10), site()).reason == why


def test_a_verdict_has_the_label_by_which_it_was_judged() -> None:
    seen = container({**TAGS, "DAGSTOP_TI_ID": UUID, "DAGSTOP_JOB_ID": "7"})
    judged = judge_container(order(targets=(row(ti_id=UUID),)), seen, None, at(-10), site())
    assert judged.label is not None
    assert (judged.label.task_id, judged.label.ti_id, judged.label.job_id) == ("t", UUID, 7)
    assert judged.evidence == ("container's AIRFLOW_CTX_* tags",)
    through = judge_container(order(), container({}), Client("name", None, process()), at(-10), site())
    assert through.evidence == ("docker client 600", "environment")


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("docker wait a b", ("a", "b")),
        ("docker logs a", ("a",)),
        ("docker logs -n 5 a", ("a",)),
        ("docker logs --tail=5 --since 1m a", ("a",)),
        ("docker logs -n", ()),
        *(
            (f"docker logs {word} a", ("a",))
            for word in "-f --follow -t --timestamps --details -ft -tf".split()
        ),
        *(
            (f"docker stats {word} a", ("a",))
            for word in "-a --all --no-stream --no-trunc --no-reset".split()
        ),
        ("docker run --name a image", ()),
        ("sleep 1", ()),
    ],
)
def test_which_containers_a_client_only_watches(line: str, seen: tuple[str, ...]) -> None:
    assert watches(process(argv=tuple(line.split()))) == seen


@pytest.mark.parametrize(
    ("line", "one"),
    [
        ("docker run image", True),
        ("docker create image", True),
        ("docker exec c sh", False),
        ("docker compose up", False),
    ],
)
def test_which_clients_make_one_container(line: str, one: bool) -> None:
    found = client(line.split())
    assert found is not None and found.starts_one is one


@pytest.mark.parametrize("words", ["docker run image", "docker compose up"])
@pytest.mark.parametrize(("says", "engine"), [("", None), ("tcp://far", "tcp://far")])
def test_a_docker_host_that_is_empty_names_no_engine(words: str, says: str, engine: str | None) -> None:
    found = client(words.split(), environ={"DOCKER_HOST": says})
    assert found is not None and found.engine == engine


def test_hands_off_says_nothing_of_what_is_not_the_runs() -> None:
    assert verdict(TAGS, hands_off="observe only") is Decision.SPARE
    assert verdict({**TAGS, "AIRFLOW_CTX_DAG_RUN_ID": "s"}, hands_off="observe only") is Decision.FOREIGN
    assert verdict({}, hands_off="observe only") is Decision.FOREIGN


def test_a_strangers_client_is_named_by_its_user() -> None:
    through = Client("name", None, process(trusted=False, uid=4711))
    judged = judge_container(order(), container({}), through, at(-10), site())
    assert judged.reason == "it runs as uid 4711, which runs no Airflow of ours"


def test_what_is_spared_as_finished_stays_so_though_it_may_be_another_airflows() -> None:
    """Of a job that the database does not have: its own words say whose it is."""
    done = order(finished_spared=True, targets=(), present=(row(state="success"),))
    seen = container({**TAGS, "DAGSTOP_JOB_ID": "20", "DAGSTOP_HOSTNAME": "worker"})
    judged = judge_container(done, seen, None, at(-10), site())
    assert (judged.decision, judged.whose) == (Decision.SPARE, Whose.FINISHED)
    silent = container(
        {**TAGS, "DAGSTOP_JOB_ID": "20", "DAGSTOP_HOSTNAME": "elsewhere", "DAGSTOP_SPARE": "1"}
    )
    judged = judge_container(order(), silent, None, at(-10), site())
    assert (judged.decision, judged.whose) == (Decision.SPARE, Whose.ANOTHER)
    assert judged.reason == "it asks to be spared: DAGSTOP_SPARE=1"


@pytest.mark.parametrize(
    ("more", "sure"),
    [
        ({}, True),
        ({"environ": {"DOCKER_CONTENT_TRUST": "0"}}, True),
        ({"environ": {"DOCKER_CONTENT_TRUST": "False"}}, True),
        ({"environ": {"DOCKER_CONTENT_TRUST": "F"}}, True),
        ({"environ": {"DOCKER_CONTENT_TRUST": ""}}, True),
        ({"environ": {"DOCKER_CONTENT_TRUST": "1"}}, False),  # the engine is asked for another image
        ({"unread": {"environ": "why"}}, False),
        ({"unread": {"cmdline": "why"}}, True),
    ],
)
def test_when_it_is_certain_what_a_client_asks_for(more: dict[str, Any], sure: bool) -> None:
    found = client("docker run -d image".split(), **more)
    assert found is not None and found.ask is not None and found.ask.sure is sure


@pytest.mark.parametrize("more", ["", " --option-of-a-later-release"])
def test_who_passes_on_what_another_host_asks_for_says_nothing_of_it_for_certain(more: str) -> None:
    """Neither what it is, nor that its end is the container's."""
    found = client(f"docker system dial-stdio{more}".split())
    nothing = Ask(None, None, remove=False, tty=False, stdin=False, attached=False, sure=False)
    assert found is not None and (found.name, found.cidfile, found.ask) == (None, None, nothing)
