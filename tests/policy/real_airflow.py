"""Run real_airflow_probe.py in a real Airflow's Python and hold its answer against what must be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dagstop import policy

HERE = Path(__file__).parent
ONCE = {"bash", "bash_own_env", "python", "docker", "docker_subclass", "by_hand", "swarm"}
NEWER = {"task_docker", "mapped_bash", "mapped_docker", "external_python", "deferring"}
NO_SWARM = "1.10.0"


def probe(python: Path, home: Path, timeout: float = 300) -> dict[str, Any]:
    """Run the probe with the Airflow of `python`, for at most `timeout` seconds; `home` is empty.

    Raises subprocess.CalledProcessError with the probe's output if it fails.
    """
    policy_file = home.with_suffix(".policy.py")
    policy_file.write_text(policy.text(), encoding="utf-8")
    command = [python, "-B", HERE / "real_airflow_probe.py", policy_file, home]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, command, done.stdout[-5000:], done.stderr[-5000:]
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def problems(answer: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a probe's answer, one sentence each; empty when the policy works."""
    found = list(_wrong_tags(answer))
    for name in ("environ_restored", "pickles", "hooks_keep_names"):
        if not answer[name]:
            found.append(f"{name} is false")
    if answer["hash_unchanged"] is False:
        found.append("the policy changes the hash of the DAG")
    found += [f"the policy warned: {line}" for line in answer["log"]]
    for task_id, states in answer["states"].items():
        if {state.rsplit(".")[-1].lower() for state in states} != {"success"}:
            found.append(f"task {task_id} ended {states}")
    return found


def _wrong_tags(answer: Mapping[str, Any]) -> Iterator[str]:
    seen: dict[str, list[dict[str, str]]] = {}
    for name, environment in answer["children"].items():
        seen.setdefault(name.rpartition("-")[0].rstrip("-"), []).append(environment)
    for name, asked in answer["containers"].items():
        for container in asked:
            seen.setdefault(name, []).append(container["environment"])
            takes_labels = answer["airflow"][0] != "1" and name != "swarm"
            if takes_labels:
                seen[name].append(container["labels"])
    wanted = ONCE | NEWER if answer["airflow"][0] != "1" else ONCE
    wanted = wanted - {"swarm"} if answer["airflow"] == NO_SWARM else wanted
    if missing := wanted - seen.keys():
        yield f"nothing was seen of {sorted(missing)}"
    for name, mappings in seen.items():
        task_id = "python" if name == "by_hand" else name
        if name.startswith("mapped_"):
            indexes = {mapping.get("AIRFLOW_CTX_MAP_INDEX") for mapping in mappings}
            if indexes != {"0", "1"}:
                yield f"{name} has the map indexes {indexes}"
        for mapping in mappings:
            yield from _wrong_mapping(name, mapping, expected(answer, task_id, mapping))


def expected(answer: Mapping[str, Any], task_id: str, mapping: Mapping[str, str]) -> dict[str, str]:
    """The tags of a task's only attempt. A run id and a map index that vary are taken as seen."""
    three = answer["airflow"][0] not in "12"
    date = "AIRFLOW_CTX_LOGICAL_DATE" if three else "AIRFLOW_CTX_EXECUTION_DATE"
    mapped = task_id.startswith("mapped_")
    return {
        "AIRFLOW_CTX_DAG_ID": "probe",
        "AIRFLOW_CTX_TASK_ID": task_id,
        date: "2020-01-02T00:00:00+00:00",
        "AIRFLOW_CTX_DAG_RUN_ID": mapping.get("AIRFLOW_CTX_DAG_RUN_ID") or "some run id",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "AIRFLOW_CTX_MAP_INDEX": mapping.get("AIRFLOW_CTX_MAP_INDEX", "0") if mapped else "-1",
        "DAGSTOP_AIRFLOW_HOME": answer["home"],
        "DAGSTOP_POLICY": str(policy.version(policy.text())),
        **_of_the_try(answer, task_id, mapping),
    }


def _of_the_try(answer: Mapping[str, Any], task_id: str, mapping: Mapping[str, str]) -> dict[str, str]:
    """What the probe's database has of it: there are no jobs, since no executor ran the tasks."""
    rows = answer["tries"][task_id]
    row = rows[mapping.get("AIRFLOW_CTX_MAP_INDEX", "-1") if task_id.startswith("mapped_") else "-1"]
    return {f"DAGSTOP_{name.upper()}": str(value) for name, value in row.items() if value}


def _wrong_mapping(name: str, mapping: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    for key, value in wanted.items():
        if mapping.get(key) != value:
            yield f"{name}: {key} is {mapping.get(key)!r}, not {value!r}"
    kept = {"docker": {"USER_KEY": "kept"}, "docker_subclass": {"OWN": "1"}}.get(name, {})
    for key, value in kept.items():
        if "team" not in mapping and mapping.get(key) != value:
            yield f"{name}: the user's own {key} is gone"
