"""The page in its own process, without a listener; and asking it as a client does."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any

from dagstop.page.address import address_of
from dagstop.page.keeper import Keeper
from tests.support.airflow_tables import AirflowDatabase

TOKEN = "a-token-of-the-tests-7f3a"


class Page:
    """Serves a database on a free port of this host; `host` is the listener that it stands beside."""

    def __init__(
        self, db: AirflowDatabase, *, host: str = "worker-1", token: str | None = None, url: str = ""
    ) -> None:
        found = db.rows("select listener_id from dagstop.listener where host = %s", (host,))
        here = {"host": host, "listener_id": str(found[0][0]) if found else "", "version": "0.1.0",
                "database": "postgresql://airflow@db.example.org/airflow"}  # fmt: skip
        self.keeper = Keeper(address_of("0"), {"database_url": url or db.url, "token": token, "here": here})
        self.url = ""

    def __enter__(self) -> Page:
        self.keeper.start()
        until = time.monotonic() + 60
        while self.keeper.url is None:
            assert time.monotonic() < until, "the page does not listen"
            time.sleep(0.02)
        self.url = self.keeper.url.rstrip("/")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.keeper.stop(30)

    def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        return get(self.url + path, **headers)


def get(url: str, *, method: str = "GET", timeout: float = 60.0, **headers: str) -> tuple[int, str, Any]:
    """Status, body, headers of one request; a status of 400 or more is no error here."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, method=method, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode(), exc.headers


def get_json(url: str) -> Any:
    status, body, _ = get(url)
    assert status == 200, (status, body)
    return json.loads(body)


def wait_for_answer(url: str, status: int, words: str = "", timeout: float = 60.0) -> str:
    """Until `url` answers so; its body."""
    until = time.monotonic() + timeout
    while True:
        try:
            found, body, _ = get(url, timeout=30)
        except (OSError, http.client.HTTPException) as exc:  # it may end amid its answer, to start anew
            found, body = 0, str(exc)
        if found == status and words in body:
            return body
        assert time.monotonic() < until, f"{url} answers {found} {body!r}"
        time.sleep(0.1)
