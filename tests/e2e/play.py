"""Plays acts on one site: the accident, the actions, the deaths, and then quiet; remembers all of it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.e2e import evidence
from tests.e2e.actions import SCHEDULED, Act, perform
from tests.e2e.bystanders import Bystanders
from tests.e2e.kinds import Kind, kinds_of, number_of
from tests.e2e.site import Site, is_runner, marked
from tests.support.watch import DeathWatch, hold, wait_until
from tests.testbed import proc

LEFT_ALONE = "matrix_6099"  # a run of the same DAG that nobody fails
START_SECONDS = 900.0  # two cores start some two hundred Python interpreters; other work may share them
DEATH_SECONDS = 75.0
QUIET_SECONDS = 30.0


@dataclass
class Cell:
    """One kind of task under one act: `milliseconds` from the action to the last death, and what is wrong."""

    milliseconds: float | None = None
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Add what is wrong, once."""
        if what not in self.wrong:
            self.wrong.append(what)


Cells = dict[tuple[str, str, str], Cell]  # by mode, action and kind (or `run`: what is said of the whole)


class Play:
    """Acts of one or more modes on one `site`, in their order; `cells` is the result.

    `kinds`: those that the DAG has, if not all of its generation.
    """

    def __init__(self, site: Site, acts: list[Act], kinds: Sequence[Kind] | None = None) -> None:
        self.site = site
        self.acts = acts
        self.kinds = kinds or kinds_of(site.airflow.generation)
        self.cells: Cells = defaultdict(Cell)

    def run(self) -> None:
        """Everything, from an Airflow that is down to one that is quiet."""
        modes = list(dict.fromkeys(act.mode for act in self.acts))
        runs = [run for act in self.acts for run in act.runs]
        self.site.start(listener="late" not in modes)
        triggered = [run for run in (*runs, LEFT_ALONE) if run != SCHEDULED]
        self.site.airflow.trigger_many(self.site.dag_id, triggered)
        for run in (*runs, LEFT_ALONE):
            self._wait_running(run)
        for mode in modes:
            self._act([act for act in self.acts if act.mode == mode], mode)

    def _wait_running(self, run: str) -> None:
        """Until every process of the run is there and, but in mode late, known to the listener."""
        airflow = self.site.airflow
        wanted = {f"{s}.{number_of(run)}" for kind in self.kinds for s in kind.sleeps}
        mark = airflow.home / "marks" / f"{number_of(run)}-begun"

        def missing() -> set[str]:
            left = wanted - {p.command[1] for p in marked(run)}
            left |= set() if mark.exists() else {"marks"}
            return left

        def running() -> bool:
            if missing():
                return False
            states = airflow.task_states(run)
            busy = [states.get("python"), states.get("marks")] == ["running", "running"]
            return busy and states.get("already_done") == "success"

        try:
            airflow.wait_for(running, f"running {run}", START_SECONDS)
        except Exception as error:
            raise AssertionError(f"missing {missing()} {airflow.task_states(run)}\n{error}") from error
        if self.site.listening:
            sessions = {p.session for p in marked(run)} if self.site.bare else set()
            known = [p for p in proc.everyone() if self._given_up(p, run) or p.session in sessions]
            luck = [
                p
                for p in known
                if self.site.bare and self.site.release == "1.10.0" and self._given_up(p, run)
            ]
            for left_out in (*self._inits(run), *luck):
                known = [p for p in known if p.session != left_out.session]
            wait_until(lambda: {p.identity for p in known} <= self.site.remembered(), 30, lambda: f"{known}")

    @staticmethod
    def _given_up(process: proc.Process, run: str) -> bool:
        """Whether it has nothing but what the listener saw of it before."""
        return process.command[:2] == ("sleep", f"6012.{number_of(run)}")

    def _inits(self, run: str) -> list[proc.Process]:
        contained = {f"{s}.{number_of(run)}" for kind in self.kinds if kind.container for s in kind.sleeps}
        return [p for p in marked(run) if p.command[1] in contained]

    def _act(self, acts: list[Act], mode: str) -> None:
        site = self.site
        with self._bystanders(acts) as bystanders:
            for act in acts:
                for run in act.runs:
                    evidence.trouble_containers(site, run)
            site.befall(mode)
            bystanders.spare(marked(LEFT_ALONE))
            victims = {act.action: self._victims(act) for act in acts}
            if os.environ.get("MATRIX") == "full":
                listed = json.loads(site.ps())
                for act in acts:
                    for kind, what in evidence.wrong_list(site, act, self.kinds, listed):
                        self.cells[mode, act.action, kind].note(what)
            everyone = [p for of_kind in victims.values() for group in of_kind.values() for p in group]
            with DeathWatch(everyone) as watch:
                began = {act.action: perform(site, act) for act in acts}
                if mode == "late":
                    site.listen()
                self._wait_dead(watch, acts, victims)
                for act in acts:
                    self._times(act, victims[act.action], watch, began[act.action])
            for act in acts:
                self._reports(act, victims[act.action])
            for name in bystanders.harmed():
                for act in acts:
                    self.cells[mode, act.action, "run"].note(f"{name}, a bystander, is gone")
            if mode not in ("up", "late"):
                site.airflow.start_scheduler()
                # it may well start the other run again: that is Airflow's business
                bystanders.forget(marked(LEFT_ALONE))
                site.airflow.wait_ready([site.dag_id])
            hold(lambda: self._look(acts, bystanders), QUIET_SECONDS)

    @contextlib.contextmanager
    def _bystanders(self, acts: list[Act]) -> Iterator[Bystanders]:
        bystanders = Bystanders()
        try:
            for act in acts:
                bystanders.add(self.site, act.runs[0])
            yield bystanders
        finally:
            bystanders.end()

    def _victims(self, act: Act) -> dict[str, list[proc.Process]]:
        """What must die, by kind: the sessions of its marked processes, and its task's runner."""
        found: dict[str, list[proc.Process]] = {}
        everyone = [p for p in proc.everyone() if p.state != "Z"]
        for kind in self.kinds:
            group: dict[tuple[int, int], proc.Process] = {}
            for run in act.runs:
                sleeps = [*kind.sleeps, *(["6014"] if kind.name == "mapped" and not act.of_tasks else [])]
                names = {f"{sleep}.{number_of(run)}" for sleep in sleeps}
                sessions = {p.session for p in marked(run) if p.command[1] in names}
                runners = self._runners(run, kind, everyone, one=act.of_tasks)
                group |= {p.identity: p for p in everyone if p.session in sessions or p in runners}
            found[kind.name] = list(group.values())
        return found

    def _runners(
        self, run: str, kind: Kind, everyone: list[proc.Process], *, one: bool
    ) -> list[proc.Process]:
        rows = [row for row in self.site.airflow.task_rows(run) if row["task_id"] == kind.task_id]
        if one and kind.name == "mapped":
            rows = [row for row in rows if row["map_index"] == 0]
        pids = {row["pid"] for row in rows}
        keys = {str(row["id"]) for row in rows} if self.site.airflow.generation == 3 else self.site.keys(run)
        found = []
        for process in filter(is_runner, everyone):
            words = set(" ".join(process.command).split())
            named = bool(keys & words) and (self.site.airflow.generation == 3 or kind.task_id in words)
            # titles of 2.x name no map index, but the row has the runner's pid
            if named and (kind.name != "mapped" or self.site.airflow.generation == 3 or process.pid in pids):
                found.append(process)
        return found

    def _spared(self, mode: str, kind: str, group: list[proc.Process]) -> list[proc.Process]:
        """Those of a kind's processes that need not die, or must not."""
        (named,) = [k for k in self.kinds if k.name == kind]
        mortal = evidence.fate(self.site, mode, named) == "dies"
        return [] if mortal else [p for p in group if evidence.own(named, p)]

    def _wait_dead(
        self, watch: DeathWatch, acts: list[Act], victims: dict[str, dict[str, list[proc.Process]]]
    ) -> None:
        end = time.monotonic() + DEATH_SECONDS
        mode = acts[0].mode
        spared = {
            p.identity
            for of_kind in victims.values()
            for kind, group in of_kind.items()
            for p in self._spared(mode, kind, group)
        }

        def over() -> bool:
            done = spared.issuperset(p.identity for p in watch.alive())
            done = done and all(self.site.reported(run) for act in acts for run in act.runs)
            return done or time.monotonic() > end

        wait_until(over, DEATH_SECONDS + 10, self.site.listener_log)

    def _times(
        self, act: Act, victims: dict[str, list[proc.Process]], watch: DeathWatch, began: float
    ) -> None:
        alive = {p.identity for p in watch.alive()}
        for kind, group in victims.items():
            cell = self.cells[act.mode, act.action, kind]
            spared = self._spared(act.mode, kind, group)
            (named,) = [k for k in self.kinds if k.name == kind]
            must_live = spared if evidence.fate(self.site, act.mode, named) == "lives" else []
            for process in group:
                lives = process.identity in alive
                if lives and process not in spared:
                    cell.note(f"pid {process.pid} {' '.join(process.command)[:80]!r} lives")
                elif process in must_live and not lives:
                    cell.note(f"pid {process.pid} was killed on a guess")
            dying = [p for p in group if p not in spared]
            if dying and not cell.wrong:
                cell.milliseconds = 1000 * (watch.last(dying) - began)

    def _reports(self, act: Act, victims: dict[str, list[proc.Process]]) -> None:
        for kind, what in evidence.wrong_reports(self.site, act, victims):
            self.cells[act.mode, act.action, kind].note(what)

    def _look(self, acts: list[Act], bystanders: Bystanders) -> None:
        """One look while all must stay as it is."""
        for act in acts:
            for kind, what in evidence.wrong_now(self.site, act, self.kinds):
                self.cells[act.mode, act.action, kind].note(what)
            for name in bystanders.harmed():
                self.cells[act.mode, act.action, "run"].note(f"{name}, a bystander, is gone")
