"""The bare yardstick: the least code that stops a run. It checks nothing and reports nothing.

`python -m tests.bench.bare URL`: wakes on a NOTIFY whose payload is `VARIABLE=value`, reads each
/proc/PID/environ once, and SIGTERMs what has it.
"""

from __future__ import annotations

import os
import select
import signal
import sys

import psycopg2


def main(url: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute("listen bare")
    print("ready", flush=True)
    while True:
        select.select([connection], [], [])
        connection.poll()
        while connection.notifies:
            stop(connection.notifies.pop().payload.encode() + b"\0")


def stop(mark: bytes, root: str = "/proc") -> None:
    for name in os.listdir(root):
        if not name.isdigit():
            continue
        try:
            descriptor = os.open(f"{root}/{name}/environ", os.O_RDONLY)
        except OSError:
            continue
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            continue
        finally:
            os.close(descriptor)
        if mark in data:
            os.kill(int(name), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
