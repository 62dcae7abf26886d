"""The printed plugin: where its links lead, and that nothing in it fails Airflow."""

from __future__ import annotations

import datetime as dt
import logging
import sys
import types
from typing import Any

import pytest

from dagstop.commands.page import page
from tests.plugin.loading import DEFAULT, load

DATE = dt.datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=dt.timezone.utc)
OPERATOR = types.SimpleNamespace(dag_id="dag")
KEY = types.SimpleNamespace(dag_id="dag", run_id="manual__2020-01-02T03:04:05+00:00")
RUN = "#dag_id=dag&run_id=manual__2020-01-02T03%3A04%3A05%2B00%3A00"


@pytest.fixture(autouse=True)
def no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTOP_PAGE_URL", raising=False)


def link(*arguments: Any, **named: Any) -> str:
    (found,) = load().DagstopPlugin.global_operator_extra_links
    url: str = found.get_link(*arguments, **named)
    return url


def test_each_release_calls_it_in_its_own_way() -> None:
    assert link(OPERATOR, ti_key=KEY) == f"{DEFAULT}/{RUN}"  # 2.3 and later
    by_date = f"{DEFAULT}/#dag_id=dag&date=2020-01-02T03%3A04%3A05.678901%2B00%3A00"
    assert link(OPERATOR, DATE) == by_date  # 1.10 to 2.2


def test_the_default_is_where_the_page_is_by_default() -> None:
    (http,) = (option.default for option in page.params if option.name == "http")
    assert load().DEFAULT_URL == DEFAULT == f"http://localhost:{http}"


def test_the_address_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTOP_PAGE_URL", " https://stops.example.org/dagstop/ ")
    assert link(OPERATOR, ti_key=KEY) == f"https://stops.example.org/dagstop/{RUN}"
    (item,) = load().DagstopPlugin.appbuilder_menu_items
    assert item["href"] == "https://stops.example.org/dagstop"


def test_an_address_that_is_none_is_said_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DAGSTOP_PAGE_URL", "javascript:alert(1)")
    assert link(OPERATOR, ti_key=KEY) == f"{DEFAULT}/{RUN}"
    assert "begin it with http:// or https://" in caplog.text


def test_names_stay_names() -> None:
    hostile = types.SimpleNamespace(dag_id="a/b&c#\u00e9", run_id='"><script>')
    assert link(None, ti_key=hostile) == (f"{DEFAULT}/#dag_id=a%2Fb%26c%23%C3%A9&run_id=%22%3E%3Cscript%3E")


@pytest.mark.parametrize(
    "wrong", [{}, {"dttm": "no date"}, {"ti_key": object()}], ids=["nothing", "no date", "no key"]
)
def test_what_it_does_not_understand_leads_to_the_page(
    wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert link(OPERATOR, **wrong) == DEFAULT
    assert [r.levelno for r in caplog.records] == [logging.WARNING] and "no link to the run" in caplog.text


@pytest.mark.parametrize(
    ("has", "entries"),
    [((), {"appbuilder_menu_items", "menu_links"}), (("fastapi_apps",), {"external_views"})],
    ids=["1.10, 2.x", "3.x"],
)
def test_a_release_is_given_only_the_menu_that_it_can_take(
    has: tuple[str, ...], entries: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server of Airflow 3 ends at a plugin with appbuilder_menu_items."""
    manager = types.ModuleType("airflow.plugins_manager")
    vars(manager)["AirflowPlugin"] = type("AirflowPlugin", (), {name: [] for name in has})
    monkeypatch.setitem(sys.modules, "airflow", types.ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, manager.__name__, manager)
    plugin = load().DagstopPlugin
    assert isinstance(plugin(), vars(manager)["AirflowPlugin"])
    assert {"appbuilder_menu_items", "menu_links", "external_views"} & set(vars(plugin)) == entries


@pytest.mark.parametrize("missing", ["airflow.plugins_manager", "flask_admin.base"])
def test_it_loads_where_something_is_missing_or_broken(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"{name} is broken")

    for module in (None, Broken(missing)):
        monkeypatch.setitem(sys.modules, missing.partition(".")[0], module)
        monkeypatch.setitem(sys.modules, missing, module)
        plugin = load().DagstopPlugin
        assert plugin.menu_links == [] and plugin.appbuilder_menu_items
