"""What must hold after one act on a site: reports, states, marks, and nothing that came back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from docker.models.containers import Container

from tests.e2e.actions import Act
from tests.e2e.kinds import KINDS, SIBLING, Kind, number_of, tasks_of
from tests.e2e.site import Site, is_runner, marked
from tests.support.watch import wait_until
from tests.testbed import environment, proc

CONTAINED = {kind.name for kind in KINDS if kind.container}
RUNNER_ONLY = {kind.task_id for kind in KINDS if kind.runner_only}
OUTRUN = 2  # tasks of one act that Airflow's supervisors may end first: each looks every 5 s
Wrong = Iterator[tuple[str, str]]  # the kind (or `run`) and what is wrong, in words


def trouble_containers(site: Site, run: str) -> None:
    """Give one container of the run a restart policy, and pause another."""
    handles, paused = f"6016.{number_of(run)}", f"6017.{number_of(run)}"
    for container in site.client.containers.list(ignore_removed=True):
        command = " ".join(container.attrs["Config"]["Cmd"] or ())
        if handles in command:
            container.update(restart_policy={"Name": "always"})
        if paused in command:
            container.pause()


def fate(site: Site, mode: str, kind: Kind) -> str:
    """What must become of the kind's own processes: `dies`, `lives` (nothing can tie them to their run, and

    they must be spared, whatever they are) or `either` (it depends on what the listener happened to see).
    """
    if mode == "late" and kind.name == "env_i":
        return "lives"
    if mode == "late" and kind.name == "cidfile":
        return "either"  # Airflow itself may have ended the task by then, and removed the file
    if site.bare and kind.operator and mode == "web_only":
        return "lives"
    if site.bare and kind.operator and site.release == "3.3.2":
        return "either"  # only Airflow's own on_kill stops it, which 3.3.2 was seen not to finish (docs/limits.md)
    if site.bare and site.release == "1.10.0":  # no AIRFLOW_CTX_* in what its tasks start
        # before a late listener comes Airflow's supervisors may have ended the runners that would tell whose they are
        late = mode == "late" and kind.name in {"children", "ignores_term", "nohup", "retries_left", "named"}
        return {"detached": "lives", "env_i": "either"}.get(kind.name, "either" if late else "dies")
    return "dies"


def own(kind: Kind, process: proc.Process) -> bool:
    """Whether it is what the kind is about, and not the task's runner or another part of its session."""
    if kind.container or kind.name == "ignores_term":
        return not is_runner(process)
    return process.command[0] == "sleep" and process.command[1].partition(".")[0] in kind.sleeps


def wrong_reports(site: Site, act: Act, victims: dict[str, list[proc.Process]]) -> Wrong:
    """One order for the run or for each task, with a report that says what was done and why."""
    details = []
    named = {kind.name: kind for kind in KINDS}
    for run in act.runs:
        # 2.x's runner may write its own failure over the `skipped` that Airflow's time-out wrote: an order by itself
        orders = [o for o in site.orders(run) if (o["kind"], o["state_before"]) != ("task", "skipped")]
        wanted = [("run", None)]
        if act.of_tasks:
            # and a scheduler that finds nothing left to run fails the run
            orders = [order for order in orders if order["kind"] == "task"]
            wanted = [("task", task) for task in tasks_of(site.airflow.generation)]
        found = [(order["kind"], order["task_id"]) for order in orders]
        if sorted(found, key=str) != sorted(wanted, key=str):
            yield "run", f"the orders are {found}"
        for order in orders:
            yield from _wrong_report(site, order, act)
            details += order["details"]
    pids = {item["pid"] for detail in details for item in detail["processes"]}
    contained = sum(len(detail["containers"]) for detail in details)
    spared = {item.get("pid"): item["why"] for detail in details for item in detail["spared"]}
    outrun = {name.partition("[")[0] for detail in details for name in _outrun(act, detail)}
    lost = set[str]()
    for kind, group in victims.items():
        mortal = fate(site, act.mode, named[kind]) == "dies"
        ours = {p.pid for p in group if mortal or not own(named[kind], p)}
        yield from ((kind, f"spared pid {pid}: {spared[pid]}") for pid in ours & spared.keys())
        # before a late listener comes, or after its own click, Airflow may have ended it; of containers a
        # report has no pids
        first = act.mode == "late" or act.action.startswith("ui_")
        if ours and mortal and not first and kind not in CONTAINED and pids.isdisjoint(ours):
            if named[kind].task_id in outrun:
                lost.add(named[kind].task_id)
            else:
                yield kind, "no report names any of its processes"
    if len(lost) > OUTRUN:
        yield "run", f"Airflow was first with {sorted(lost)}"
    # an operator's own, without the cluster policy, is left to its on_kill
    tied = [k for k in victims if k in CONTAINED and not (site.bare and named[k].operator)]
    there = sum(bool(victims[k]) and fate(site, act.mode, named[k]) == "dies" for k in tied)
    if contained < there * len(act.runs) and act.action.startswith("sql") and act.mode != "late":
        yield "run", f"the reports name {contained} containers of {there * len(act.runs)}"


def _wrong_report(site: Site, order: dict[str, Any], act: Act) -> Wrong:
    about = order["task_id"] or "its run"
    if len(order["outcomes"]) != 1:
        yield "run", f"{len(order['outcomes'])} reports on {about}"
        return
    # what was SIGKILLed, or died before the listener came, is not there to be found
    lone = RUNNER_ONLY | {kind.task_id for kind in KINDS if site.bare and kind.operator}
    gone = act.of_tasks and (act.mode == "late" or (act.mode == "web_only" and about in lone))
    gone = gone or (act.of_tasks and bool(_outrun(act, order["details"][0])))
    # or, without the policy, before a late listener, and leave what nothing ties to it
    gone = gone or (act.mode == "late" and site.bare and site.release == "1.10.0")
    # a late listener cannot know that what Airflow calls running was SIGKILLed with it
    missed = act.mode == "late" and order["outcomes"][0] == "not_found"
    # without the policy nothing on Airflow 3 says which index its sibling is of: it lives, and is in doubt
    doubts = {item["why"] for item in order["details"][0]["spared"] if "whose" not in item}
    doubted = site.bare and about == "mapped" and doubts == {"it does not say which map index it is"}
    # nor on 1.10.0 anything who created what `docker run -d` started: it lives, and is named
    untied = site.bare and site.release == "1.10.0" and all("may have created it" in why for why in doubts)
    doubted = doubted or (untied and bool(doubts) and about in ("its run", "docker_run"))
    if order["outcomes"][0] != "stopped" and not gone and not missed and not doubted:
        yield "run", f"the report on {about} is {order['outcomes'][0]}"
    for item in (*order["details"][0]["processes"], *order["details"][0]["containers"]):
        done = item["signals"] or item.get("noticed")
        if not (item["why"] and item["evidence"] and done and item["died_at"]):
            yield "run", f"the report on {about} says too little: {item}"


def _outrun(act: Act, detail: dict[str, Any]) -> Sequence[str]:
    """Tasks with which Airflow's own supervisor was first: the report says so."""
    clicked = act.action == "ui_task"
    first = [*detail.get("not_found", ()), *detail.get("ended_by_itself", ())]
    return first if clicked or act.mode not in ("late", "web_only") else ()


def wrong_now(site: Site, act: Act, kinds: Sequence[Kind]) -> Wrong:
    """What is not as it must stay: states, processes, containers, marks."""
    for run in act.runs:
        yield from _wrong_states(site, act, run)
        yield from _come_back(site, act, run, kinds)
        if act.mode != "web_only":
            yield from _wrong_marks(site, run)
        if act.mode == "up" and act.action.startswith("sql"):
            yield from _wrong_words(site, run)
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
    if site.airflow.generation == 1 and act.mode in ("up", "late"):
        pending.add("upstream_failed")  # a scheduler that was looking at it in that moment has the last word
    if states["never_started"] not in pending:
        yield "run", f"never_started is {states['never_started']}"
    if (state := site.airflow.run(site.dag_id, run)["state"]) != "failed":
        yield "run", f"the run is {state}"


def _come_back(site: Site, act: Act, run: str, kinds: Sequence[Kind]) -> Wrong:
    alive = {p.command[1].partition(".")[0] for p in marked(run)}
    for kind in kinds:
        if fate(site, act.mode, kind) != "dies":
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


def wrong_list(site: Site, act: Act, kinds: Sequence[Kind], said: dict[str, Any]) -> Wrong:
    """`dagstop ps` while the run runs: each task with its state and what it runs; what nothing ties to one."""
    strangers = " ".join(f"{item['what']}: {item['why']}" for item in said["not_attributable"])
    for run in act.runs:
        pids = {p.command[1].partition(".")[0]: p.pid for p in marked(run)}
        date = site.airflow.date(site.dag_id, run).isoformat()
        rows = [row for row in said["tasks"] if row["run_id"] == run or row["logical_date"] == date]
        if act.mode == "late" and site.release == "1.10.0" and site.bare:
            continue
        for kind in kinds:
            ours = [row for row in rows if row["task_id"] == kind.task_id]
            if fate(site, act.mode, kind) == "either" or (site.bare and kind.operator):
                continue
            if kind.container:
                tied = fate(site, act.mode, kind) == "dies"
                if tied and not any(row["containers"] for row in ours):
                    yield kind.name, "`dagstop ps` shows no container of it"
                continue
            listed = {process["pid"] for row in ours for process in row["processes"]}
            for sleep in kind.sleeps:
                if sleep in pids and pids[sleep] not in listed and fate(site, act.mode, kind) == "dies":
                    yield kind.name, f"`dagstop ps` does not show {sleep}"
            # an index that no sign names has no state
            # and a bystander has the ids, but not our processes
            shown = [
                row for row in ours if {process["pid"] for process in row["processes"]} & set(pids.values())
            ]
            if kind.name != "mapped" and any(row["state"] != "running" for row in shown):
                yield kind.name, f"`dagstop ps` says {shown}"
    untied = [
        c for c in site.client.containers.list(ignore_removed=True) if site.bare and _of_operator(c, act)
    ]
    for container in untied:
        if f"container {container.name} " not in strangers or "`dagstop policy`" not in strangers:
            yield "run", f"`dagstop ps` does not say why {container.name} is not attributable"


def _of_operator(container: Container, act: Act) -> bool:
    """Whether DockerOperator started it for the act's runs."""
    sleeps = [sleep for kind in KINDS if kind.operator for sleep in kind.sleeps]
    command = " ".join(container.attrs["Config"]["Cmd"] or ())
    return any(f"{sleep}.{number_of(run)}" in command for sleep in sleeps for run in act.runs)


def _wrong_words(site: Site, run: str) -> Wrong:
    """Airflow itself says who stopped it: in its audit log, and at the end of the task's own log."""
    dated = "execution_date = (SELECT execution_date FROM dag_run WHERE dag_id = log.dag_id AND run_id = %s)"
    release = environment.release(site.release)
    which = dated if release < (2, 9) else "run_id = %s"

    def said() -> list[str]:
        rows = site.airflow.query(f"SELECT extra FROM log WHERE event = 'dagstop' AND {which}", (run,))
        return [row["extra"] for row in rows if row["extra"].startswith("stopped by dagstop: ")]

    try:  # the audit log follows after a report
        wait_until(said, 20, lambda: "Airflow's audit log does not say who stopped it")
    except AssertionError as exc:
        yield "run", str(exc)
    named = site.airflow.date(site.dag_id, run).isoformat() if release < (2, 3) else run
    files = [
        path
        for path in (site.airflow.home / "logs").rglob("*.log")
        if path.relative_to(site.airflow.home).parts[-2 if release >= (2, 3) else -3].endswith("python")
        and named in str(path)
    ]
    if not any("stopped by dagstop: " in path.read_text(errors="replace") for path in files):
        yield "python", f"its log does not say who stopped it: {files}"
