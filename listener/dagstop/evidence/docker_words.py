"""What a `docker run` or `docker create` asks an engine for, read from its words as the docker CLI does.

Pure. Where the words may mean something else (an option that this table does not have, another program
than docker), `sure` is False: the name and the cidfile are read all the same, and nothing is concluded from
the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

PROGRAMS = frozenset({"docker", "podman", "nerdctl"})


@dataclass(frozen=True, slots=True)
class Ask:
    """One container as a command line describes it."""

    name: str | None
    cidfile: str | None
    image: str = ""
    command: tuple[str, ...] = ()  # what replaces the image's own; empty: that
    entrypoint: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)  # what has a value in the words
    labels: Mapping[str, str] = field(default_factory=dict)
    remove: bool = False
    tty: bool = False
    stdin: bool = False
    attached: bool = False  # it stays as long as the container runs
    sure: bool = False


@dataclass(frozen=True, slots=True)
class ExecAsk:
    """What a `docker exec` runs, and where."""

    container: str  # id, the beginning of one, or name
    command: tuple[str, ...]
    attached: bool
    sure: bool


@dataclass(frozen=True, slots=True)
class ComposeAsk:
    """What the words of a compose say of its project, and what it is to do there."""

    project: str | None
    files: tuple[str, ...]
    directory: str | None
    command: str
    detached: bool  # it ends once all that it was asked for runs
    sure: bool


@dataclass(frozen=True, slots=True)
class Words:
    """The words of docker, podman or nerdctl: its own options, its command, and what follows that."""

    options: Mapping[str, str]
    command: str
    rest: tuple[str, ...]
    sure: bool


def is_client(argv: Sequence[str]) -> bool:
    return bool(argv) and _file_name(argv[0]) in PROGRAMS


def may_create(argv: Sequence[str]) -> bool:
    """True of a client, compose too."""
    return is_client(argv) or any(_file_name(word).startswith(_COMPOSES) for word in argv[:2])


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def read_words(argv: Sequence[str]) -> Words | None:
    """None if it is another program, or has no command."""
    if not is_client(argv):
        return None
    program = _file_name(argv[0])
    found, rest, sure = _options(argv[1:], _OF_DOCKER)
    last = dict(found)
    if not rest or _true(last, "--version") or _true(last, "--help"):
        return None
    command, *rest = rest
    if command == "container" and rest:
        command, *rest = rest
    return Words(last, command, tuple(rest), sure and program == "docker")


def read_ask(words: Words) -> Ask | None:
    """None if the command makes no container."""
    if words.command not in ("run", "create"):
        return None
    found, rest, sure = _options(words.rest, _OF_RUN if words.command == "run" else _OF_CREATE)
    last = dict(found)
    if _true(last, "--help"):
        return None
    environment = _pairs(found, "--env")
    labels = _pairs(found, "--label")
    broken = any("\ufffd" in word for word in words.rest)  # not UTF-8: the engine spells it in another way
    trust = "--disable-content-trust" in last and not _true(last, "--disable-content-trust")
    return Ask(
        name=last.get("--name") or None,
        cidfile=last.get("--cidfile") or None,
        image=rest[0] if rest else "",
        command=tuple(rest[1:]),
        entrypoint=last.get("--entrypoint"),
        environment=environment,
        labels=labels,
        remove=_true(last, "--rm"),
        tty=_true(last, "--tty"),
        stdin=_true(last, "--interactive"),
        attached=words.command == "run" and not _true(last, "--detach"),
        sure=words.sure and sure and bool(rest) and not broken and not trust,
    )


def read_compose(argv: Sequence[str]) -> ComposeAsk | None:
    """None if it is not a compose that creates containers: docker's plugin, docker-compose 1 or later."""
    programs = [_file_name(word) for word in argv[:2]]
    if programs[:1] == ["docker"]:
        words = read_words(argv)
        rest = list(words.rest) if words is not None and words.command == "compose" else []
        sure = words is not None and words.sure
    elif programs and programs[0].startswith(_COMPOSES):
        rest = list(argv[2:] if programs[1:] == ["compose"] else argv[1:])  # docker tells its plugin so
        sure = programs[0] == "docker-compose"
    elif programs[1:] and programs[1].startswith(_COMPOSES) and programs[0].startswith("python"):
        rest = list(argv[2:])
        sure = programs[1] == "docker-compose"
    else:
        return None
    if _CREATING.isdisjoint(rest):
        return None
    found, words_of_it, known = _options(rest, _OF_COMPOSE)
    last = dict(found)
    files = tuple(value for name, value in found if name == "--file")
    command, *further = words_of_it or [""]
    broken = any("\ufffd" in word for word in rest)  # not UTF-8: its folder may be another one
    return ComposeAsk(
        last.get("--project-name"),
        files,
        last.get("--project-directory") or last.get("--workdir") or None,
        command,
        not _DETACHING.isdisjoint(further),
        sure and known and not broken,
    )


def read_exec(words: Words) -> ExecAsk | None:
    """None if the command runs nothing in a container."""
    if words.command != "exec":
        return None
    found, rest, sure = _options(words.rest, _OF_EXEC)
    last = dict(found)
    if len(rest) < 2 or _true(last, "--help"):
        return None
    broken = any("\ufffd" in word for word in words.rest)
    return ExecAsk(rest[0], tuple(rest[1:]), not _true(last, "--detach"), words.sure and sure and not broken)


@dataclass(frozen=True, slots=True)
class _Table:
    """The options of one command: those without a value, those with one, and their letters."""

    switches: Collection[str]
    valued: Collection[str]
    letters: Mapping[str, str]


def _options(words: Sequence[str], table: _Table) -> tuple[list[tuple[str, str]], list[str], bool]:
    """Options up to the first plain word, what follows, and whether that is certain (spf13/pflag, without

    interspersed words): after the image come the container's own words, which may look like options.
    """
    found: list[tuple[str, str]] = []
    rest, sure = list(words), True
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            known = name in table.switches or name in table.valued
            # what older and other programs have more, and what takes no value there
            bare = name in table.switches or name in _OTHERS
            sure = sure and known
            if bare and not equals:
                value = "true"
            elif not equals:
                value = rest.pop(0) if rest else ""
            found.append((name, value))
        else:
            sure = _letters(word[1:], rest, table, found) and sure
    sure = sure and all(value in _BOOLEANS for name, value in found if name in table.switches)
    return found, rest, sure


def _letters(cluster: str, rest: list[str], table: _Table, found: list[tuple[str, str]]) -> bool:
    """-it, -itv /a:/b, -eNAME, -p80:80, -d=false; False if that is not certain."""
    name = ""
    while cluster:
        letter, cluster = cluster[0], cluster[1:]
        name = table.letters.get(letter, "")
        if len(cluster) > 1 and cluster[0] == "=":
            value, cluster = cluster[1:], ""
        elif name in table.switches:
            value = "true"
        elif cluster:
            value, cluster = cluster, ""
        else:
            value = rest.pop(0) if rest else ""
        found.append((name, value))
    return bool(name)  # one that is not known takes all that is left for its value


_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def _true(found: Mapping[str, str], name: str) -> bool:
    return _BOOLEANS.get(found.get(name, ""), False)


def _pairs(found: Sequence[tuple[str, str]], name: str) -> dict[str, str]:
    """NAME=VALUE; the last one counts. What has no value here has it from elsewhere, or has none."""
    pairs: dict[str, str] = {}
    for option, text in found:
        key, equals, value = text.partition("=")
        if option == name and equals:
            pairs[key] = value
        elif option == name:
            pairs.pop(key, None)
    return pairs


_OF_DOCKER = _Table(
    switches=frozenset({"--debug", "--help", "--tls", "--tlsverify", "--version"}),
    valued=frozenset(
        "--config --context --host --log-level --tlscacert --tlscert --tlskey".split(),
    ),
    letters={"c": "--context", "D": "--debug", "H": "--host", "l": "--log-level", "v": "--version"},
)
_CREATE_SWITCHES = frozenset(
    "--disable-content-trust --help --init --interactive --no-healthcheck --oom-kill-disable --privileged"
    " --publish-all --quiet --read-only --rm --tty --use-api-socket".split()
)
_CREATE_VALUED = frozenset(
    "--add-host --annotation --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop"
    " --cgroup-parent --cgroupns --cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota"
    " --cpu-rt-period --cpu-rt-runtime --cpu-shares --cpus --cpuset-cpus --cpuset-mems --device"
    " --device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps --device-write-iops"
    " --dns --dns-opt --dns-option --dns-search --domainname --entrypoint --env --env-file --expose --gpus"
    " --group-add --health-cmd --health-interval --health-retries --health-start-interval"
    " --health-start-period --health-timeout --hostname --io-maxbandwidth --io-maxiops --ip --ip6 --ipc"
    " --isolation --kernel-memory --label --label-file --link --link-local-ip --log-driver --log-opt"
    " --mac-address --memory --memory-reservation --memory-swap --memory-swappiness --mount --name --net"
    " --net-alias --network --network-alias --oom-score-adj --pid --pids-limit --platform --publish --pull"
    " --restart --runtime --security-opt --shm-size --stop-signal --stop-timeout --storage-opt --sysctl"
    " --tmpfs --ulimit --user --userns --uts --volume --volume-driver --volumes-from --workdir".split()
)
_LETTERS = {
    "a": "--attach",
    "c": "--cpu-shares",
    "d": "--detach",
    "e": "--env",
    "h": "--hostname",
    "i": "--interactive",
    "l": "--label",
    "m": "--memory",
    "P": "--publish-all",
    "p": "--publish",
    "q": "--quiet",
    "t": "--tty",
    "u": "--user",
    "v": "--volume",
    "w": "--workdir",
}
_OF_CREATE = _Table(_CREATE_SWITCHES, _CREATE_VALUED, {k: v for k, v in _LETTERS.items() if k != "d"})
_OF_RUN = _Table(_CREATE_SWITCHES | {"--detach", "--sig-proxy"}, _CREATE_VALUED | {"--detach-keys"}, _LETTERS)
_CREATING = frozenset({"up", "run", "create", "scale", "watch"})
_COMPOSES = ("docker-compose", "podman-compose")
"""How its programs' names begin; docker-compose-1.29 is one, too."""
_DETACHING = frozenset({"-d", "--detach", "--wait", "--no-start"})
_OF_COMPOSE = _Table(
    switches=frozenset(
        "--all-resources --compatibility --dry-run --help --insecure-registry --no-ansi --skip-hostname-check"
        " --tls --tlsverify --verbose --version".split()
    ),
    valued=frozenset(
        "--ansi --context --env-file --file --host --log-level --parallel --profile --progress"
        " --project-directory --project-name --tlscacert --tlscert --tlskey --workdir".split()
    ),
    letters={"c": "--context", "f": "--file", "H": "--host", "p": "--project-name", "v": "--version"},
)
_OF_EXEC = _Table(
    switches=frozenset("--detach --help --interactive --privileged --tty".split()),
    valued=frozenset("--detach-keys --env --env-file --user --workdir".split()),
    letters={name: _LETTERS[name] for name in "deituw"},
)
_OTHERS = frozenset(
    "--replace --rmi --env-host --no-hosts --no-hostname --read-only-tmpfs --http-proxy --remote".split()
)
"""Options of podman and nerdctl without a value."""
