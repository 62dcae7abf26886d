"""The listener's side of the page: its socket, and a child process that is started again when it ends.

The listener only waits for the child, in a thread: nothing that a browser sends reaches it. The child reads
one line of JSON from its standard input (no secret stands on a command line or in an environment), and ends
when that pipe does: with the listener, however the listener ended.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from dagstop.logs import event, log
from dagstop.page.address import Address

SLOWEST_RETRY = 30.0
LONG_ENOUGH = 60.0
"""Seconds after which a child that ends is no bad start any more."""
AGAIN = 75
"""The child's exit code where a new one, that has rights still, may reach the database."""


class Keeper:
    """Keeps one page process alive. A port that is taken, or a page that fails, never stops the listener."""

    def __init__(self, address: Address, letter: dict[str, Any]) -> None:
        self._address = address
        self._letter = letter
        self.url: str | None = None  # once it listens
        self._ending = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the child; by SIGKILL if it does not by itself."""
        self._ending.set()
        with self._lock:
            child = self._child
            if child is not None and child.stdin is not None:
                child.stdin.close()
        self._thread.join(timeout)
        if child is not None and self._thread.is_alive():
            child.kill()
            self._thread.join(timeout)

    def _run(self) -> None:
        delay = 1.0
        bound: socket.socket | None = None
        while not self._ending.is_set():
            try:
                if bound is None:
                    bound = self._address.bind()
                    self.url = _url(bound)
                    log.info(event("page", at=self.url, token=bool(self._letter["token"])))
                began = time.monotonic()
                code = self._serve(bound)
                why = f"exit code {code}"
            except OSError as exc:
                began, code, why = time.monotonic(), 0, str(exc)
            if self._ending.is_set():
                break
            delay = 1.0 if time.monotonic() - began > LONG_ENOUGH else min(SLOWEST_RETRY, 2 * delay)
            if code == AGAIN:
                delay = 0.1  # it has waited itself
            else:
                log.error(event("page not served", why=why, retry_in=f"{delay:.0f}s"))
            self._ending.wait(delay)
        if bound is not None:
            bound.close()

    def _serve(self, bound: socket.socket) -> int:
        """Until the child ends: its exit code."""
        with self._lock:
            if self._ending.is_set():
                return 0
            child = subprocess.Popen(
                # -I: neither the working directory nor PYTHONPATH can put code into it
                [sys.executable, "-I", "-m", "dagstop.page"],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=subprocess.DEVNULL,
                pass_fds=(bound.fileno(),),
                cwd="/",
                env={
                    k: v
                    for k, v in os.environ.items()
                    if not k.startswith(("AIRFLOW", "DAGSTOP_", "NOTIFY_"))
                },
                start_new_session=True,  # a Ctrl-C is the listener's
            )
            self._child = child
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps({**self._letter, "socket": bound.fileno()}).encode() + b"\n")
        except (BrokenPipeError, ValueError):
            pass  # it has ended, or `stop` closed the pipe
        try:
            return child.wait()
        finally:
            child.stdin.close()


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
