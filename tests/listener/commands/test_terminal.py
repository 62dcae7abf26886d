"""The same facts on a terminal, for people, and in a pipe, for programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import on_a_terminal
from tests.support.listener import CLEAN, Listener, dagstop
from tests.support.marks import one_server, shape_2

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
HOSTILE = "evil\x1b[31m\u202e\r\nrun"
ESCAPED = r"evil\x1b[31m\u202e\r\nrun"


@one_server
@shape_2
def test_history_for_people_and_for_programs(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    airflow_db.add_running(HOSTILE)
    url: Any = {"DAGSTOP_DATABASE_URL": airflow_db.url}
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed", HOSTILE)
        listener.wait_for_reports(1)
        code, screen = on_a_terminal("history", **url)
        assert code == 0 and ESCAPED in screen and (" ago" in screen or "just now" in screen)
        assert "\x1b[31m" not in screen and "\u202e" not in screen
        code, screen = on_a_terminal("status", **url)
        assert code == 0 and COLOUR.search(screen)  # "ok" is green
        code, screen = on_a_terminal("status", NO_COLOR="1", **url)
        assert code == 0 and not COLOUR.search(screen)
        head, line = dagstop("history", **url).stdout.splitlines()
        assert len(head.split("\t")) == len(line.split("\t")) == 10
        assert ESCAPED in line and re.search(r"\t\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4}\t", line)


@one_server
@shape_2
def test_stop_shows_who_is_waited_for(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    airflow_db.add_run()
    with Listener(airflow_db.url, tmp_path) as listener:
        assert listener.process is not None
        airflow_db.wait_until("select count(*) = 1 from dagstop.listener")
        arguments = ("stop", "dag", "run", "--wait", "--timeout", "2", "--database-url", airflow_db.url)
        os.kill(listener.process.pid, 19)  # it hangs
        code, screen = on_a_terminal(*arguments)
        assert code == 1 and "waiting for host-1 for " in screen and "is still open" in screen
        os.kill(listener.process.pid, 18)
        listener.wait_for_reports(1)
        piped = dagstop("stop", "dag", "run", "--wait", "--database-url", airflow_db.url).stdout
        assert "stopping it again" in piped and "waiting for" not in piped and "\x1b" not in piped


def test_each_shell_gets_its_completion() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_DAGSTOP_COMPLETE" in dagstop("completion", shell).stdout
    words = {"COMP_WORDS": "dagstop st", "COMP_CWORD": "1", "_DAGSTOP_COMPLETE": "bash_complete"}
    code = "from dagstop.commands import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**CLEAN, **words}, timeout=60
    )
    assert done.stdout.split() == ["plain,status", "plain,stop"]
