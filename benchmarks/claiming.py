"""Claiming and completing jobs, in batches, by several workers at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.tasks import SELECTED, Task, loaded, state_of
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository

if TYPE_CHECKING:
    from benchmarks.bench import Bench

#: How many jobs there are, by the size of the batches in which they are claimed.
JOBS = {1: 100, 10: 500, 100: 2000}
WORKERS = {True: (1, 2, 4), False: (1, 4)}  # SQLite lets them write one by one
LEASE = timedelta(minutes=1)
ROWS = "SELECT status, worker_id, version, retry_count, error, lease_until FROM jobs ORDER BY id"
NOW_ON_SQLITE = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
CLAIM = f"""
    WITH wanted AS MATERIALIZED (
        SELECT id FROM jobs
        WHERE status = 'PENDING' AND job_type = 'Task' AND due_at <= (SELECT {{now}})
        ORDER BY priority DESC, due_at, id LIMIT {{limit}} {{skip}})
    UPDATE jobs SET status = 'RUNNING', worker_id = {{worker}}, lease_until = {{later}}, started_at = {{now}},
        version = version + 1, updated_at = {{now}}
    WHERE id IN (SELECT id FROM wanted) AND status = 'PENDING' RETURNING {SELECTED}
"""
CLAIM_ON_POSTGRESQL = CLAIM.format(
    now="clock_timestamp()", limit="$1", skip="FOR UPDATE SKIP LOCKED", worker="$2", later="clock_timestamp() + $3"
)
CLAIM_ON_SQLITE = CLAIM.format(
    now=NOW_ON_SQLITE, limit="?1", skip="", worker="?2",
    later="strftime('%Y-%m-%d %H:%M:%f', 'now', '+' || ?3 || ' seconds') || '000'",
)  # fmt: skip
COMPLETE = """
    UPDATE jobs SET status = 'COMPLETED', state = done.state::jsonb, error = NULL, lease_until = NULL,
        finished_at = clock_timestamp(), version = version + 1, updated_at = clock_timestamp()
    FROM unnest($1::text[], $2::bigint[], $3::text[]) AS done(id, token, state)
    WHERE jobs.id = done.id AND version = done.token AND status = 'RUNNING' RETURNING jobs.id
"""
COMPLETE_ON_SQLITE = f"""
    UPDATE jobs SET status = 'COMPLETED', state = ?3, error = NULL, lease_until = NULL, finished_at = {NOW_ON_SQLITE},
        version = version + 1, updated_at = {NOW_ON_SQLITE}
    WHERE id = ?1 AND version = ?2 AND status = 'RUNNING'
"""


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workloads, with a connection for each worker of the driver's side."""
    connections = [bench.raw, *[await bench.connect() for _ in range(max(WORKERS[bench.is_postgresql]) - 1)]]
    await SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions).enqueue_many(
        [Task(order_id=f"order-{n}") for n in range(max(JOBS.values()))]
    )
    await bench.execute("CREATE TABLE bench_jobs AS SELECT * FROM jobs")
    compared = "the two statements in a loop, each committed by itself; a job object of each row, made unchecked"
    made = []
    for batch, count in JOBS.items():
        for workers in WORKERS[bench.is_postgresql]:
            work = _Claiming(bench, connections[:workers], batch, bench.size(count, least=batch))
            sides = (Side(LIBRARY, work.library, work.prepare), Side(RAW, work.raw, work.prepare))
            name = f"claim and complete, batches of {batch}, {workers} worker{'s' if workers > 1 else ''}"
            made.append(Workload(name, work.count, sides, compared, ROWS))
    return made


class _Claiming:
    """All sides of one size of batches and one number of workers."""

    def __init__(self, bench: Bench, connections: list[Any], batch: int, count: int) -> None:
        self.bench = bench
        self.connections = connections
        self.batch = batch
        self.count = count
        self.repository = SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions)

    async def prepare(self, _: int) -> None:
        await self.bench.empty("jobs")
        await self.bench.execute(f"INSERT INTO jobs SELECT * FROM bench_jobs ORDER BY id LIMIT {self.count}")
        await self.bench.settle("jobs")

    async def library(self, _: int) -> None:
        await self._all(self._library_worker)

    async def raw(self, _: int) -> None:
        await self._all(self._postgresql_worker if self.bench.is_postgresql else self._sqlite_worker)

    async def _all(self, worker: Any) -> None:
        done = sum(await asyncio.gather(*(worker(connection) for connection in self.connections)))
        assert done == self.count, f"{done} of {self.count} jobs are done"

    async def _library_worker(self, _: Any) -> int:
        done, claims = 0, await self.repository.claim(self.batch, worker_id="bench", lease=LEASE)
        while claims:
            done += len(claims)
            claims = (
                await self.repository.complete_and_claim(claims, self.batch, worker_id="bench", lease=LEASE)
            ).claims
        return done

    async def _postgresql_worker(self, connection: Any) -> int:
        done = 0
        while rows := await connection.fetch(CLAIM_ON_POSTGRESQL, self.batch, "bench", LEASE):
            jobs = [loaded(row, from_sqlite=False) for row in rows]
            ids, tokens = [job.id for job, _ in jobs], [token for _, token in jobs]
            ended = await connection.fetch(COMPLETE, ids, tokens, [state_of(job) for job, _ in jobs])
            assert len(ended) == len(jobs)
            done += len(jobs)
        return done

    async def _sqlite_worker(self, connection: Any) -> int:
        done = 0
        while True:
            await connection.execute("BEGIN IMMEDIATE")
            rows = await connection.execute_fetchall(CLAIM_ON_SQLITE, (self.batch, "bench", LEASE.total_seconds()))
            await connection.execute("COMMIT")
            if not rows:
                return done
            jobs = [loaded(row, from_sqlite=True) for row in rows]
            await connection.execute("BEGIN IMMEDIATE")
            values = [(job.id, token, state_of(job)) for job, token in jobs]
            ended = await connection.executemany(COMPLETE_ON_SQLITE, values)
            assert ended.rowcount == len(jobs)
            await connection.execute("COMMIT")
            done += len(jobs)
