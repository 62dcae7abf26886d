"""/metrics: what is described is what is served; the dashboard and the alerts name nothing else."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dagstop.model import Outcome
from dagstop.page import metrics
from dagstop.page.facts import Here, Snapshot
from dagstop.report.counters import BUCKETS, Counters
from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.support.page import look

ROOT = Path(__file__).parents[3]
HERE = Here("worker-1", "0.1.0", "")
ALERTS = (files("dagstop.page") / "alerts.yml").read_text(encoding="utf-8")
DASHBOARD = json.loads((files("dagstop.page") / "grafana.json").read_text(encoding="utf-8"))


def samples(snapshot: Snapshot | None) -> dict[tuple[str, ...], float]:
    """(name, value of each label in order of the labels' names) -> value."""
    text = metrics.exposition(HERE, snapshot).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def served(airflow_db: AirflowDatabase) -> dict[tuple[str, ...], float]:
    busy.busy_day(airflow_db)
    airflow_db.add_running("run")
    return samples(look(airflow_db))


@one_server
@shape_2
def test_every_metric_is_served_with_its_value(served: dict[tuple[str, ...], float]) -> None:
    names = {key[0] for key in served}
    for name, metric in metrics.METRICS.items():
        suffixes = {
            "gauge": [""],
            "counter": ["_total"],
            "info": ["_info"],
            "histogram": ["_bucket", "_sum", "_count"],
        }
        for suffix in suffixes[metrics.TYPES[metric.kind]]:
            assert name + suffix in names
            names.remove(name + suffix)
    assert not names
    for key, value in {
        ("dagstop_database_up",): 1, ("dagstop_able_to_stop",): 0, ("dagstop_orders", "run"): 13,
        ("dagstop_orders", "task"): 1, ("dagstop_refused_writes",): 2, ("dagstop_open_orders",): 1,
        ("dagstop_tasks_without_listener", "worker"): 1, ("dagstop_listener_up", "worker-1"): 1,
        ("dagstop_listener_up", "worker-7"): 0, ("dagstop_listener_reconnects_total", "worker-6"): 4,
        ("dagstop_listener_told_of_forks", "worker-1"): 1, ("dagstop_listener_told_of_forks", "worker-6"): 0,
        ("dagstop_listener_lost_events_total", "worker-7"): 12,
        ("dagstop_orders_done_total", "worker-2", "stopped"): 40,
        ("dagstop_trigger_installed", "dag_run", "dagstop_order"): 1,
        ("dagstop_last_death_seconds_bucket", "worker-1", "0.01"): 7,
        ("dagstop_last_death_seconds_bucket", "worker-1", "+Inf"): 41,
    }.items():  # fmt: skip
        assert served[key] == value, key
    assert 3900 < served["dagstop_listener_seen_seconds", "worker-7"] < 6000


@one_server
@shape_2
def test_hostile_names_are_labels_and_nothing_else(airflow_db: AirflowDatabase) -> None:
    busy.hostile_day(airflow_db)
    served = samples(look(airflow_db))
    assert {key[1] for key in served if key[0] == "dagstop_listener_up"} == set(busy.HOSTILE)


def test_without_a_database_it_says_so() -> None:
    assert samples(None) == {("dagstop_page_info", "worker-1", "0.1.0"): 1, ("dagstop_database_up",): 0}


@one_server
@shape_2
def test_dashboard_and_alerts_name_only_what_is_served(served: dict[tuple[str, ...], float]) -> None:
    names = {key[0] for key in served}
    alerts = re.findall(r"^ +- alert: (\w+)\n(?:.*\n)*? +expr: (.+)", ALERTS, re.MULTILINE)
    assert len(alerts) == ALERTS.count("alert:") == 4
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert len(targets) > 12
    for expression in [*targets, *(expression for _, expression in alerts)]:
        named = set(re.findall(r"dagstop_\w+", expression))
        assert named and named <= names, expression
        assert expression.count("(") == expression.count(")")
    used = {name for expression in targets for name in re.findall(r"dagstop_\w+", expression)}
    words = " ".join(expression for _, expression in alerts)
    outcomes = {outcome for some in re.findall(r'outcome=~?"([\w|]+)"', words) for outcome in some.split("|")}
    assert outcomes <= {outcome.value for outcome in Outcome} and len(used) > 10


def test_the_reference_in_the_documentation_is_this_codes() -> None:
    text = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    assert metrics.reference() in text, f"put this into docs/page.md:\n\n{metrics.reference()}"


def test_a_tally_counts_each_order_once_in_its_bucket() -> None:
    counters = Counters()
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for seconds in (0.005, 0.006, 61.0, -1.0):
        counters.done("stopped", start, start, start + timedelta(seconds=seconds))
    counters.done("nothing_found", start, None, None)
    facts = json.loads(json.dumps(counters.facts()))
    assert facts["outcomes"] == {
        **{outcome.value: 0 for outcome in Outcome},
        "stopped": 4,
        "nothing_found": 1,
    }
    assert facts["first_signal"] == {"counts": [4] + [0] * len(BUCKETS), "sum": 0}
    assert facts["last_death"]["counts"] == [2, 1] + [0] * (len(BUCKETS) - 2) + [1]
    assert facts["last_death"]["sum"] == pytest.approx(61.011)
