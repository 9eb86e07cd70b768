"""The figures as text: for the terminal, and as the table of docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import HOW_TO_INSTALL, missing
from benchmarks.targets import others, shown
from benchmarks.workload import LIBRARY, RAW

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measuring import Result

FIGURES = ("<!-- figures: written by make bench -->", "<!-- end of the figures -->")
GROWTH = ("<!-- growth: written by make bench-growth -->", "<!-- end of the growth -->")
NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
CLIENT = ("cpu", "cores", "kernel", "python", "sqlalchemy", "asyncpg", "aiosqlite", "sqlite", "pydantic")
PEERS = ("procrastinate", "pgqueuer", "eventsourcing", "psycopg")
SERVER = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers",
    "autovacuum",
)  # fmt: skip


def as_text(results: list[Result]) -> str:
    """Return a table for the terminal: microseconds an operation, with the shortest and longest run."""
    lines = []
    for database in dict.fromkeys(result.database for result in results):
        lines += ["", f"{NAMES[database]}: microseconds an operation, median (shortest..longest run)"]
        for result in (each for each in results if each.database == database):
            sides = "  ".join(f"{side} {_span(result, side)}" for side in result.seconds)
            ratio = result.times()
            beside = "" if ratio is None else f"  ratio {ratio:.2f}, {result.added:+.0f} us"
            faster = "".join(f", {result.times(LIBRARY, side):.2f} times {side}" for side in others(result))
            target = shown(result)
            lines += [f"{result.name:<58}{beside}{faster}" + (f"  [{target}]" if target else ""), f"    {sides}"]
            lines += [f"    {remark}" for remark in result.remarks]
    return "\n".join(lines)


def as_markdown(facts: dict[str, str], results: list[Result]) -> str:
    """Return the facts and a table for each database."""
    lines = [
        f"Client: {_facts(facts, CLIENT)}.",
        f"Server: {_facts(facts, SERVER)}.",
        f"Peers: {_facts(facts, PEERS)}. {facts['pinned']} {facts['run']}",
    ]
    if missing():
        lines.append(f"Not installed, and so left out: {', '.join(missing())}; `{HOW_TO_INSTALL}` installs them.")
    for database in dict.fromkeys(result.database for result in results):
        lines += [
            "",
            f"### {NAMES[database]}",
            "",
            "| workload | library, µs | raw driver, µs | ratio | added, µs | beside others | target |",
            "|---|--:|--:|--:|--:|---|---|",
        ]
        lines += [_row(result) for result in results if result.database == database]
        remarks = [f"{each.name}: {text}" for each in results if each.database == database for text in each.remarks]
        lines += ["", *(f"- {remark}" for remark in remarks)] if remarks else []
        lines += ["", "What the raw side does:", ""]
        compared: dict[str, list[str]] = {}
        for result in (each for each in results if each.database == database):
            compared.setdefault(result.compared, []).append(result.name)
        lines += [f"- {'; '.join(names)} - {text}." for text, names in compared.items()]
    return "\n".join(lines)


def write_page(page: Path, text: str, markers: tuple[str, str] = FIGURES) -> None:
    """Replace what stands between two markers of a page."""
    begin, end = markers
    before, _, rest = page.read_text().partition(begin)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def _row(result: Result) -> str:
    ratio, added = result.times(), result.added
    beside = ", ".join(
        f"{result.times(LIBRARY, side):.2f} times as fast as {side} ({_span(result, side)})" for side in others(result)
    )
    cells = [
        result.name,
        _span(result, LIBRARY),
        _span(result, RAW) if RAW in result.seconds else "",
        "" if ratio is None else f"{ratio:.2f}",
        "" if added is None else f"{added:+.1f}",
        beside,
        shown(result),
    ]
    return f"| {' | '.join(cells)} |"


def _span(result: Result, side: str) -> str:
    low, high = result.spread(side)
    return f"{result.microseconds(side):,.1f} ({low:,.1f}..{high:,.1f})"


def _facts(facts: dict[str, str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {facts[name]}" for name in names if name in facts)
