"""Run every workload beside the same work on the raw driver, interleaved, and print medians and ratios."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import claiming
from benchmarks.projecting import PostgreSQLProjecting, SQLiteProjecting
from benchmarks.workloads import PostgreSQLWorkloads, SQLiteWorkloads
from tests.support.databases import alembic
from tests.support.postgres import running_server

if TYPE_CHECKING:
    from benchmarks.workloads import Workload


async def measure(workloads: list[Workload], repetitions: int) -> list[tuple[str, float, float]]:
    """Return each workload's name and its median seconds, by the library and by the driver."""
    times: dict[str, tuple[list[float], list[float]]] = {workload.name: ([], []) for workload in workloads}
    for repetition in range(repetitions + 1):
        for workload in workloads:
            sides = [(0, workload.library), (1, workload.driver)]
            for side, work in sides if repetition % 2 else reversed(sides):
                started = time.perf_counter()
                await work(repetition)
                if repetition:  # the first one warms up
                    times[workload.name][side].append(time.perf_counter() - started)
    return [
        (workload.name, statistics.median(times[workload.name][0]), statistics.median(times[workload.name][1]))
        for workload in workloads
    ]


def report(title: str, rows: list[tuple[str, float, float]], operations: dict[str, int]) -> None:
    """Print microseconds an operation and the ratio to the driver."""
    print(f"\n{title}\n{'workload':<44}{'library':>12}{'driver':>12}{'ratio':>8}   (microseconds an operation)")
    for name, library, driver in rows:
        each = operations[name] / 1e6
        print(f"{name:<44}{library / each:>12.1f}{driver / each:>12.1f}{library / driver:>8.2f}")


async def run(
    url: str,
    kind: type[PostgreSQLWorkloads | SQLiteWorkloads | PostgreSQLProjecting | SQLiteProjecting],
    repetitions: int,
) -> None:
    """Measure one database."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(kind.prepared(url))
        rows = await measure(made.workloads, repetitions)
    report(
        kind.__name__.removesuffix("Workloads").removesuffix("Projecting"),
        rows,
        {each.name: each.operations for each in made.workloads},
    )


def _another_database(url: str) -> str:
    """Make a migrated database beside one, on the same server."""

    async def create() -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.exec_driver_sql("CREATE DATABASE bench_many")
        await engine.dispose()

    asyncio.run(create())
    another = make_url(url).set(database="bench_many").render_as_string(hide_password=False)
    alembic("upgrade", "head", url=another)
    return another


def main() -> None:
    """Measure SQLite in a temporary file and PostgreSQL on a throwaway server."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}"
        alembic("upgrade", "head", url=url)
        asyncio.run(run(url, SQLiteWorkloads, repetitions))
        url = f"sqlite+aiosqlite:///{Path(folder) / 'projecting.db'}"
        alembic("upgrade", "head", url=url)
        asyncio.run(run(url, SQLiteProjecting, repetitions))
        urls = [f"sqlite+aiosqlite:///{Path(folder) / name}.db" for name in ("none", "many")]
        for url in urls:
            alembic("upgrade", "head", url=url)
        claiming.run(*urls)
    with running_server() as server:
        alembic("upgrade", "head", url=server.url)
        url = make_url(server.url).render_as_string(hide_password=False)
        asyncio.run(run(url, PostgreSQLWorkloads, repetitions))
        asyncio.run(run(url, PostgreSQLProjecting, repetitions))
        claiming.run(url, _another_database(url))


if __name__ == "__main__":
    main()
