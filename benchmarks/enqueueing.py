"""Enqueueing jobs: one in its own transaction, and ten thousand at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers import job_peers
from benchmarks.tasks import WRITTEN, Task, values_of
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository

if TYPE_CHECKING:
    from benchmarks.bench import Bench

ONE, MANY = 200, 10_000
NAMES = ", ".join(WRITTEN)
ROWS = """
    SELECT queue, status, priority, unique_key, correlation_id, total_items, processed_items, retry_count, max_retries,
        error, job_type, run_at, version, {order}
    FROM jobs WHERE queue = '{{side}}' ORDER BY {order}
"""
ON_POSTGRESQL = "state ->> 'order_id'"
ON_SQLITE = "json_extract(state, '$.order_id')"
INSERT = f"""
    INSERT INTO jobs (job_type, {NAMES}, due_at, created_at, updated_at, version)
    SELECT 'Task', {NAMES}, now, now, now, 1 FROM (SELECT {{values}}, {{now}} AS now) AS given ON CONFLICT DO NOTHING
    RETURNING id
"""
TYPES = (
    "text", "text", "text", "int", "text", "text", "bigint", "bigint", "int", "int", "text", "jsonb",
)  # fmt: skip
UNNEST = f"""
    INSERT INTO jobs (job_type, {NAMES}, due_at, created_at, updated_at, version)
    SELECT 'Task', {NAMES}, now, now, now, 1
    FROM unnest({", ".join(f"${n}::{kind}[]" for n, kind in enumerate(TYPES, start=1))}) AS given({NAMES}),
        (SELECT clock_timestamp() AS now) AS clock
    ON CONFLICT DO NOTHING RETURNING id
"""
ONE_ON_POSTGRESQL = INSERT.format(
    values=", ".join(f"${n}::{kind} AS {name}" for n, (kind, name) in enumerate(zip(TYPES, WRITTEN, strict=True), 1)),
    now="clock_timestamp()",
)
NOW_ON_SQLITE = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
ONE_ON_SQLITE = f"""
    INSERT INTO jobs (job_type, {NAMES}, due_at, created_at, updated_at, version)
    VALUES ('Task', {", ".join(f"?{n}" for n in range(1, len(WRITTEN) + 1))}, {", ".join([NOW_ON_SQLITE] * 3)}, 1)
    ON CONFLICT DO NOTHING
"""


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workloads."""
    sides = _Enqueueing(bench)
    if bench.is_postgresql:
        one, many = "one INSERT, committed by itself", "one INSERT ... SELECT FROM unnest"
    else:
        one, many = "BEGIN, INSERT, COMMIT", "BEGIN, executemany, COMMIT"
    peers = await job_peers(bench)
    rows = ROWS.format(order=ON_POSTGRESQL if bench.is_postgresql else ON_SQLITE)
    return [
        Workload(
            "enqueue one, own transaction",
            bench.size(ONE),
            (Side(LIBRARY, sides.library_one, sides.make(LIBRARY, ONE)), Side(RAW, sides.one, sides.make(RAW, ONE))),
            one,
            rows,
        ).with_sides(*(_peer_side(peer, peer.enqueue, bench.size(ONE)) for peer in peers)),
        Workload(
            "enqueue_many 10,000",
            bench.size(MANY),
            (
                Side(LIBRARY, sides.library_many, sides.make(LIBRARY, MANY)),
                Side(RAW, sides.many, sides.make(RAW, MANY)),
            ),
            many,
            rows,
        ).with_sides(*(_peer_side(peer, peer.enqueue_many, bench.size(MANY)) for peer in peers)),
    ]


def _peer_side(peer: Any, enqueue: Any, count: int) -> Side:
    async def clear(_: int) -> None:
        await peer.clear()

    async def run(_: int) -> None:
        await enqueue(count)

    return Side(peer.name, run, clear)


class _Enqueueing:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.raw = bench.raw
        self.repository = SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions)
        self.jobs: list[Task] = []
        self.one = self.one_on_postgresql if bench.is_postgresql else self.one_on_sqlite
        self.many = self.many_on_postgresql if bench.is_postgresql else self.many_on_sqlite

    def make(self, side: str, count: int) -> Any:
        async def prepare(_: int) -> None:
            await self.bench.execute(f"DELETE FROM jobs WHERE queue = '{side}'")
            await self.bench.settle("jobs")
            self.jobs = [Task(queue=side, order_id=f"order-{n}") for n in range(self.bench.size(count))]

        return prepare

    async def library_one(self, _: int) -> list[str]:
        return [(await self.repository.enqueue_many([job]))[0] for job in self.jobs]

    async def library_many(self, _: int) -> list[str]:
        return await self.repository.enqueue_many(self.jobs)

    async def one_on_postgresql(self, _: int) -> list[str]:
        return [await self.raw.fetchval(ONE_ON_POSTGRESQL, *values_of(job)) for job in self.jobs]

    async def many_on_postgresql(self, _: int) -> list[str]:
        columns = zip(*(values_of(job) for job in self.jobs), strict=True)
        return [row[0] for row in await self.raw.fetch(UNNEST, *(list(column) for column in columns))]

    async def one_on_sqlite(self, _: int) -> list[str]:
        for job in self.jobs:
            await self.raw.execute("BEGIN IMMEDIATE")
            await self.raw.execute(ONE_ON_SQLITE, values_of(job))
            await self.raw.execute("COMMIT")
        return [job.id for job in self.jobs]

    async def many_on_sqlite(self, _: int) -> list[str]:
        await self.raw.execute("BEGIN IMMEDIATE")
        await self.raw.executemany(ONE_ON_SQLITE, [values_of(job) for job in self.jobs])
        await self.raw.execute("COMMIT")
        return [job.id for job in self.jobs]
