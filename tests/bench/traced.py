"""`dagstop` with its stages timed from outside: `python -m tests.bench.traced listen ...`.

Each line of the file named by BENCH_TRACE: CLOCK_MONOTONIC, which all processes of a host share,
and what began or ended then. What is wrapped is named below; a renamed method fails loudly.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

from dagstop.__main__ import main
from dagstop.cases.stopping import Stopping
from dagstop.evidence.watch import Watch
from dagstop.feed.notices import OrderFeed
from dagstop.kill.endings import Endings

WRAPPED: tuple[tuple[Any, str], ...] = (
    (OrderFeed, "_rung"),
    (OrderFeed, "_fetch"),
    (Stopping, "prepare"),
    (Stopping, "take"),
    (Stopping, "_look"),
    (Watch, "catch_up"),
    (Watch, "look"),
    (Watch, "tick"),
    (Endings, "_send"),
)


def wrap(owner: Any, name: str, file: int) -> None:
    plain = getattr(owner, name)
    words = f"{owner.__name__}.{name}"

    @functools.wraps(plain)
    def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.monotonic()
        result = plain(*arguments, **named)
        ended = time.monotonic()
        if result is not False:  # _rung: only when the doorbell rang
            os.write(file, f"{begun} {words} begun\n{ended} {words} ended\n".encode())
        return result

    setattr(owner, name, timed)


if __name__ == "__main__":
    trace = os.open(os.environ["BENCH_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    for owner, name in WRAPPED:
        wrap(owner, name, trace)
    main()
