"""/metrics: every metric stands once in METRICS, from which the reference in docs/page.md is made too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from dagstop.page.facts import Here, Snapshot, hanging
from dagstop.report.counters import BUCKETS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Described:
    """One metric: its kind, what it means, the labels it has."""

    kind: type[Metric]
    means: str
    labels: tuple[str, ...] = ()


G, C, H = GaugeMetricFamily, CounterMetricFamily, HistogramMetricFamily
METRICS = {
    "dagstop_page": Described(InfoMetricFamily, "The page's version of dagstop, and its host."),
    "dagstop_database_up": Described(
        G, "1 if the database answered this scrape; if it did not, the metrics below are missing."
    ),
    "dagstop_able_to_stop": Described(G, "1 if no check of the database, triggers and listeners is red."),
    "dagstop_trigger_installed": Described(
        G, "1 if a trigger on Airflow's tables is in place, enabled and up to date.", ("table", "trigger")
    ),
    "dagstop_faults": Described(G, "Errors inside dagstop's triggers, recorded in the last 24 hours."),
    "dagstop_orders": Described(G, "Orders written in the last 24 hours, by kind: run or task.", ("kind",)),
    "dagstop_refused_writes": Described(
        G,
        "Writes to stopped runs and task instances that the fence refused, for orders of the last 24 hours.",
    ),
    "dagstop_open_orders": Described(G, "Orders that some host has yet to carry out."),
    "dagstop_oldest_open_order_seconds": Described(G, "Age of the oldest open order; 0 if there is none."),
    "dagstop_tasks_without_listener": Described(
        G, "Tasks that run, according to Airflow, on a host without a listener.", ("host",)
    ),
    "dagstop_listener": Described(
        G,
        "Always 1: a listener's version, and whether it is listening or polling.",
        ("host", "version", "notices"),
    ),
    "dagstop_listener_up": Described(
        G, "1 if a listener's heartbeat is recent and its main loop is progressing.", ("host",)
    ),
    "dagstop_listener_seen_seconds": Described(G, "Seconds since a listener's last heartbeat.", ("host",)),
    "dagstop_listener_start_time_seconds": Described(G, "When a listener started, as Unix time.", ("host",)),
    "dagstop_listener_watched_processes": Described(
        G, "Task processes that a listener knows now.", ("host",)
    ),
    "dagstop_listener_orders_under_way": Described(G, "Orders that a listener works on now.", ("host",)),
    "dagstop_listener_reconnects": Described(
        C, "Connections to the database that a listener lost since its start.", ("host",)
    ),
    "dagstop_listener_told_of_forks": Described(
        G, "1 if the kernel tells a listener of each fork; 0 if it only looks at intervals.", ("host",)
    ),
    "dagstop_listener_lost_events": Described(
        C, "Process events that did not fit into a listener's queue since its start.", ("host",)
    ),
    "dagstop_orders_done": Described(
        C, "Orders that ended on a host since its listener's start, by outcome.", ("host", "outcome")
    ),
    "dagstop_first_signal_seconds": Described(
        H, "From the commit of the failed state to the first signal on a host.", ("host",)
    ),
    "dagstop_last_death_seconds": Described(
        H, "From the commit of the failed state to the last death seen on a host.", ("host",)
    ),
}
TYPES = {G: "gauge", C: "counter", H: "histogram", InfoMetricFamily: "info"}
_SUFFIX = {C: "_total", InfoMetricFamily: "_info"}


def exposition(here: Here, snapshot: Snapshot | None) -> bytes:
    """The text of /metrics; without a snapshot the database did not answer."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(here, snapshot))
    return generate_latest(registry)


def reference() -> str:
    """The metrics as a Markdown table."""
    lines = ["| metric | type | labels | means |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        full = name + _SUFFIX.get(metric.kind, "")
        lines.append(f"| `{full}` | {TYPES[metric.kind]} | {labels} | {metric.means} |")
    return "\n".join(lines) + "\n"


class _Snapshot(Collector):
    """Everything is built at each scrape; nothing is counted here, so pages on several hosts agree."""

    def __init__(self, here: Here, snapshot: Snapshot | None) -> None:
        self._here = here
        self._snapshot = snapshot
        self._families: dict[str, Any] = {}

    def collect(self) -> Iterator[Metric]:
        self._families = {}
        page = self._family("dagstop_page")
        page.add_metric((), {"version": self._here.version, "host": self._here.host})
        self._add("dagstop_database_up", self._snapshot is not None)
        if self._snapshot is not None:
            self._add_database(self._snapshot)
            for row in self._snapshot.listeners:
                if not row["gone"]:
                    self._add_listener(row, self._snapshot)
        yield from self._families.values()

    def _family(self, name: str) -> Any:
        if name not in self._families:
            metric = METRICS[name]
            kind: Any = metric.kind
            self._families[name] = kind(name, metric.means, labels=metric.labels or None)
        return self._families[name]

    def _add(self, name: str, value: float | None, *labels: str) -> None:
        self._family(name).add_metric(labels, float(value or 0))

    def _add_database(self, now: Snapshot) -> None:
        numbers = now.numbers
        self._add("dagstop_able_to_stop", now.able)
        for row in now.triggers:
            good = row["status"] == "installed"
            self._add("dagstop_trigger_installed", good, row["table_name"], row["trigger_name"])
        self._add("dagstop_faults", numbers["faults"])
        self._add("dagstop_orders", numbers["run_orders"], "run")
        self._add("dagstop_orders", numbers["task_orders"], "task")
        self._add("dagstop_refused_writes", numbers["refused_writes"])
        self._add("dagstop_open_orders", numbers["open_orders"])
        self._add("dagstop_oldest_open_order_seconds", numbers["oldest_open_seconds"])
        self._family("dagstop_tasks_without_listener")
        for row in now.uncovered:
            self._add("dagstop_tasks_without_listener", row["tasks"], row["hostname"])

    def _add_listener(self, row: dict[str, Any], now: Snapshot) -> None:
        host, detail = row["host"], row["detail"]
        self._add("dagstop_listener", 1, host, row["version"], str(detail.get("notices", "")))
        self._add("dagstop_listener_up", row["live"] and not hanging(row), host)
        self._add("dagstop_listener_seen_seconds", (now.now - row["seen_at"]).total_seconds(), host)
        self._add("dagstop_listener_start_time_seconds", row["started_at"].timestamp(), host)
        self._add("dagstop_listener_watched_processes", detail.get("watched"), host)
        self._add("dagstop_listener_orders_under_way", detail.get("under_way"), host)
        self._add("dagstop_listener_reconnects", detail.get("reconnects"), host)
        if (told := detail.get("process_events")) is not None:
            self._add("dagstop_listener_told_of_forks", told.get("told"), host)
            self._add("dagstop_listener_lost_events", told.get("lost"), host)
        counters = detail.get("tally")
        if counters is None:
            return  # a listener of an earlier version
        for outcome, count in sorted(counters["outcomes"].items()):
            self._add("dagstop_orders_done", count, host, outcome)
        for name in ("first_signal", "last_death"):
            times = counters[name]
            bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
            if len(times["counts"]) != len(bounds):
                continue  # another version's buckets
            buckets = list(zip(bounds, map(float, accumulate(times["counts"])), strict=True))
            self._family(f"dagstop_{name}_seconds").add_metric((host,), buckets, sum_value=times["sum"])
