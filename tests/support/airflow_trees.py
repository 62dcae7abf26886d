"""The processes of one task in Airflow 2.11.2 and 1.10.0, as /proc shows them; pids by role."""

from __future__ import annotations

from typing import Any

from tests.support.fake_proc import HOME, FakeProc, tags

SCHEDULER, WORKER, SUPERVISOR, RUNNER, BASH, SLEEP = 100, 110, 120, 130, 140, 150
BASH_ARGV = ("/usr/bin/bash", "-c", "sleep 6001 & wait")
CLOBBERED = b"ree', 'lab_4711', '--local'\0\0\0LC_ALL=C\0"


def airflow_2(proc: FakeProc) -> None:
    """A task in Airflow 2.11.2 with LocalExecutor, as proc(5) shows it."""
    inside: dict[str, Any] = {"sid": SCHEDULER, "pgid": SCHEDULER, "environ": CLOBBERED}
    proc.add(
        SCHEDULER, argv=["/opt/airflow/bin/python /opt/airflow/bin/airflow scheduler"], environ=CLOBBERED
    )
    proc.add(WORKER, ppid=SCHEDULER, argv=["airflow worker -- LocalExecutor: ['airflow', 'tasks']"], **inside)
    words = ["airflow task supervisor: ['airflow', 'tasks', 'run', 'd', 't', 'r', '--local']"]
    proc.add(SUPERVISOR, ppid=WORKER, argv=words, **inside)
    proc.add(RUNNER, ppid=SUPERVISOR, argv=["airflow task runner: d t r 4"], sid=SCHEDULER, environ=CLOBBERED)
    proc.add(BASH, ppid=RUNNER, argv=BASH_ARGV, environ=tags())
    proc.add(SLEEP, ppid=BASH, argv=("sleep", "6001"), pgid=BASH, sid=BASH, environ=tags())


def airflow_1_10_0(proc: FakeProc) -> None:
    """A task in Airflow 1.10.0: nothing but the ancestry ties bash to it."""
    ours = {"AIRFLOW_HOME": HOME}
    run = [
        "/opt/airflow/bin/python",
        "/opt/airflow/bin/airflow",
        "run",
        "d",
        "t",
        "2026-11-22T09:17:13+00:00",
    ]
    proc.add(SCHEDULER, argv=("python", "airflow", "scheduler"), environ=ours)
    proc.add(SUPERVISOR, ppid=SCHEDULER, argv=[*run, "--local"], sid=SCHEDULER, pgid=SCHEDULER, environ=ours)
    proc.add(RUNNER, ppid=SUPERVISOR, argv=[*run, "--job_id", "13", "--raw"], environ=ours)
    proc.add(BASH, ppid=RUNNER, argv=("bash", "/tmp/airflowtmpper5lodb/treez_u_ll3h"), environ=ours)
    proc.add(SLEEP, ppid=BASH, argv=("sleep", "6001"), pgid=BASH, sid=BASH, environ=ours)
