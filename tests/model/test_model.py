"""Spin looks at every order in which the steps of the protocol can happen: README.md beside this says what is modelled.

A model holds as it stands; with a guard taken away (a flag) spin finds the counterexample, else it checks nothing.
A limit is what the models leave out: with it they fail too, and a test on a real Postgres shows that it is so.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import shape_3

HERE = Path(__file__).parent

# not of `make unit`: spin and gcc are not everywhere, and take a minute
pytestmark = pytest.mark.server

HOLDS = (
    "cascade AIRFLOW=1",
    "cascade AIRFLOW=2",
    "cascade AIRFLOW=3",
    "cascade AIRFLOW=2 FAILS=1 BYSTANDER",
    "cascade AIRFLOW=3 FAILS=1 BYSTANDER",
    "delivery BAD=1",
    "tries KEY=2",
    "tries KEY=3",
    "report",
)
GUARDS = (
    "cascade AIRFLOW=2 NO_COMPLETION",  # dagstop.complete_left
    "cascade AIRFLOW=2 NO_FENCE",
    "cascade AIRFLOW=2 FENCE_CLOSED",  # fencing_order: closed_at
    "cascade AIRFLOW=2 WAITS_FOR_ROWS",  # nowait, may_wait: a deadlock with Airflow's clear
    "cascade AIRFLOW=2 COMPLETES_BLINDLY",  # complete_orders: the run is failed still
    "delivery BAD=1 NO_SWEEP",
    "delivery BAD=1 BY_LAST_ID",
    "delivery BAD=2 KEEPS_CAUGHT_UP",  # be_alive: caught_up after a gap
    "delivery BAD=2 NO_NOTE",  # close_orders: closed_without
    "tries KEY=2 NO_RELEASE",  # _later_try: released_at
    "tries KEY=2 NO_STALE_GUARD",  # _later_try: started_at > db_now
    "tries KEY=3 NO_STALE_GUARD",
    "tries KEY=2 NO_IDENTITY",  # endings.py: pid and start time
    "report NO_JOURNAL",
    "report SETTLES_EARLY",  # SignalJournal.settle: what is unsent
    "report NO_LAST_LOOK",  # Hunt.finished: looked
    "report SENT_IS_DEAD",
    "cascade AIRFLOW=2 FAILS=1 BYSTANDER BY_STATE_ALONE",  # dagstop.try_of
)
LIMITS = (
    "cascade AIRFLOW=2 OVER_SUCCESS",
    "cascade AIRFLOW=2 RETRY_BEFORE_COMMIT",
    "cascade AIRFLOW=2 START_BEFORE_CASCADE",
    "cascade AIRFLOW=1 CLEARED_MESSAGE",
    "cascade AIRFLOW=1 STALE_SCHEDULER",
    "tries KEY=0",
)


def check(case: str, folder: Path) -> str:
    """What spin says of a model with these flags; a counterexample comes with its steps."""
    name, *flags = case.split()
    model = (HERE / f"{name}.pml").read_text(encoding="utf-8")
    (folder / "model.pml").write_text(model, encoding="utf-8")
    flags = [f"-D{flag}" for flag in flags]
    lives = ["-DNFAIR=3"] if "\nltl " in model else ["-DSAFETY"]
    run(["spin", "-a", *flags, "model.pml"], folder)
    run(
        ["gcc", "-O1" if case in HOLDS else "-O0", "-w", "-DMEMLIM=4000", *lives, "-o", "pan", "pan.c"],
        folder,
    )
    said = run(["./pan", "-m200000", *(["-a", "-f"] if lives == ["-DNFAIR=3"] else [])], folder)
    if "errors: 0" in said:
        assert "Search not completed" not in said and "max search depth" not in said, said
    elif case in HOLDS:
        said += run(["spin", "-t", "-p", *flags, "model.pml"], folder)[-6000:]
    return said


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("case", HOLDS)
def test_it_holds(case: str, tmp_path: Path) -> None:
    said = check(case, tmp_path)
    assert re.search(r"errors: 0\b", said), said


@pytest.mark.parametrize("case", [*GUARDS, *LIMITS])
def test_it_fails(case: str, tmp_path: Path) -> None:
    said = check(case, tmp_path)
    assert re.search(r"errors: [1-9]", said), f"no guard needed, it seems: {said}"


@shape_3
def test_what_the_models_stand_for_is_there(airflow_db: AirflowDatabase) -> None:
    """Each function and table of the database that a model names exists, and each file of the host half."""
    text = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("*.pml"))
    functions = set(re.findall(r"dagstop\.(\w+)", text))
    names = (
        "select proname::text from pg_proc where pronamespace = 'dagstop'::regnamespace union all"
        " select relname::text from pg_class where relnamespace = 'dagstop'::regnamespace"
    )
    there = {name for (name,) in airflow_db.rows(names)}
    assert len(functions) > 10 and functions <= there, functions - there
    files = set(re.findall(r"\b(?:\w+/)+\w+\.py\b", text))
    package = HERE.parents[1] / "listener" / "dagstop"
    assert files and not {one for one in files if not (package / one).is_file()}
