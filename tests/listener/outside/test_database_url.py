"""database_url.py: one form for all spellings, the password never shown, and where URLs come from."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import psycopg2.extensions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagstop import errors
from dagstop.outside.database_url import find_database_url, normalise, redact, server_of


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
    ],
)  # fmt: skip
def test_one_form(given_url: str, expected: str) -> None:
    assert normalise(given_url) == expected
    assert normalise(expected) == expected
    psycopg2.extensions.parse_dsn(expected)


@given(password=st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_any_password_arrives(password: str) -> None:
    try:
        url = normalise(f"postgresql+psycopg2://u:{quote(password, safe='')}@h/d")
    except UnicodeEncodeError:
        return  # a lone surrogate is no text that a URL can hold
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
     "postgresql://h/d?password=geheim&sslpassword=geheim"],
)  # fmt: skip
def test_no_password_is_shown(url: str) -> None:
    assert "geheim" not in redact(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", "h:5432"),
        ("postgresql://h:1,g/d", "h:1, g:5432"),
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
