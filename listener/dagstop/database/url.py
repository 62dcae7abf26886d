"""Database URLs: finding Airflow's, bringing it into one form, and showing it without its password."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

import psycopg2
from psycopg2.extensions import parse_dsn

from dagstop.errors import (
    DatabaseUrlError,
    NoDatabaseUrlError,
    UnsupportedDatabaseError,
    UrlFromCommandError,
)

DEFAULT_PORT = "5432"
HIDDEN = "***"

_POSTGRES = ("postgresql", "postgres")
_SECTIONS = ("database", "core")  # Airflow 2.3 and later, and before
_KEY = "sql_alchemy_conn"
_ELSEWHERE = ("_cmd", "_secret")
# An unescaped @ or / in the password is a mistake that SQLAlchemy forgives, so it is forgiven here.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*)://"
    r"(?:(?P<user>[^:/@?]*)(?::(?P<password>.*?))?@)?"
    r"(?P<hosts>[^/?@]*)"
    r"(?:/(?P<database>[^?@]*))?"
    r"(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_LOGIN = re.compile(r"(?P<user>[^:/?@]*)(?::(?P<secret>.*))?@", re.DOTALL)  # up to the last @
_HOST_AND_PORT = re.compile(r"(?:\[([^\]]*)\]|([^/:,\[][^:,]*|/[^:,]*)):(\d+)")  # of one server
_PLACE = {"host", "hostaddr", "port", "dbname", "user"}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True)
class FoundUrl:
    """A database URL in libpq's form, and the place where it was found, as an operator would name it."""

    url: str
    source: str


def find_database_url(
    option: str | None, env: Mapping[str, str], airflow_home: str | Path | None = None
) -> FoundUrl:
    """The metadata database: the option, else dagstop's variable, else Airflow's own configuration.

    Without `airflow_home` it is AIRFLOW_HOME, else `~/airflow`, as for Airflow. Raises a
    DatabaseUrlError that names the place if the URL found there is of no use, NoDatabaseUrlError
    if there is none.
    """
    if option:
        return _found(option, "--database-url")
    if env.get("DAGSTOP_DATABASE_URL"):
        return _found(env["DAGSTOP_DATABASE_URL"], "DAGSTOP_DATABASE_URL")
    for section in _SECTIONS:
        name = f"AIRFLOW__{section}__{_KEY}".upper()
        if env.get(name):
            return _found(_expand(env[name], env), name)
        if (elsewhere := _elsewhere(env, section)) is not None:
            raise _from_elsewhere(elsewhere)
    config = _config_path(env, airflow_home)
    if config is None or not config.is_file():
        looked = "" if config is None else f" (looked for {config} too)"
        raise NoDatabaseUrlError(f"{NoDatabaseUrlError()}{looked}")
    return _from_config(config, env)


def comes_from_elsewhere(env: Mapping[str, str]) -> bool:
    """True if variables name a command or a secret that has the URL: then airflow.cfg does not count."""
    return any(_elsewhere(env, section) is not None for section in _SECTIONS)


def _elsewhere(env: Mapping[str, str], section: str) -> str | None:
    names = (f"AIRFLOW__{section}__{_KEY}{suffix}".upper() for suffix in _ELSEWHERE)
    return next((name for name in names if env.get(name)), None)


def normalise(url: str) -> str:
    """The URL as libpq takes it: `postgresql://`, whatever driver it named, everything escaped.

    Several servers may be named in libpq's way (`h1:5432,h2:5432`, `host=h1,h2&port=5432,5433`) or in
    SQLAlchemy's (`host=h1:5432&host=h2:5432`); without target_session_attrs it is the one that can be
    written to. Raises UnsupportedDatabaseError for another database than Postgres, DatabaseUrlError for
    what is not a URL, or one that libpq refuses.
    """
    text = _for_libpq(_parts(url))
    try:
        found = parse_dsn(text)
    except psycopg2.ProgrammingError as error:
        # only the reason: the rest repeats the URL
        reason = str(error).strip().partition(': "postgresql://')[0]
        for password in passwords(url):
            reason = reason.replace(password, HIDDEN)
        raise DatabaseUrlError(f"The database URL cannot be read: {reason}") from None
    if "," in found.get("host", "") and "target_session_attrs" not in found:
        text += f"{'&' if '?' in text else '?'}target_session_attrs=read-write"
    return text


def redact(url: str) -> str:
    """The URL for logs and errors: no password in it, wherever it stood."""
    scheme, mark, rest = url.strip().partition("://")
    if not mark:
        return HIDDEN
    login = _LOGIN.match(rest)
    who = "" if login is None else f"{login['user']}{':' + HIDDEN if login['secret'] else ''}@"
    where, mark, query = rest[login.end() if login else 0 :].partition("?")
    shown = [
        f"{key}={HIDDEN if 'pass' in key else value}"
        for key, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{scheme}://{who}{where}{mark}{'&'.join(shown)}"


def passwords(url: str) -> tuple[str, ...]:
    """Every spelling of the password in a URL, longest first: what must never be printed."""
    rest = url.strip().partition("://")[2]
    login, match = _LOGIN.match(rest), _URL.fullmatch(url.strip())
    # of a URL with a stray @ both readings are hidden
    raw = [login["secret"] or ""] if login else []
    raw += [match["password"] or ""] if match else []
    raw += [value for key, value in parse_qsl(rest.partition("?")[2]) if "pass" in key]
    spelled = {form for one in raw for form in (one, unquote(one), quote(unquote(one), safe=""))}
    return tuple(sorted(spelled - {""}, key=len, reverse=True))


@dataclass(frozen=True)
class Place:
    """Where a URL leads: the servers that it names, in its order, and the database."""

    servers: tuple[tuple[str, str], ...]  # host (a socket's folder, "" for the default one) and port
    database: str


def place_of(url: str) -> Place:
    """Raises DatabaseUrlError."""
    parts = _parts(url)
    # the rest of the query is not read: a driver's own parameter must not hide the place
    query = [(key, value) for key, value in _query(parts["query"]) if key in _PLACE]
    try:
        found = parse_dsn(_for_libpq({**parts, "query": urlencode(query)}))
    except psycopg2.ProgrammingError as error:
        raise DatabaseUrlError() from error
    hosts = (found.get("host") or found.get("hostaddr") or "").split(",")
    ports = (found.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise DatabaseUrlError(f"The database URL names {len(hosts)} hosts and {len(ports)} ports")
    servers = tuple((host, port or DEFAULT_PORT) for host, port in zip(hosts, ports, strict=True))
    return Place(servers, found.get("dbname") or found.get("user") or "")


def server_of(url: str) -> str:
    """The servers of a URL for people: `host:port`, or the path of a unix socket."""
    try:
        return ", ".join(_shown(host, port) for host, port in place_of(url).servers)
    except DatabaseUrlError:
        return "the server in the URL"


def _shown(host: str, port: str) -> str:
    if not host:
        return f"the local unix socket, port {port}"
    if host.startswith(("/", "@")):
        return f"{host}/.s.PGSQL.{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _for_libpq(parts: Mapping[str, str | None]) -> str:
    """The text of a URL out of its parts."""
    user = "" if parts["user"] is None else quote(unquote(parts["user"]), safe="")
    if parts["password"] is not None:
        user += ":" + quote(unquote(parts["password"]), safe="")
    text = f"postgresql://{user + '@' if user else ''}{parts['hosts']}"
    text += f"/{quote(unquote(parts['database'] or ''), safe='')}"
    query = _query(parts["query"])
    return text + (f"?{urlencode(query, quote_via=quote)}" if query else "")


def _query(text: str | None) -> list[tuple[str, str]]:
    """The parameters of a query as libpq knows them."""
    query = parse_qsl(text or "", keep_blank_values=True)
    # asyncpg calls it ssl; libpq knows sslmode only
    query = [("sslmode" if key == "ssl" else key, value) for key, value in query]
    hosts = [value for key, value in query if key == "host"]
    pairs = [_HOST_AND_PORT.fullmatch(host) for host in hosts]
    if len(hosts) < 2 and not (pairs and pairs[0]):
        return query
    # SQLAlchemy's way to name servers: one parameter each, with its port; to libpq the last one would count
    names = [host if pair is None else pair[1] or pair[2] for host, pair in zip(hosts, pairs, strict=True)]
    ports = ["" if pair is None else pair[3] for pair in pairs]
    rest = [(key, value) for key, value in query if key != "host"]
    if any(ports):
        if any(key == "port" for key, _ in rest):
            raise DatabaseUrlError("The database URL names ports twice: after the hosts, and as port=")
        rest.insert(0, ("port", ",".join(ports)))
    return [("host", ",".join(names)), *rest]


def _parts(url: str) -> dict[str, str]:
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise DatabaseUrlError()
    if match["scheme"].lower().partition("+")[0] not in _POSTGRES:
        raise UnsupportedDatabaseError(
            f"The URL names a {match['scheme']} database, but dagstop needs Airflow's metadata database "
            "to be PostgreSQL"
        )
    return match.groupdict()


def _found(url: str, source: str) -> FoundUrl:
    try:
        return FoundUrl(normalise(url), source)
    except DatabaseUrlError as error:
        raise type(error)(f"{source}: {error}") from error


def _from_elsewhere(place: str) -> UrlFromCommandError:
    return UrlFromCommandError(f"{place}: {UrlFromCommandError()}")


def _config_path(env: Mapping[str, str], airflow_home: str | Path | None) -> Path | None:
    if airflow_home is None and env.get("AIRFLOW_CONFIG"):
        return Path(env["AIRFLOW_CONFIG"])
    home = airflow_home or env.get("AIRFLOW_HOME")
    if home is None and env.get("HOME"):
        home = Path(env["HOME"], "airflow")
    return None if home is None else Path(home, "airflow.cfg")


def _from_config(path: Path, env: Mapping[str, str]) -> FoundUrl:
    try:
        found = in_config(path.read_text(encoding="utf-8"), env, str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = str(error).splitlines()[0]
        raise NoDatabaseUrlError(f"{path} cannot be read ({reason}): pass --database-url") from error
    if found is None:
        raise NoDatabaseUrlError(f"{path} names no {_KEY}: pass --database-url")
    return found


def in_config(text: str, env: Mapping[str, str], path: str) -> FoundUrl | None:
    """What the text of an airflow.cfg names; path: what errors and the answer call it.

    Raises a DatabaseUrlError if that is of no use, configparser.Error if the text cannot be parsed.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    for section in _SECTIONS:
        for suffix in _ELSEWHERE:
            if parser.get(section, _KEY + suffix, fallback=""):
                raise _from_elsewhere(f"{path}, [{section}] {_KEY}{suffix}")
        value = parser.get(section, _KEY, fallback="").replace("%%", "%")  # Airflow interpolates
        if value:
            return _found(_expand(value, env), f"{path}, [{section}] {_KEY}")
    return None


def _expand(value: str, env: Mapping[str, str]) -> str:
    """Environment variables in a value, as Airflow expands them."""
    return _VARIABLE.sub(lambda found: env.get(found[1] or found[2], found[0]), value)
