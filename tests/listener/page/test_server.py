"""Who may ask the page what, over real HTTP: tokens, names, methods, headers, floods."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from dagstop.errors import DagstopError
from dagstop.page.address import Address, address_of, token_of
from dagstop.page.server import AT_ONCE, STATIC, TEXT
from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.support.page import TOKEN, Page, get, get_json, wait_for_answer

API = ("/api/overview", "/api/orders", "/api/orders/1")


@pytest.fixture
def page(airflow_db: AirflowDatabase) -> Iterator[Page]:
    busy.busy_day(airflow_db)
    with Page(airflow_db) as served:
        wait_for_answer(served.url + "/healthz?host=worker-1", 200)
        yield served


@one_server
@shape_2
def test_all_that_the_page_needs_is_served_and_nothing_else(page: Page) -> None:
    for path in (*STATIC, *API, "/metrics", "/healthz?host=worker-1"):
        status, body, headers = page.get(path)
        assert (status, headers["Server"]) == (200, "dagstop") and body, path
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY", path
        assert ("html" in headers["Content-Type"]) == (path == "/"), path
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert get(page.url + path, method="HEAD")[:2] == (200, ""), path
    text = "".join(page.get(path)[1] for path in STATIC if path not in ("/alerts.yml", "/grafana.json"))
    assert (
        text.count("https://") == 0 and text.replace("http://www.w3.org/2000/svg", "").count("http://") == 0
    )
    for path in ("/../../etc/passwd", "//etc/passwd", "/page.py", "/api", "/api/orders/1/2", "/%2e%2e/", "/api/orders/-1",
                 "/api/orders/99999999999999999999", "/api/orders/99999"):  # fmt: skip
        assert page.get(path)[0] == 404, path
    for query in (
        "before=x",
        "only=everything",
        "words=" + "x" * 251,
        "words=%00",
        "before=" + "9" * 30,
        "&".join("abcdefghij"),
    ):
        assert page.get(f"/api/orders?{query}")[0] in (200, 400), query
    for query in ("only=everything", "date=yesterday", "dag_id=%00", "run_id=%00"):
        assert page.get(f"/api/orders?{query}")[0] == 400, query
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        status, body, headers = get(page.url + "/api/overview", method=method)
        assert (status, body, headers["Content-Type"]) == (501, "Not Implemented\n", TEXT), method


@one_server
@shape_2
def test_what_it_says_of_an_order(page: Page) -> None:
    overview = get_json(page.url + "/api/overview")
    assert overview["here"]["host"] == socket.gethostname() and not overview["able"]
    (stuck,) = get_json(page.url + "/api/orders?only=unkillable")["orders"]
    order = get_json(f"{page.url}/api/orders/{stuck['id']}")
    alive = [item for item in order["reports"][0]["detail"]["processes"] if item["died_at"] is None]
    assert [item["alive"] for item in alive] == ["in uninterruptible sleep (state D)"]


@one_server
@shape_2
def test_the_orders_of_one_run_by_its_id_or_by_its_date(airflow_db: AirflowDatabase) -> None:
    numbers = {run: busy.order(airflow_db, "dag", run, ago=60) for run in ("r1", "r10")}
    task = busy.order(airflow_db, "dag", "r1", ago=50, task="extract", targets=1)
    busy.order(airflow_db, "dag_2", "r1", ago=40)
    date = "2020-01-02T03:04:05.678901+00:00"
    airflow_db.rows("update dagstop.stop_order set logical_date = %s where run_id = 'r10'", (date,))
    with Page(airflow_db) as page:

        def found(**query: str) -> list[int]:
            answer = get_json(f"{page.url}/api/orders?{urlencode(query)}")
            return [order["id"] for order in answer["orders"]]

        assert found(dag_id="dag", run_id="r1") == [task, numbers["r1"]]
        assert found(dag_id="dag", run_id="r1", words="extract") == [task]
        assert found(dag_id="dag", date=date) == [numbers["r10"]]
        assert found(dag_id="dag_2", date=date) == found(dag_id="dag", run_id="r") == []


@one_server
@shape_2
def test_without_a_token_only_who_asks_by_this_hosts_own_name(page: Page) -> None:
    port = urlsplit(page.url).port
    for name, status in (("localhost", 200), (f"localhost:{port}", 200), ("127.0.0.1", 200), (f"[::1]:{port}", 200),
                         ("evil.example.org", 403), (f"127.0.0.1.evil.example.org:{port}", 403), ("", 403), ("[", 403)):  # fmt: skip
        assert page.get("/api/overview", Host=name)[0] == status, name


@one_server
@shape_2
def test_with_a_token_only_who_knows_it(airflow_db: AirflowDatabase) -> None:
    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    wrong = ("", TOKEN, "Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Basic", "Basic %%%", "Basic /w==",
             basic(TOKEN), basic(f"{TOKEN}:"), basic("u:"), basic("u:ü"), "Bearer ü")  # fmt: skip
    right = (f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"anybody:{TOKEN}"), basic(f":{TOKEN}"))
    with Page(airflow_db, token=TOKEN) as page:
        for path in ("/", "/page.js", "/metrics", "/healthz", "/nothing", *API):
            status, body, headers = page.get(path)
            assert status == 401 and TOKEN not in body, path
            assert headers["WWW-Authenticate"].startswith("Basic")
        for given in wrong:
            assert page.get("/", Authorization=given)[0] == 401, given
        for given in right:
            assert page.get("/", Authorization=given, Host="page.example.org")[0] == 200, given


@one_server
@shape_2
def test_garbage_and_floods_end_with_the_clients_that_send_them(page: Page) -> None:
    where = ("127.0.0.1", urlsplit(page.url).port or 0)
    for garbage in (b"\0" * 2000, b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 99,
                    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n", b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"\xff\xfe / HTTP/1.1\r\n\r\n"):  # fmt: skip
        with socket.create_connection(where, timeout=30) as connection:
            connection.sendall(garbage)
    idle = [socket.create_connection(where, timeout=30) for _ in range(AT_ONCE + 20)]
    for connection in idle:
        connection.close()
    wait_for_answer(page.url + "/healthz?host=worker-1", 200)


def test_addresses() -> None:
    for text, sockaddr in (("8321", ("127.0.0.1", 8321)), (":8321", ("127.0.0.1", 8321)), ("127.0.0.1:0", ("127.0.0.1", 0)),
                           ("[::1]:80", ("::1", 80)), ("0.0.0.0:8321", ("0.0.0.0", 8321))):  # fmt: skip
        assert address_of(text).sockaddr == sockaddr
    for text in (
        "",
        "x",
        "127.0.0.1",
        "localhost:",
        "localhost:http",
        "1:2:3",
        "::1:80",
        ":99999",
        "nohost.invalid:80",
    ):
        with pytest.raises(DagstopError, match="--http"):
            address_of(text)


def test_another_host_never_reads_without_a_good_token(tmp_path: Path) -> None:
    here = address_of("8321")
    everywhere = Address(socket.AF_INET, ("0.0.0.0", 8321))
    assert token_of(None, None, here) is None
    assert token_of(TOKEN, None, everywhere) == token_of(TOKEN, None, here) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert token_of(None, str(file), everywhere) == TOKEN
    file.write_text("")
    for token, path, address, said in (
        (None, None, everywhere, "DAGSTOP_HTTP_TOKEN"),
        ("", None, everywhere, "DAGSTOP_HTTP_TOKEN"),
        (None, str(file), here, "DAGSTOP_HTTP_TOKEN"),
        (None, "/nowhere", here, "cannot be read"),
        ("short", None, here, "16"),
        ("sixteen letters and spaces", None, here, "16"),
    ):
        with pytest.raises(DagstopError, match=said):
            token_of(token, path, address)
