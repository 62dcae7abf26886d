"""Where to serve, and who may ask: `--http` and the token, checked before anything is started."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from dagstop.errors import DagstopError

LOOPBACK = "127.0.0.1"
SHORTEST_TOKEN = 16
"""Characters; a token is guessed over the network."""

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]]*):)?(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """One address to bind, as getaddrinfo gives it."""

    family: int
    sockaddr: tuple[str, int]

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.sockaddr[0].partition("%")[0]).is_loopback

    def bind(self) -> socket.socket:
        """A listening socket. Raises OSError."""
        bound = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(self.sockaddr)
            bound.listen(64)
        except OSError:
            bound.close()
            raise
        return bound


def address_of(text: str) -> Address:
    """`HOST:PORT`, `[::1]:PORT`, or `PORT` alone for this host only. Raises DagstopError."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65535:
        raise DagstopError(f"--http {text} is not HOST:PORT, for example {LOOPBACK}:8321")
    host = (match["host"] or LOOPBACK).strip("[]")
    try:
        found = socket.getaddrinfo(host, int(match["port"]), type=socket.SOCK_STREAM)
    except OSError as exc:
        raise DagstopError(f"--http {text}: host {host!r} has no address ({exc.strerror})") from exc
    family, _, _, _, sockaddr = found[0]
    return Address(family, (str(sockaddr[0]), int(sockaddr[1])))


def token_of(token: str | None, path: str | None, address: Address) -> str | None:
    """The token that is demanded, if any. Raises DagstopError where it is missing or too short."""
    if path:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise DagstopError(f"--http-token-file {path} cannot be read: {exc}") from exc
    if not token:
        if path or not address.is_loopback:
            where = address.sockaddr[0]
            raise DagstopError(
                f"--http {where} is reachable from other hosts: set DAGSTOP_HTTP_TOKEN or --http-token-file "
                "(`openssl rand -hex 32` makes a token)"
            )
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise DagstopError(
            f"The token of --http must have {SHORTEST_TOKEN} characters or more, plain ASCII without spaces: "
            "`openssl rand -hex 32` makes one"
        )
    return token


def url_at(bound: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
