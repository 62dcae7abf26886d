"""The floor: a client that already knows what to stop.

`python -m tests.bench.floor URL`: wakes on a NOTIFY whose payload is pids, and SIGTERMs them.
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
    connection.cursor().execute("listen floor")
    print("ready", flush=True)
    while True:
        select.select([connection], [], [])
        connection.poll()
        while connection.notifies:
            for pid in connection.notifies.pop().payload.split():
                os.kill(int(pid), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
