"""`dagstop page` as a process, without a listener; and asking it as a client does."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from dagstop.page.facts import Here, Snapshot, Source
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import CLEAN

TOKEN = "a-token-of-the-tests-7f3a"


class Page:
    """`dagstop page` for a database, on a free port of this host."""

    def __init__(self, db: AirflowDatabase, *, token: str = "", url: str = "", http: str = "0") -> None:
        more = {"DAGSTOP_DATABASE_URL": url or db.url, "DAGSTOP_HTTP_TOKEN": token, "DAGSTOP_HTTP": http}
        self._environment = {**CLEAN, **{name: value for name, value in more.items() if value}}
        self._folder = tempfile.TemporaryDirectory(prefix="dagstop-page-")
        self._log = Path(self._folder.name, "log")
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def log(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> Page:
        words = [sys.executable, "-m", "dagstop", "page"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, env=self._environment, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while not (found := re.findall(r"page at=(http://\S+)/", self.log())):
            assert self.process.poll() is None and time.monotonic() < until, self.log()
            time.sleep(0.02)
        self.url = found[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> int:
        """End it by SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        return get(self.url + path, method="GET", timeout=60.0, **headers)


def look(db: AirflowDatabase) -> Snapshot:
    """A snapshot by a source that remembers nothing."""
    source = Source(db.url, Here("worker-1", "0.1.0", ""))
    try:
        return source.snapshot()
    finally:
        source.close()


def get(url: str, *, method: str = "GET", timeout: float = 60.0, **headers: str) -> tuple[int, str, Any]:
    """Status, body, headers of one request; a status of 400 or more is not an error here."""
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
    """Return the body once `url` answers with that status and those words."""
    until = time.monotonic() + timeout
    while True:
        try:
            found, body, _ = get(url, timeout=30)
        except (
            OSError,
            http.client.HTTPException,
        ) as exc:  # it may end in the middle of its answer, to start again
            found, body = 0, str(exc)
        if found == status and words in body:
            return body
        assert time.monotonic() < until, f"{url} answers {found} {body!r}"
        time.sleep(0.1)
