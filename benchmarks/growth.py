"""How look-ups and claims fare as tables grow to a million rows, and how much memory long inputs take."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import opened
from benchmarks.claiming import LEASE
from benchmarks.machine import pinned_server
from benchmarks.memory import peaks
from benchmarks.orders import ORDERS, schemas
from benchmarks.report import GROWTH, NAMES, write_page
from benchmarks.sagas import Trip
from benchmarks.tables import fill, write_templates
from benchmarks.tasks import Task
from benchmarks.workload import LIBRARY
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemyProjectionStore,
    SQLAlchemySagaRepository,
    SQLAlchemySnapshotStore,
)
from tests.support.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.bench import Bench
    from tests.support.databases import Database

SIZES = (10_000, 100_000, 1_000_000)
CALLS, BATCH, LONG = 200, 10, 1000
LIMIT = 1.3  # from the smallest to the largest


def look_ups(bench: Bench, size: int) -> dict[str, Callable[[int], Awaitable[Any]]]:
    """Return what is looked for, given the number of the call, all over a table of so many rows."""
    docs = SQLAlchemyProjectionStore(bench.sessions, schemas=schemas())
    events = SQLAlchemyEventStore(bench.sessions)
    snapshots = SQLAlchemySnapshotStore(session_factory=bench.sessions)
    sagas = SQLAlchemySagaRepository(Trip, session_factory=bench.sessions, stalled_after_seconds=60)
    jobs = SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions)

    def at(call: int) -> int:
        return call * 7919 % (size - 1000) + 1

    return {
        "find_one": lambda call: docs.find_one(f"{ORDERS}_{LIBRARY}", f"order-{at(call)}"),
        "get_events_after, 100 of them": lambda call: events.get_events_after(at(call), limit=100),
        "get_latest_snapshot": lambda call: snapshots.get_latest_snapshot("Order", f"order-{at(call) // 4}"),
        "find_by_correlation_id": lambda call: sagas.find_by_correlation_id(f"order-{at(call)}"),
        "find_stalled_sagas, 10 of them": lambda _: sagas.find_stalled_sagas(limit=10),
        "find_suspended_sagas, 10 of them": lambda _: sagas.find_suspended_sagas(limit=10),
        "find_expired_suspended_sagas, 10 of them": lambda _: sagas.find_expired_suspended_sagas(limit=10),
        "claim, 10 of them": lambda _: jobs.claim(BATCH, worker_id="bench", lease=LEASE),
    }


async def grow(bench: Bench, sizes: tuple[int, ...], calls: int) -> dict[str, list[float]]:
    """Return the median microseconds of each look-up at each size."""
    await write_templates(bench)
    medians: dict[str, list[float]] = {}
    first = 1
    for size in sizes:
        await fill(bench, first, size)
        first = size + 1
        found = look_ups(bench, size)
        times: dict[str, list[float]] = {name: [] for name in found}
        for call in (*range(calls), *range(calls)):  # the first time the pages come from the disk
            for name, look_up in found.items():
                started = time.perf_counter()
                result = await look_up(call)
                times[name].append((time.perf_counter() - started) * 1e6)
                assert result, name
        for name, each in times.items():
            medians.setdefault(name, []).append(statistics.median(each[calls:]))
    return medians


async def claims_beside_an_old_snapshot(bench: Bench, rounds: int) -> list[str]:
    """Claim and complete for long, without and with a transaction that keeps what it has seen; return findings."""
    jobs = SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions)

    async def claim() -> tuple[float, float]:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            claims = await jobs.claim(BATCH, worker_id="bench", lease=LEASE)
            times.append((time.perf_counter() - started) * 1e6)
            assert len(claims) == BATCH
            await jobs.complete(claims)
        tenth = max(1, rounds // 10)
        return statistics.median(times[:tenth]), statistics.median(times[-tenth:])

    await bench.settle("jobs")
    findings = [("no other transaction open", await claim())]
    await bench.settle("jobs")
    old = await bench.connect()
    await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" if bench.is_postgresql else "BEGIN")
    await (old.fetch if bench.is_postgresql else old.execute_fetchall)("SELECT count(*) FROM sagas")
    findings.append(("an old snapshot held open", await claim()))
    await old.execute("ROLLBACK")
    await bench.settle("jobs")
    findings.append(("after it has ended" + (", and a VACUUM" if bench.is_postgresql else ""), await claim()))
    return [
        f"claims of {BATCH}, {what}: {first:.0f} µs at first, {last:.0f} µs after {rounds * BATCH:,} jobs, "
        f"{last / first:.1f} times"
        for what, (first, last) in findings
    ]


def table(kind: str, sizes: tuple[int, ...], medians: dict[str, list[float]]) -> list[str]:
    """Return the medians and how they have grown, as a table."""
    lines = [
        f"| {NAMES[kind]}, microseconds | {' | '.join(f'{size:,} rows' for size in sizes)} | growth |",
        f"|---|{'--:|' * (len(sizes) + 1)}",
    ]
    for name, each in medians.items():
        growth = each[-1] / each[0]
        mark = "" if growth <= LIMIT else f", more than {LIMIT}"
        lines.append(f"| {name} | {' | '.join(f'{median:.0f}' for median in each)} | {growth:.2f}{mark} |")
    return lines


def run(kinds: list[str], smaller: int, say: Callable[[str], object]) -> str:
    """Measure, and return the report as Markdown."""
    sizes = tuple(max(size // smaller, 2000 * (index + 1)) for index, size in enumerate(SIZES))
    with tempfile.TemporaryDirectory() as folder, pinned_server() as (server, pinned):
        lines = [pinned]
        databases = Databases(server, Path(folder))
        try:
            for kind in kinds:
                with databases.fresh(kind) as database:
                    medians, claims = asyncio.run(_measure(database, sizes, smaller))
                    found = [*claims, *peaks(database.url, smaller)]
                lines += ["", *table(kind, sizes, medians), "", *(f"- {each}" for each in found)]
                say("\n".join(lines))
        finally:
            databases.close()
    return "\n".join(lines)


async def _measure(
    database: Database, sizes: tuple[int, ...], smaller: int
) -> tuple[dict[str, list[float]], list[str]]:
    async with opened(database, smaller=smaller, log=None, peers=False) as bench:
        medians = await grow(bench, sizes, max(20, CALLS // smaller))
        return medians, await claims_beside_an_old_snapshot(bench, max(20, LONG // smaller))


def main() -> None:
    """Run with command line arguments."""
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__)
    parser.add_argument("--database", choices=tuple(NAMES), action="append", help="both without it")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the sizes")
    parser.add_argument("--write-docs", action="store_true", help="put the report into docs/performance.md")
    given = parser.parse_args()
    report = run(given.database or list(NAMES), 100 if given.quick else 1, print)
    if given.write_docs:
        write_page(Path(__file__).parents[1] / "docs" / "performance.md", report, GROWTH)


if __name__ == "__main__":
    main()
