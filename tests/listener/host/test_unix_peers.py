"""Who is connected to a socket, asked of the real kernel."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from dagstop.host.unix_peers import connected_to, sockets_of


def test_only_what_is_connected_to_that_socket_counts(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        for one, name in ((server, "a"), (other, "b")):
            one.bind(str(tmp_path / name))
            one.listen()
        assert connected_to(str(tmp_path / "a")) == frozenset()
        with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as elsewhere:
            client.connect(str(tmp_path / "a"))
            elsewhere.connect(str(tmp_path / "b"))
            accepted, too = server.accept()[0], other.accept()[0]
            (peer,) = connected_to(str(tmp_path / "a"))
            assert peer == os.fstat(client.fileno()).st_ino
            own = sockets_of("/proc", os.getpid())
            assert {peer, os.fstat(elsewhere.fileno()).st_ino} <= own
            (tmp_path / "link").symlink_to(tmp_path / "a")
            assert connected_to(str(tmp_path / "link")) == {peer}
            accepted.close()
            too.close()
        assert connected_to(str(tmp_path / "a")) == frozenset()


def test_what_is_not_there_has_nobody(tmp_path: Path) -> None:
    assert connected_to(str(tmp_path / "none")) == frozenset()
    assert sockets_of(str(tmp_path), 1) == frozenset()
