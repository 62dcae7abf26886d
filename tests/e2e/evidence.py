"""What must hold of one act on a site: the reports, the states, the marks, nothing come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dagstop.lab import proc
from tests.e2e.actions import Act
from tests.e2e.kinds import KINDS, SIBLING, Kind, number_of, tasks_of
from tests.e2e.site import Site, marked

CONTAINED = {kind.name for kind in KINDS if kind.container}
RUNNER_ONLY = {kind.task_id for kind in KINDS if kind.runner_only}
Wrong = Iterator[tuple[str, str]]  # the kind (or `run`) and what is wrong, in words


def trouble_containers(site: Site, run: str) -> None:
    """Give one container of the run a restart policy, and pause another."""
    handles, paused = f"6016.{number_of(run)}", f"6017.{number_of(run)}"
    for container in site.client.containers.list():
        command = " ".join(container.attrs["Config"]["Cmd"] or ())
        if handles in command:
            container.update(restart_policy={"Name": "always"})
        if paused in command:
            container.pause()


def must_live(site: Site, mode: str, process: proc.Process) -> bool:
    """Whether no evidence can tie it to its run: it must be spared then, whatever it is."""
    word = process.command[1] if process.command[1:] else ""
    given_up = process.command[0] == "sleep" and word.startswith("6012.")
    return mode == "late" and given_up


def wrong_reports(site: Site, act: Act, victims: dict[str, list[proc.Process]]) -> Wrong:
    """One order for the run or for each task, with a report that says what was done and why."""
    details = []
    for run in act.runs:
        orders = site.orders(run)
        wanted = [("run", None)]
        if act.of_tasks:
            wanted = [("task", task) for task in tasks_of(site.airflow.generation)]
        found = [(order["kind"], order["task_id"]) for order in orders]
        if sorted(found, key=str) != sorted(wanted, key=str):
            yield "run", f"the orders are {found}"
        for order in orders:
            yield from _wrong_report(order, act)
            details += order["details"]
    pids = {item["pid"] for detail in details for item in detail["processes"]}
    contained = sum(len(detail["containers"]) for detail in details)
    spared = {item.get("pid"): item["why"] for detail in details for item in detail["spared"]}
    for kind, group in victims.items():
        ours = {p.pid for p in group if not must_live(site, act.mode, p)}
        yield from ((kind, f"spared pid {pid}: {spared[pid]}") for pid in ours & spared.keys())
        # before a late listener comes, or after its own click, Airflow may have ended it; of containers a
        # report has no pids
        first = act.mode == "late" or act.action.startswith("ui_")
        if ours and not first and kind not in CONTAINED and pids.isdisjoint(ours):
            yield kind, "no report names any of its processes"
    there = sum(kind in CONTAINED and bool(group) for kind, group in victims.items())
    if contained < there * len(act.runs) and act.action.startswith("sql"):
        yield "run", f"the reports name {contained} containers of {there * len(act.runs)}"


def _wrong_report(order: dict[str, Any], act: Act) -> Wrong:
    about = order["task_id"] or "its run"
    if len(order["outcomes"]) != 1:
        yield "run", f"{len(order['outcomes'])} reports on {about}"
        return
    # what was SIGKILLed, or died before the listener came, is not there to be found
    gone = act.of_tasks and (act.mode == "late" or (act.mode == "web_only" and about in RUNNER_ONLY))
    if order["outcomes"][0] != "stopped" and not gone:
        yield "run", f"the report on {about} is {order['outcomes'][0]}"
    for item in (*order["details"][0]["processes"], *order["details"][0]["containers"]):
        if not item["why"] or not item["evidence"] or not item["signals"] or not item["died_at"]:
            yield "run", f"the report on {about} says too little: {item}"


def wrong_now(site: Site, act: Act, kinds: Sequence[Kind]) -> Wrong:
    """What is not as it must stay: states, processes, containers, marks."""
    for run in act.runs:
        yield from _wrong_states(site, act, run)
        yield from _come_back(act, run, kinds)
        if act.mode != "web_only":
            yield from _wrong_marks(site, run)
        sibling = [p for p in marked(run) if p.command[1].startswith(f"{SIBLING}.")]
        if act.of_tasks and site.airflow.generation > 1 and act.mode in ("up", "late") and not sibling:
            yield "mapped", "its sibling is gone"


def _wrong_states(site: Site, act: Act, run: str) -> Wrong:
    states = site.airflow.task_states(run)
    stopped = {"failed"}
    if act.action == "timeout" and site.airflow.generation > 1:
        stopped = {"failed", "skipped"}  # Airflow's own code says skipped
    for task, state in states.items():
        if task in ("already_done", "never_started") or (task == "mapped[1]" and act.of_tasks):
            continue
        if state not in stopped:
            yield "run", f"{task} is {state}"
    if states["already_done"] != "success":
        yield "run", f"already_done is {states['already_done']}"
    if act.of_tasks:
        return
    pending = {"skipped", "failed"} if act.by_ui and site.airflow.generation > 1 else {"failed"}
    if states["never_started"] not in pending:
        yield "run", f"never_started is {states['never_started']}"
    if (state := site.airflow.run(site.dag_id, run)["state"]) != "failed":
        yield "run", f"the run is {state}"


def _come_back(act: Act, run: str, kinds: Sequence[Kind]) -> Wrong:
    alive = {p.command[1].partition(".")[0] for p in marked(run)}
    for kind in kinds:
        if act.mode == "late" and kind.name == "env_i":
            continue
        if left := alive & set(kind.sleeps):
            yield kind.name, f"{sorted(left)} is there (again)"


def _wrong_marks(site: Site, run: str) -> Wrong:
    """on_kill always; on_failure_callback where Airflow itself calls it for what somebody else failed."""
    wanted = ["on_kill"]
    if site.release in ("1.10.0", "3.3.2"):
        wanted.append("on_failure_callback")
    for mark in wanted:
        if not (site.airflow.home / "marks" / f"{number_of(run)}-{mark}").exists():
            yield "marks", f"no mark of {mark}"
