"""Growth curves as an SVG written by hand: log-log, so that linear growth is a line of slope one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tests.bench.table import Curve

WIDTH, HEIGHT, EDGE = 460, 300, 58
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


def svg(curves: Sequence[Curve]) -> str:
    """One picture, a panel for each curve, two in a row."""
    rows = (len(curves) + 1) // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{rows * HEIGHT}"'
        ' font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, curve in enumerate(curves):
        parts.append(f'<g transform="translate({number % 2 * WIDTH},{number // 2 * HEIGHT})">')
        parts += _panel(curve)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panel(curve: Curve) -> list[str]:
    points = [p for series in curve.series.values() for p in series if min(p) > 0]
    if not points:
        return []
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points) / 1.3, max(y for _, y in points) * 1.3

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / left) / math.log(right / left) if right > left else 0.5
        up = math.log(y / low) / math.log(high / low)
        return EDGE + across * (WIDTH - EDGE - 130), HEIGHT - 40 - up * (HEIGHT - 75)

    parts = [f'<text x="{EDGE}" y="18" font-weight="bold">{escape(curve.title)}</text>']
    parts.append(f'<text x="{EDGE}" y="{HEIGHT - 8}">{escape(curve.x)}; {escape(curve.y)} upwards</text>')
    for x in sorted({x for x, _ in points}):
        across, _ = place(x, low)
        parts.append(f'<text x="{across:.0f}" y="{HEIGHT - 24}" text-anchor="middle">{x:g}</text>')
        parts.append(f'<path d="M{across:.0f} {HEIGHT - 40}V35" stroke="#eee"/>')
    for y in (low * 1.3, math.sqrt(low * high), high / 1.3):
        _, up = place(left, y)
        parts.append(f'<text x="{EDGE - 6}" y="{up:.0f}" text-anchor="end">{y:.3g}</text>')
        parts.append(f'<path d="M{EDGE} {up:.0f}H{WIDTH - 130}" stroke="#eee"/>')
    labels: list[tuple[float, float, str, str]] = []
    for (name, series), colour in zip(curve.series.items(), COLOURS * 2, strict=False):
        drawn = [place(x, y) for x, y in series if x > 0 and y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in drawn]
        if drawn:
            labels.append((drawn[-1][1], drawn[-1][0], name, colour))
    lowest = 0.0
    for y, x, name, colour in sorted(labels):
        lowest = max(y, lowest + 12)  # names of lines that end close together would cover each other
        parts.append(f'<text x="{x + 6:.0f}" y="{lowest + 4:.0f}" fill="{colour}">{escape(name)}</text>')
    return parts
