"""Processes and containers that look like a stopped run, or mention it, and must survive."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, field

from docker.models.containers import Container

from tests.e2e.kinds import number_of
from tests.e2e.site import Site
from tests.support.watch import wait_until
from tests.testbed import proc
from tests.testbed.docker_engine import IMAGE

OTHER_HOME = "/srv/other-airflow"
# of its own prefix: the site's own `marked` must not count them
NAMESPACE, FOREIGN, MENTION, WORDS, CONTAINED = "7001", "7002", "7003", "7004", "7005"


@dataclass
class Bystanders:
    """Those of one or more runs, by identity."""

    processes: set[tuple[int, int]] = field(default_factory=set)
    containers: list[Container] = field(default_factory=list)
    _popen: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, site: Site, run_id: str) -> None:
        """Start the bystanders of a run."""
        tags = {
            "AIRFLOW_CTX_DAG_ID": site.dag_id,
            "AIRFLOW_CTX_TASK_ID": "tree",
            "AIRFLOW_CTX_DAG_RUN_ID": run_id,
            f"AIRFLOW_CTX_{'LOGICAL' if site.airflow.generation == 3 else 'EXECUTION'}_DATE": (
                site.airflow.date(site.dag_id, run_id).isoformat()
            ),
            "AIRFLOW_CTX_TRY_NUMBER": "1",
        }
        url = "postgresql+psycopg2://u:p@db.example.org/other"
        foreign = {
            "AIRFLOW_HOME": OTHER_HOME,
            "DAGSTOP_AIRFLOW_HOME": OTHER_HOME,
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        }
        home = {"AIRFLOW_HOME": str(site.airflow.home)}
        path = {"PATH": os.environ["PATH"]}
        number = number_of(run_id)
        # another Airflow in a container: the same ids, the same AIRFLOW_HOME, other namespaces and database
        inside = [f"{name}={value}" for name, value in {**foreign, **home, **tags}.items()]
        container = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "env", *inside]
        mention = " ".join(f"{name}={value}" for name, value in tags.items())
        words = f"sleep {WORDS}.{number}; : airflow run {site.dag_id} tree {run_id}"
        started = []
        for command, env in (
            ([*container, "sleep", f"{NAMESPACE}.{number}"], path),
            (["sleep", f"{FOREIGN}.{number}"], {**path, **foreign, **tags}),
            (["sleep", f"{MENTION}.{number}"], {**path, **home, "NOTE": mention}),
            (["sh", "-c", words], path),
        ):
            started.append(subprocess.Popen(command, env=env, start_new_session=True))
        self._popen += started
        sleeps = [f"{kind}.{number}" for kind in (NAMESPACE, FOREIGN, MENTION, WORDS)]

        def all_there() -> bool:
            alive = {p.command[1] for p in proc.everyone() if p.command[0] == "sleep" and p.command[1:]}
            return alive.issuperset(sleeps)

        wait_until(all_there, 10, lambda: "a bystander does not start")
        family = proc.descendants({p.pid for p in started}, {p.pid for p in started})
        self.processes |= {p.identity for p in family}
        for env in ({**tags, **foreign}, {**tags, "AIRFLOW_CTX_DAG_ID": "another"}, {}):
            contained = site.client.containers.run(
                IMAGE, ["sleep", CONTAINED], network_mode="none", detach=True, environment=env
            )
            contained.reload()
            self.containers.append(contained)

    def spare(self, processes: Collection[proc.Process]) -> None:
        """Count `processes` in."""
        self.processes |= {p.identity for p in processes}

    def forget(self, processes: Collection[proc.Process]) -> None:
        """Count `processes` in no longer."""
        self.processes -= {p.identity for p in processes}

    def harmed(self) -> list[str]:
        """Those that died or were replaced."""
        now = {p.identity for p in proc.everyone() if p.state != "Z"}
        gone = [f"process {pid}" for pid, _ in sorted(self.processes - now)]
        for container in self.containers:
            before = container.attrs["State"]["Pid"]
            container.reload()
            if container.status != "running" or container.attrs["State"]["Pid"] != before:
                gone.append(f"container {container.name}")
        return gone

    def end(self) -> None:
        """Remove what was started here."""
        for process in self._popen:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # its own session
            except ProcessLookupError:
                pass
            process.wait()
        for container in self.containers:
            container.remove(force=True)
