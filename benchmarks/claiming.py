"""Claiming and completing jobs beside a million finished ones, and beside none: the time must not depend on them."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy import configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FINISHED, DUE = 1_000_000, 10_000
BATCH, ROUNDS = 10, 100
LEASE = timedelta(minutes=5)

_NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(1, {count}) AS n",
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) "
    "SELECT n FROM numbers",
}
_FINISHED = """
INSERT INTO jobs (id, job_type, queue, status, priority, due_at, total_items, processed_items, retry_count, max_retries,
    state, version, finished_at)
SELECT 'f' || n, 'Task', 'default', 'COMPLETED', 0, CURRENT_TIMESTAMP, 0, 0, 0, 3, '{{}}', 3, CURRENT_TIMESTAMP
FROM ({numbers}) AS numbers
"""


class Task(BaseBackgroundJob):
    """A job without anything to do."""


@asynccontextmanager
async def prepared(url: str, finished: int) -> AsyncIterator[SQLAlchemyBackgroundJobRepository[Task]]:
    """Fill a migrated database with finished and due jobs."""
    engine = configure_engine(create_async_engine(url))
    jobs = SQLAlchemyBackgroundJobRepository(Task, session_factory=async_sessionmaker(engine, expire_on_commit=False))
    async with engine.begin() as connection:
        if finished:
            numbers = _NUMBERS[engine.dialect.name].format(count=finished)
            await connection.exec_driver_sql(_FINISHED.format(numbers=numbers))
    await jobs.enqueue_many([Task() for _ in range(DUE)])
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(sa.text("ANALYZE jobs"))
    yield jobs
    await engine.dispose()


async def measure(empty_url: str, full_url: str) -> None:
    """Claim and complete batches in turns on both, and print medians and their ratio."""
    times: dict[str, list[float]] = {"none": [], "many": []}
    async with prepared(empty_url, 0) as alone, prepared(full_url, FINISHED) as beside:
        for number in range(ROUNDS):
            sides = [("none", alone), ("many", beside)]
            for name, jobs in sides if number % 2 else reversed(sides):
                started = time.perf_counter()
                claims = await jobs.claim(BATCH, worker_id="bench", lease=LEASE)
                claimed = time.perf_counter()
                await jobs.complete(claims)
                if number:  # the first round warms up
                    times[name].append(claimed - started)
    none, many = (statistics.median(times[name]) * 1e6 for name in ("none", "many"))
    print(
        f"claim {BATCH} of {DUE:,} due jobs: {none:.0f} microseconds beside no finished job, {many:.0f} beside "
        f"{FINISHED:,}; ratio {many / none:.2f}"
    )


def run(empty_url: str, full_url: str) -> None:
    """Measure one kind of database."""
    asyncio.run(measure(empty_url, full_url))
