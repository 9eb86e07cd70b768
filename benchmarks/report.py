"""The figures as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workload import LIBRARY, RAW

if TYPE_CHECKING:
    from benchmarks.measuring import Result


def as_text(results: list[Result]) -> str:
    """Return a table for the terminal: microseconds an operation, with the shortest and longest run."""
    lines = []
    for database in dict.fromkeys(result.database for result in results):
        lines += ["", f"{database}: microseconds an operation, median (shortest..longest run)"]
        for result in (each for each in results if each.database == database):
            sides = "  ".join(f"{side} {_span(result, side)}" for side in result.seconds)
            ratio = result.times()
            beside = "" if ratio is None else f"  ratio {ratio:.2f}, {result.added:+.0f} us"
            others = [side for side in result.seconds if side not in {LIBRARY, RAW}]
            faster = "".join(f", {result.times(LIBRARY, side):.2f} times {side}" for side in others)
            lines += [f"{result.name:<58}{beside}{faster}", f"    {sides}"]
            lines += [f"    {remark}" for remark in result.remarks]
    return "\n".join(lines)


def _span(result: Result, side: str) -> str:
    low, high = result.spread(side)
    return f"{result.microseconds(side):.1f} ({low:.1f}..{high:.1f})"
