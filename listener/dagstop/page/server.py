"""HTTP: who may ask, and what is answered. GET and HEAD only; nothing that is asked changes anything."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import socket
import sys
import threading
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dagstop.errors import DagstopError
from dagstop.logs import event, log, shown
from dagstop.page import metrics
from dagstop.page.facts import Source, health
from dagstop.words import plain

AT_ONCE = 24
"""Requests answered at once; one more is turned away, so that no flood makes this process grow."""
IDLE = 10.0
"""Seconds that a client may be silent in the middle of a request."""
HEADERS = {
    # nothing of another origin, no inline script or style, no frame, no HTML from strings
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/hosts.js": ("hosts.js", "text/javascript; charset=utf-8"),
    "/stops.js": ("stops.js", "text/javascript; charset=utf-8"),
    "/evidence.js": ("evidence.js", "text/javascript; charset=utf-8"),
    "/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/grafana.json": ("grafana.json", "application/json"),
    "/alerts.yml": ("alerts.yml", "text/yaml; charset=utf-8"),
}
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
ONLY = ("", "unkillable", "spared", "not_found", "refused")


class Refused(Exception):
    """A request that gets a status other than 200: the status, one line, more headers."""

    def __init__(self, status: HTTPStatus, line: str, **headers: str) -> None:
        super().__init__(line)
        self.status = status
        self.headers = headers


class Server(ThreadingHTTPServer):
    """Answers on a socket that listens already."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, source: Source, token: str | None) -> None:
        super().__init__(bound.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.source = source
        self.token = token
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self.static = {
            path: ((files(__package__) / name).read_bytes(), kind) for path, (name, kind) in STATIC.items()
        }

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away or stay silent; everything else is our fault and is logged."""
        exc = sys.exc_info()[1]
        if not isinstance(exc, ConnectionError | TimeoutError):
            log.error(event("page request failed", why=f"{type(exc).__name__}: {exc}"))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = IDLE

    def do_GET(self) -> None:
        try:
            self._admit()
            body, kind, status = self._answer()
            self._send(status, body, kind)
        except Refused as refused:
            self._send(refused.status, f"{refused}\n".encode(), TEXT, refused.headers)
        except DagstopError as exc:
            body = json.dumps({"error": str(exc)}).encode()
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, body, JSON)

    do_HEAD = do_GET

    def version_string(self) -> str:
        return "dagstop"

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses (a method, garbage), as our other refusals."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(status, f"{status.phrase}\n".encode(), TEXT)

    def log_message(self, format: str, *args: Any) -> None:
        """No access log: a browser asks every two seconds."""

    def _admit(self) -> None:
        if self.server.token is None:
            # a page elsewhere whose name was made to lead here (DNS rebinding) sends its own name
            if not _is_this_host(self.headers.get("Host", "")):
                raise Refused(HTTPStatus.FORBIDDEN, "Use the name localhost, or set a token.")
            return
        if not hmac.compare_digest(self._given().encode(), self.server.token.encode()):
            line = "The token is missing or wrong: send it as a bearer token, or as the password of any user."
            raise Refused(HTTPStatus.UNAUTHORIZED, line, **{"WWW-Authenticate": 'Basic realm="dagstop"'})

    def _given(self) -> str:
        """The token that a request brings: a bearer token, or the password of basic authentication."""
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return value.strip()
        if scheme.lower() == "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return ""
        return ""

    def _answer(self) -> tuple[bytes, str, HTTPStatus]:
        """Body, content type and status. Raises Refused, DagstopError."""
        address = urlsplit(self.path)
        path, source = address.path, self.server.source
        if path in self.server.static:
            return *self.server.static[path], HTTPStatus.OK
        if path == "/metrics":
            try:
                snapshot = source.snapshot()
            except DagstopError:
                snapshot = None
            return metrics.exposition(source.here, snapshot), metrics.CONTENT_TYPE, HTTPStatus.OK
        if path == "/healthz":
            return self._health(parse_qs(address.query).get("host", [None])[0])
        if path == "/api/overview":
            return _json(self._overview())
        if path == "/api/orders":
            return _json({"orders": source.orders(**_chosen(address.query))})
        head, _, number = path.rpartition("/")
        if head == "/api/orders" and number.isascii() and number.isdigit() and len(number) <= 18:
            order = source.order(int(number))
            if order is not None:
                return _json(order)
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no order {number}.")
        raise Refused(HTTPStatus.NOT_FOUND, "Not found.")

    def _health(self, host: str | None) -> tuple[bytes, str, HTTPStatus]:
        try:
            good, line = health(host, self.server.source.snapshot())
        except DagstopError as exc:
            good, line = False, str(exc)
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return f"{'ok' if good else 'failed'}: {shown(line)}\n".encode(), TEXT, status

    def _overview(self) -> dict[str, Any]:
        source = self.server.source
        snapshot = source.snapshot()
        return {"here": asdict(source.here), "able": snapshot.able, **asdict(snapshot)}

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_this_host(name: str) -> bool:
    """Whether a Host header names the loopback interface."""
    try:
        host = urlsplit(f"//{name}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _chosen(query: str) -> dict[str, Any]:
    """The arguments of Source.orders. Raises Refused."""
    try:
        given = {name: values[0] for name, values in parse_qs(query, max_num_fields=8).items()}
        before = int(given["before"]) if "before" in given else None
        date = datetime.fromisoformat(given["date"]) if "date" in given else None
    except ValueError:
        line = "before is the number of an order; date is a run's date in ISO 8601."
        raise Refused(HTTPStatus.BAD_REQUEST, line) from None
    only, words = given.get("only", ""), given.get("words", "")
    if only not in ONLY or len(words) > 250 or not (before is None or 0 <= before < 2**63):
        raise Refused(HTTPStatus.BAD_REQUEST, f"only is one of {', '.join(ONLY[1:])}; words is a text.")
    run: dict[str, Any] = {name: given[name] for name in given if name in ("dag_id", "run_id")}
    if any("\0" in text for text in (words, *run.values())):
        raise Refused(HTTPStatus.BAD_REQUEST, "A text has no NUL in it.")
    return {"before": before, "words": words, "only": only, "date": date, **run}


def _json(facts: Any) -> tuple[bytes, str, HTTPStatus]:
    return json.dumps(facts, default=plain).encode(), JSON, HTTPStatus.OK
