"""The ratios as a drawing: SVG that is readable on light and on dark pages."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from benchmarks.report import NAMES
from benchmarks.targets import target_of

if TYPE_CHECKING:
    from benchmarks.measuring import Result

WIDTH, LABELS, ROW, TOP = 960, 430, 20, 64
LOW, HIGH = 0.5, 8.0  # of the ratios drawn, on a logarithmic scale
TICKS = (0.5, 1, 1.5, 2, 3, 4, 6, 8)
STYLE = """
    text { font: 12px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600; font-size: 14px }
    .grid { stroke: #d0d7de }
    .raw { stroke: #57606a; stroke-width: 1.5 }
    .bar { fill: #2f7ed8 }
    .span { stroke: #1f2328; stroke-width: 1.5 }
    .target { stroke: #cf5b00; stroke-width: 3 }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 }
        .grid { stroke: #30363d }
        .raw { stroke: #9198a1 }
        .bar { fill: #4c9aff }
        .span { stroke: #e6edf3 }
        .target { stroke: #ffa657 }
    }
"""


def as_svg(results: list[Result]) -> str:
    """Return a bar for each workload that has a raw side: its ratio, the span of its runs, and its target."""
    drawn = [result for result in results if result.times() is not None]
    databases = list(dict.fromkeys(result.database for result in drawn))
    height = TOP + ROW * (len(drawn) + 2 * len(databases)) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Time as a multiple of the raw driver's</title>",
        f"<style>{STYLE}</style>",
        '<text class="title" x="10" y="20">Time as a multiple of the raw driver\'s; orange: the target</text>',
    ]
    for tick in TICKS:
        kind = "raw" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{_x(tick)}" x2="{_x(tick)}" y1="{TOP - 10}" y2="{height - 10}"/>')
        parts.append(f'<text x="{_x(tick)}" y="{TOP - 16}" text-anchor="middle">{tick:g}</text>')
    y = TOP
    for database in databases:
        y += ROW
        parts.append(f'<text class="title" x="10" y="{y}">{NAMES[database]}</text>')
        for result in (each for each in drawn if each.database == database):
            y += ROW
            parts += _bar(result, y)
        y += ROW
    return "\n".join([*parts, "</svg>", ""])


def _bar(result: Result, y: int) -> list[str]:
    ratio = result.times() or 1.0
    low, high = (each / result.microseconds("raw") for each in result.spread("library"))
    left, right = sorted((_x(1), _x(ratio)))
    parts = [
        f'<text x="{LABELS - 10}" y="{y}" text-anchor="end">{escape(result.name)}</text>',
        f'<rect class="bar" x="{left}" y="{y - 11}" width="{max(2.0, right - left):.1f}" height="13"/>',
        f'<line class="span" x1="{_x(low)}" x2="{_x(high)}" y1="{y - 4.5}" y2="{y - 4.5}"/>',
        f'<text x="{WIDTH - 10}" y="{y}" text-anchor="end">{ratio:.2f}</text>',
    ]
    limit = target_of(result).ratio
    if limit is not None:
        parts.append(f'<line class="target" x1="{_x(limit)}" x2="{_x(limit)}" y1="{y - 13}" y2="{y + 4}"/>')
    return parts


def _x(ratio: float) -> float:
    """Return where a ratio stands; beyond the scale, at its end."""
    share = math.log(min(max(ratio, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
    return round(LABELS + share * (WIDTH - LABELS - 70), 1)
