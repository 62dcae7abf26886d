"""database_url.py: one form for all spellings, the password never shown, and where URLs come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2.extensions
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import make_url

from dagstop import errors
from dagstop.database.url import find_database_url, normalise, passwords, redact, server_of


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("postgresql://u:p@h:1/d", "postgresql://u:p@h:1/d"),
        ("postgres://u@h/d", "postgresql://u@h/d"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg://u:p%40x@h/d", "postgresql://u:p%40x@h/d"),
        ("postgresql://u:p@ss/w@h/d", "postgresql://u:p%40ss%2Fw@h/d"),
        ("postgresql://u:p@/d?host=/run/pg&port=6", "postgresql://u:p@/d?host=%2Frun%2Fpg&port=6"),
        ("postgresql://u:p@h/d?application_name=a@b", "postgresql://u:p@h/d?application_name=a%40b"),
        ("postgresql://[::1]:5/d", "postgresql://[::1]:5/d"),
        ("postgresql:///d", "postgresql:///d"),
        # several servers, in libpq's way and in SQLAlchemy's
        ("postgresql://u@h1:1,h2:2/d", "postgresql://u@h1:1,h2:2/d?target_session_attrs=read-write"),
        ("postgresql+psycopg2://u@/d?host=h1,h2&port=1,2", "postgresql://u@/d?host=h1%2Ch2&port=1%2C2&target_session_attrs=read-write"),
        ("postgresql+psycopg2://u:p@/d?host=h1:1&host=h2:2&target_session_attrs=read-write",
         "postgresql://u:p@/d?host=h1%2Ch2&port=1%2C2&target_session_attrs=read-write"),
        ("postgresql+psycopg2://u@/d?host=h1:1&host=h2", "postgresql://u@/d?host=h1%2Ch2&port=1%2C&target_session_attrs=read-write"),
        ("postgresql+psycopg2://u@/d?host=h1&host=h2", "postgresql://u@/d?host=h1%2Ch2&target_session_attrs=read-write"),
        ("postgresql+psycopg2://u@/d?host=h1&host=h2&port=6", "postgresql://u@/d?host=h1%2Ch2&port=6&target_session_attrs=read-write"),
        ("postgresql+psycopg2://u@/d?host=h1:1", "postgresql://u@/d?host=h1&port=1"),
        ("postgresql+psycopg2://u@/d?host=[::1]:1&host=h2:2", "postgresql://u@/d?host=%3A%3A1%2Ch2&port=1%2C2&target_session_attrs=read-write"),
        ("postgresql+psycopg2://u@/d?host=/run/pg:1&host=h2:2",
         "postgresql://u@/d?host=%2Frun%2Fpg%2Ch2&port=1%2C2&target_session_attrs=read-write"),
        ("postgresql://u@/d?host=::1", "postgresql://u@/d?host=%3A%3A1"),
    ],
)  # fmt: skip
def test_one_form(given_url: str, expected: str) -> None:
    assert normalise(given_url) == expected
    assert normalise(expected) == expected
    psycopg2.extensions.parse_dsn(expected)


@pytest.mark.parametrize("query", [
    "host=h1:1&host=h2:2", "host=h1:1&host=h2", "host=h1&host=h2", "host=h1:1", "host=h1,h2&port=1,2",
    "host=/run/pg&port=6", "host=::1",
])  # fmt: skip
def test_it_leads_where_sqlalchemy_goes(query: str) -> None:
    url = f"postgresql+psycopg2://u@/d?{query}&target_session_attrs=read-write"
    dialect: Any = PGDialect_psycopg2
    _, expected = dialect().create_connect_args(make_url(url))
    ours = psycopg2.extensions.parse_dsn(normalise(url))
    # it writes no port as one comma
    assert ours == {key: value for key, value in expected.items() if value.strip(",")} | {"dbname": "d"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://u:geheim@/d?host=h1:1&host=h2:2&port=3", "names ports twice"),
        ("postgresql://u:geheim@[::1/d", "IPv6"),
        ("postgresql://u:geheim@h/d?colour=red", "colour"),
    ],
)
def test_what_libpq_would_refuse_is_refused_in_one_line_without_the_password(url: str, why: str) -> None:
    with pytest.raises(errors.DatabaseUrlError, match=why) as caught:
        normalise(url)
    assert "geheim" not in str(caught.value) and "\n" not in str(caught.value)


@given(password=st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_any_password_arrives(password: str) -> None:
    try:
        url = normalise(f"postgresql+psycopg2://u:{quote(password, safe='')}@h/d")
    except UnicodeEncodeError:
        return  # a lone surrogate is not text that a URL can hold
    assert psycopg2.extensions.parse_dsn(url)["password"] == password


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "sqlite:////a.db", "mssql+pyodbc://x"])
def test_other_databases(url: str) -> None:
    with pytest.raises(errors.UnsupportedDatabaseError):
        normalise(url)


@pytest.mark.parametrize("url", ["", "nonsense", "host:5432/db"])
def test_no_url(url: str) -> None:
    with pytest.raises(errors.DatabaseUrlError, match="must look like"):
        normalise(url)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:geheim@h/d", "postgresql://u:ge@geheim@h/d", "postgresql://u:a/geheim?@geheim@h/d",
     "mysql://u:geheim@h/d", "geheim",
     "postgresql://h/d?password=geheim&sslpassword=geheim",
     "postgresql://h/d?password=geheim&application_name=a@b",
     "postgresql://h:5432/d?password=geheim&application_name=a@b",
     "postgresql+psycopg2://u:geheim@/d?host=h1:1&host=h2:2&application_name=a@b"],
)  # fmt: skip
def test_no_password_is_shown(url: str) -> None:
    assert "geheim" not in redact(url)
    assert any("geheim" in password for password in passwords(url)) or "://" not in url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", "h:5432"),
        ("postgresql://h:1,g/d", "h:1, g:5432"),
        ("postgresql://h,[::1]:2,g/d?port=9", "h:9, [::1]:9, g:9"),
        ("postgresql+psycopg2:///d?host=h:1&host=g:2&colour=red", "h:1, g:2"),
        ("postgresql:///d?host=/run/pg,g&port=1,2", "/run/pg/.s.PGSQL.1, g:2"),
        ("postgresql:///d?host=a,b&port=1,2,3", "the server in the URL"),
        ("postgresql://[::1]:5/d", "[::1]:5"),
        ("postgresql://%2Frun%2Fpg/d", "/run/pg/.s.PGSQL.5432"),
        ("postgresql:///d?host=/run/pg&port=6", "/run/pg/.s.PGSQL.6"),
        ("postgresql:///d", "the local unix socket, port 5432"),
    ],
)
def test_where_it_leads(url: str, expected: str) -> None:
    assert server_of(url) == expected


class TestFind:
    """The option, then dagstop's variable, then Airflow's configuration, newer section first."""

    def test_order(self, tmp_path: Path) -> None:
        (tmp_path / "airflow.cfg").write_text(
            "[core]\nsql_alchemy_conn = postgresql://core/a\n"
            "[database]\nsql_alchemy_conn = postgresql://u:p%%40w@$DB_HOST/cfg\n"
        )
        env = {
            "DAGSTOP_DATABASE_URL": "postgresql://own/a",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://two/a",
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql://one/a",
            "DB_HOST": "dbhost",
        }
        assert find_database_url("postgres://opt/a", env).source == "--database-url"
        for name, url in (
            ("DAGSTOP_DATABASE_URL", "postgresql://own/a"),
            ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://two/a"),
            ("AIRFLOW__CORE__SQL_ALCHEMY_CONN", "postgresql://one/a"),
        ):
            found = find_database_url(None, env, tmp_path)
            assert (found.source, found.url) == (name, url)
            del env[name]
        found = find_database_url(None, env, tmp_path)
        assert found.url == "postgresql://u:p%40w@dbhost/cfg"
        assert found.source == f"{tmp_path / 'airflow.cfg'}, [database] sql_alchemy_conn"
        assert find_database_url(None, {**env, "AIRFLOW_HOME": str(tmp_path)}) == found

    @pytest.mark.parametrize("suffix", ["CMD", "SECRET"])
    def test_from_a_command(self, tmp_path: Path, suffix: str) -> None:
        name = f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_{suffix}"
        with pytest.raises(errors.UrlFromCommandError, match=rf"{name}: .*pass --database-url"):
            find_database_url(None, {name: "x"}, tmp_path)
        (tmp_path / "airflow.cfg").write_text(f"[core]\nsql_alchemy_conn_{suffix.lower()} = x\n")
        with pytest.raises(errors.UrlFromCommandError, match=r"airflow.cfg, \[core\]"):
            find_database_url(None, {}, tmp_path)

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(errors.NoDatabaseUrlError, match=r"looked for .*airflow.cfg"):
            find_database_url(None, {}, tmp_path)
        with pytest.raises(errors.NoDatabaseUrlError, match="pass --database-url"):
            find_database_url(None, {})
        (tmp_path / "airflow.cfg").write_text("[core]\n")
        with pytest.raises(errors.NoDatabaseUrlError, match="names no sql_alchemy_conn"):
            find_database_url(None, {}, tmp_path)
        (tmp_path / "airflow.cfg").write_text("no section = 1\n")
        with pytest.raises(errors.NoDatabaseUrlError, match="cannot be read"):
            find_database_url(None, {}, tmp_path)

    def test_the_place_of_a_useless_url_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "airflow.cfg").write_text("[core]\nsql_alchemy_conn = sqlite:////a.db\n")
        with pytest.raises(errors.UnsupportedDatabaseError, match=r"airflow.cfg, \[core\].*sqlite"):
            find_database_url(None, {}, tmp_path)
