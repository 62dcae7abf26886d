"""The result of a benchmark: rows with their bars, growth curves, profiles; printed, and written as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One measurement; `baseline` is of the same run, since absolute times wander."""

    what: str
    baseline_name: str
    baseline: float | None
    dagstop: float
    unit: str
    bar: str
    met: bool | None = None  # None: there is no bar, or it is not for this row
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.dagstop / self.baseline if self.baseline else None


@dataclass
class Curve:
    """Values by size; several series share one plot."""

    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]


@dataclass
class Found:
    """All that one subject found."""

    subject: str
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    profile: list[tuple[str, float, float]] = field(default_factory=list)  # stage, at ms, took ms

    def write(self, folder: Path) -> None:
        facts = asdict(self)
        for row, shown in zip(self.rows, facts["rows"], strict=True):
            shown["ratio"] = row.ratio
        (folder / f"{self.subject}.json").write_text(json.dumps(facts, indent=1) + "\n")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def show(found: Sequence[Found]) -> str:
    """The table, and below it the profiles."""
    heads = ("what", "baseline", "dagstop", "ratio", "bar", "met")
    lines = [heads]
    for one in found:
        for row in one.rows:
            base = "-" if row.baseline is None else f"{row.baseline_name} {_number(row.baseline)} {row.unit}"
            ratio = (
                "-" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.2g}"
            )
            met = "" if row.met is None else "yes" if row.met else "NO"
            value = f"{_number(row.dagstop)} {row.unit}"
            lines.append((row.what, base, value, ratio, row.bar, met))
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    text += [f"* {row.what}: {row.note}" for one in found for row in one.rows if row.note]
    for one in found:
        if one.profile:
            text += ["", f"{one.subject}: where the milliseconds go (medians, from the commit on)"]
            text += [f"  {at:8.2f} ms  +{took:6.2f}  {stage}" for stage, at, took in one.profile]
        for curve in one.curves:
            text += ["", f"{curve.title} ({curve.y} by {curve.x})"]
            for name, points in curve.series.items():
                text.append(f"  {name:<36}" + "".join(f"  {x:g}: {_number(y)}" for x, y in points))
    return "\n".join(text)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
