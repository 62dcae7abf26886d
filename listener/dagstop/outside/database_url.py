"""Database URLs: finding Airflow's, bringing it into one form, and showing it without its password."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

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
        for suffix in _ELSEWHERE:
            if env.get(name + suffix.upper()):
                raise _from_elsewhere(name + suffix.upper())
    config = _config_path(env, airflow_home)
    if config is None or not config.is_file():
        looked = "" if config is None else f" (looked for {config} too)"
        raise NoDatabaseUrlError(f"{NoDatabaseUrlError()}{looked}")
    return _from_config(config, env)


def normalise(url: str) -> str:
    """The URL as libpq takes it: `postgresql://`, whatever driver it named, everything escaped.

    Raises UnsupportedDatabaseError for another database than Postgres, DatabaseUrlError for no URL at all.
    """
    parts = _parts(url)
    user = "" if parts["user"] is None else quote(unquote(parts["user"]), safe="")
    if parts["password"] is not None:
        user += ":" + quote(unquote(parts["password"]), safe="")
    query = parse_qsl(parts["query"] or "", keep_blank_values=True)
    # asyncpg calls it ssl; libpq knows sslmode only
    query = [("sslmode" if key == "ssl" else key, value) for key, value in query]
    text = f"postgresql://{user + '@' if user else ''}{parts['hosts']}"
    text += f"/{quote(unquote(parts['database'] or ''), safe='')}"
    return text + (f"?{urlencode(query, quote_via=quote)}" if query else "")


def redact(url: str) -> str:
    """The URL for logs and errors: no password in it, wherever it stood."""
    scheme, mark, rest = url.strip().partition("://")
    if not mark:
        return HIDDEN
    # up to the last @, whatever a password with / or ? in it may make of the rest
    userinfo, at, rest = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    rest, mark, query = rest.partition("?")
    shown = [
        f"{key}={HIDDEN if 'pass' in key else value}"
        for key, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{scheme}://{user}{f':{HIDDEN}' if colon else ''}{at}{rest}{mark}{'&'.join(shown)}"


def passwords(url: str) -> tuple[str, ...]:
    """Every spelling of the password in a URL, longest first: what must never be printed."""
    rest = url.strip().partition("://")[2]
    raw = [rest.rpartition("@")[0].partition(":")[2]]
    raw += [value for key, value in parse_qsl(rest.partition("?")[2]) if "pass" in key]
    spelled = {form for one in raw for form in (one, unquote(one), quote(unquote(one), safe=""))}
    return tuple(sorted(spelled - {""}, key=len, reverse=True))


def server_of(url: str) -> str:
    """Where a URL leads: `host:port`, or the path of a unix socket."""
    parts = _parts(url)
    query = dict(parse_qsl(parts["query"] or ""))
    port = query.get("port", DEFAULT_PORT)
    hosts = query.get("host") or unquote(parts["hosts"])
    if not hosts:
        return f"the local unix socket, port {port}"
    named = []
    for host in hosts.split(","):
        if host.startswith("/"):
            path, _, own_port = host.partition(":")
            named.append(f"{path}/.s.PGSQL.{own_port or port}")
        else:
            named.append(host if re.search(r":\d+$", host) else f"{host}:{port}")
    return ", ".join(named)


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
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = str(error).splitlines()[0]
        raise NoDatabaseUrlError(f"{path} cannot be read ({reason}): pass --database-url") from error
    for section in _SECTIONS:
        for suffix in _ELSEWHERE:
            if parser.get(section, _KEY + suffix, fallback=""):
                raise _from_elsewhere(f"{path}, [{section}] {_KEY}{suffix}")
        value = parser.get(section, _KEY, fallback="").replace("%%", "%")  # Airflow interpolates
        if value:
            return _found(_expand(value, env), f"{path}, [{section}] {_KEY}")
    raise NoDatabaseUrlError(f"{path} names no {_KEY}: pass --database-url")


def _expand(value: str, env: Mapping[str, str]) -> str:
    """Environment variables in a value, as Airflow expands them."""
    return _VARIABLE.sub(lambda found: env.get(found[1] or found[2], found[0]), value)
