"""`python -m tests.support.systemd_job URL USER RUN...`, as root in a systemd_box: prints what it saw as JSON.

Each run is failed once its bash group runs: under the unit as it was started, after the listener
was SIGKILLed, after it was stopped so that the watchdog must see to it. The first one has a task in
a pid namespace of its own, too, with its own host name and /etc/hostname, as in a container.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.tasks import RUNNER
from tests.testbed import proc
from tests.testbed.postgres import free_port, rows

HOME = Path("/opt/airflow")
UNIT = Path("/etc/systemd/system/dagstop.service")
PAGE_UNIT = Path("/etc/systemd/system/dagstop-page.service")
PROGRAM = str(Path(sys.executable).with_name("dagstop"))
CONTAINER = "worker-1"  # its host name, and the unit that it runs in
TASKS = "tasks"  # the user of Airflow's tasks
PATIENCE = 30.0


def main(url: str, user: str, *runs: str) -> None:
    for name in {TASKS, user} - {"root"}:
        subprocess.run(["useradd", "--no-create-home", name], check=True)
    subprocess.run(["groupadd", "--force", "docker"], check=True)
    HOME.mkdir(parents=True, exist_ok=True)
    tasks = pwd.getpwnam(TASKS)
    os.chown(HOME, tasks.pw_uid, tasks.pw_gid)
    Path("/etc/dagstop").mkdir(mode=0o700)
    Path("/etc/dagstop/dagstop.env").write_text(f"AIRFLOW_HOME={HOME}\nDAGSTOP_DATABASE_URL={url}\n")
    words = [*([] if user == "root" else ["--user", user]), "--container", f"cgroup=*/{CONTAINER}.service"]
    UNIT.write_text(_said(PROGRAM, "systemd", *words).replace("WatchdogSec=30", "WatchdogSec=3"))
    _said("systemctl", "daemon-reload")
    inside = _container(url, runs[0])
    _said("systemctl", "enable", "--now", "dagstop")
    _wait(lambda: _is_ours(url))
    seen: dict[str, Any] = {"user": pwd.getpwuid(os.stat(f"/proc/{_pid()}").st_uid).pw_name, "alive": {}}
    for number, run in enumerate(runs):
        if number:
            before = _pid()
            os.kill(before, (signal.SIGKILL, signal.SIGSTOP)[number - 1])
            _wait(partial(_restarted, before))
        seen["alive"][run] = _stop(url, run)
        if run == runs[0]:
            _wait(lambda: not _living(inside))
            seen["inside"] = len(_living(inside))
    check = subprocess.run([PROGRAM, "check"], env={**os.environ, "DAGSTOP_DATABASE_URL": url})
    seen["check"] = check.returncode
    seen["page"] = _page(url)
    seen["restarts"] = int(_shown("NRestarts"))
    _said("systemctl", "stop", "dagstop")
    seen["state"], seen["result"] = _shown("ActiveState"), _shown("Result")
    seen["journal"] = _said("journalctl", "--unit", "dagstop", "--no-pager", "--output", "cat").splitlines()
    print(json.dumps(seen), flush=True)


def _page(url: str) -> dict[str, Any]:
    """The page under its own unit: who it is, which rights it has, and what it answers."""
    port = free_port()
    Path("/etc/dagstop/page.env").write_text(f"DAGSTOP_DATABASE_URL={url}\nDAGSTOP_HTTP={port}\n")
    # a private /tmp hides a repository that lies there
    seen = f"DynamicUser=yes\nBindReadOnlyPaths={sys.prefix} {os.getcwd()}"
    PAGE_UNIT.write_text(_said(PROGRAM, "systemd", "--page").replace("DynamicUser=yes", seen))
    _said("systemctl", "daemon-reload")
    subprocess.run(
        ["systemctl", "enable", "--now", "--quiet", "dagstop-page"]
    )  # what went wrong is in the journal
    answers: list[str] = []

    def answered() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            answers.append(answer.read().decode())
        return bool(answers)

    _wait(answered)
    pid = int(_said("systemctl", "show", "--property", "MainPID", "--value", "dagstop-page"))
    status = Path(f"/proc/{pid}/status").read_text() if pid else ""
    lines = dict(line.split(":\t", 1) for line in status.splitlines())
    _said("systemctl", "stop", "dagstop-page")
    journal = _said("journalctl", "--unit", "dagstop-page", "--no-pager", "--output", "cat")
    return {
        "root": lines.get("Uid", "0").split()[0] == "0",
        "rights": [lines.get(name) for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs")],
        "said": answers[:1],
        "journal": journal,
    }


def _container(url: str, run: str) -> list[int]:
    """What looks from outside like a container with one task in it: the pids of that task."""
    tasks = pwd.getpwnam(TASKS)
    names = Path("/tmp/hostname")
    names.write_text(f"{CONTAINER}\n")
    title = f"airflow task runner: dag a {run} 7"
    runner = [sys.executable, "-c", RUNNER, title, "group", "sleep 6003 & wait"]
    as_tasks = ["setpriv", f"--reuid={tasks.pw_uid}", f"--regid={tasks.pw_gid}", "--clear-groups"]
    task = shlex.join([*as_tasks, *runner])
    inside = f"mount --bind {names} /etc/hostname; hostname {CONTAINER}; {task} & exec sleep 6009"
    command = ["unshare", "--pid", "--fork", "--mount", "--uts", "--mount-proc", "--kill-child", "bash", "-c"]
    environment = [f"--setenv=AIRFLOW_HOME={HOME}", f"--setenv=AIRFLOW__DATABASE__SQL_ALCHEMY_CONN={url}"]
    unit = ["systemd-run", "--quiet", f"--unit={CONTAINER}", *environment, "--", *command, inside]
    _said(*unit)
    found: list[int] = []

    def runs() -> bool:
        living = [p for p in proc.everyone() if p.state != "Z"]
        runner = [p.pid for p in living if p.command[0].startswith("airflow task runner")]
        found[:] = [*runner, *(p.pid for p in living if p.command == ("sleep", "6003"))]
        return len(found) == 2

    _wait(runs)
    (pid,) = [line.split()[-1] for line in _status(found[0]) if line.startswith("NSpid:")]
    text = "update task_instance set hostname = %s, pid = %s, start_date = now() where run_id = %s"
    rows(url, text, (CONTAINER, int(pid), run))
    return found


def _status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def _living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if (p := proc.read(pid)) is not None and p.state != "Z"]


def _is_ours(url: str) -> bool:
    text = "select detail -> 'places' from dagstop.listener"
    places = [place for (one,) in rows(url, text) for place in one or ()]
    return any(place["hostname"] == CONTAINER and not place["refused"] for place in places)


def _restarted(before: int) -> bool:
    return _pid() not in (0, before) and _shown("ActiveState") == "active"


def _stop(url: str, run: str) -> int:
    """Fail the run; how many of its processes live on."""
    names = {"DAG_ID": "dag", "DAG_RUN_ID": run, "TASK_ID": "a", "TRY_NUMBER": "1"}
    environment = {f"AIRFLOW_CTX_{name}": value for name, value in names.items()}
    group = subprocess.Popen(
        ["bash", "-c", "sleep 6001 & sleep 6002 & wait"],
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(HOME), **environment},
        user=TASKS,
        start_new_session=True,
    )
    time.sleep(1)
    assert _in_session(group.pid) == 3
    rows(url, "update dag_run set state = 'failed' where run_id = %s", (run,))
    _wait(lambda: group.poll() is not None and not _in_session(group.pid))
    return _in_session(group.pid)


def _in_session(session: int) -> int:
    return sum(p.session == session and p.state != "Z" for p in proc.everyone())


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)


def _pid() -> int:
    return int(_shown("MainPID"))


def _shown(name: str) -> str:
    return _said("systemctl", "show", "--property", name, "--value", "dagstop").strip()


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
