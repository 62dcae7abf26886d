"""Airflow's own user interface and REST API, as people use them, for each generation of Airflow."""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from typing import Any

USER, PASSWORD = "lab", "lab"


class WebError(RuntimeError):
    """Airflow's web server did not do what it was asked."""


class Web:
    """Speaks HTTP to one Airflow. `generation` is 1 (1.10), 2 or 3; `port` is on 127.0.0.1."""

    def __init__(self, generation: int, port: int) -> None:
        self._generation = generation
        self._base = f"http://127.0.0.1:{port}"
        self._token: str | None = None
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        # an empty ProxyHandler: the machine's proxy settings must not come between
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)

    def healthy(self) -> bool:
        """Whether the web server answers."""
        path = {1: "/health", 2: "/health", 3: "/api/v2/monitor/health"}[self._generation]
        try:
            self._open("GET", path)
        except (OSError, WebError):
            return False
        return True

    def trigger(self, dag_id: str, run_id: str, logical_date: str) -> None:
        """Start a run (2.x and 3.x only)."""
        body = {"dag_run_id": run_id, "logical_date": logical_date}
        self._api("POST", f"/dags/{dag_id}/dagRuns", body)

    def fail_run(self, dag_id: str, run_id: str, row_id: int) -> None:
        """What the UI's "mark run failed" does; `row_id` is dag_run.id (only 1.10 asks for it)."""
        if self._generation == 1:
            self._classic_action("/admin/dagrun/", "set_failed", str(row_id))
        else:
            self._api("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})

    def fail_task(self, dag_id: str, run_id: str, task_id: str, date: str, map_index: int = -1) -> None:
        """What the UI's "mark task failed" does; `date` is `YYYY-MM-DD HH:MM:SS.ffffff+00:00`."""
        self.set_task(dag_id, run_id, task_id, date, "failed", map_index)

    def set_task(
        self, dag_id: str, run_id: str, task_id: str, date: str, state: str, map_index: int = -1
    ) -> None:
        """What the UI's "mark task failed" or "mark task success" does; `date` as in `fail_task`."""
        if self._generation == 1:
            self._classic_action("/admin/taskinstance/", f"set_{state}", _classic_row(task_id, dag_id, date))
        else:
            body: dict[str, Any] = {"new_state": state}
            if self._generation == 2:
                body["dry_run"] = False
            index = f"/{map_index}" if map_index >= 0 else ""
            self._api("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}{index}", body)

    def clear_task(self, dag_id: str, run_id: str, task_id: str, date: str) -> None:
        """What the UI's "clear" does: the task runs again; `date` as in `fail_task`."""
        if self._generation == 1:
            self._classic_action("/admin/taskinstance/", "clear", _classic_row(task_id, dag_id, date))
        else:
            body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "reset_dag_runs": True}
            self._api("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def retry_task(self, dag_id: str, run_id: str, task_id: str, date: str) -> None:
        """The task instances' page, "Set state to 'up_for_retry'" (not 3.x); `date` as in `fail_task`."""
        if self._generation == 1:
            self._classic_action("/admin/taskinstance/", "set_retry", _classic_row(task_id, dag_id, date))
            return
        self._log_in()
        wanted = {"_flt_3_dag_id": dag_id, "_flt_3_run_id": run_id, "_flt_3_task_id": task_id}
        page = self._open("GET", "/taskinstance/list/?" + urllib.parse.urlencode(wanted)).decode()
        rows = re.findall(r'name="rowid"[^>]*value="([^"]+)"', page)
        if len(rows) != 1:
            raise WebError(f"{len(rows)} rows of {dag_id} {run_id} {task_id}")
        form = {"csrf_token": _token(page), "action": "set_retry", "rowid": html.unescape(rows[0])}
        answer = self._open(
            "POST", "/taskinstance/action_post", urllib.parse.urlencode(form).encode()
        ).decode()
        if "task instances were set to" not in answer:
            raise WebError(f"the page does not say that {task_id} was set to up_for_retry")

    def _log_in(self) -> None:
        form = {"username": USER, "password": PASSWORD}
        form["csrf_token"] = _token(self._open("GET", "/login/").decode())
        self._open("POST", "/login/", urllib.parse.urlencode(form).encode())

    def _classic_action(self, page: str, action: str, row_id: str) -> None:
        form = {"url": page, "action": action, "rowid": row_id}
        form["csrf_token"] = _token(self._open("GET", page).decode())
        answer = self._open("POST", f"{page}action/", urllib.parse.urlencode(form).encode())
        if b"Failed" in answer and b"alert-danger" in answer:
            raise WebError(f"{page} {action} {row_id}: the page reports a failure")

    def _api(self, method: str, path: str, body: dict[str, Any]) -> None:
        prefix = "/api/v1" if self._generation == 2 else "/api/v2"
        headers = {"Content-Type": "application/json", "Authorization": self._authorization()}
        self._open(method, prefix + path, json.dumps(body).encode(), headers)

    def _authorization(self) -> str:
        if self._generation == 2:
            return "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self._token is None:
            self._token = json.loads(self._open("GET", "/auth/token"))["access_token"]
        return f"Bearer {self._token}"

    def _open(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        request = urllib.request.Request(self._base + path, data, headers or {}, method=method)
        try:
            with self._opener.open(request, timeout=60) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:500]
            raise WebError(f"{method} {path}: {error.code} {text}") from error


def _token(page: str) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    found = found or re.search(r'value="([^"]+)"[^>]*name="csrf_token"', page)
    return found.group(1) if found else ""


def _classic_row(task_id: str, dag_id: str, date: str) -> str:
    """The key of a row; flask-admin escapes the separator of a compound key with a dot."""
    return f"{task_id},{dag_id},{date}".replace(".", "..")
