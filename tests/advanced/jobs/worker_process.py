"""A process with a worker, for tests that kill it: its arguments are URL, JOB_SECONDS and LEASE_SECONDS."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy import configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository
from tests.support.engines import create_async_engine

CONCURRENCY = 10

runs = sa.Table(
    "runs",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.String(50), nullable=False),
    sa.Column("worker", sa.Integer, nullable=False),
    sa.Column("mark", sa.String(10), nullable=False),  # "begun" or "done"
)


class Task(BaseBackgroundJob):
    """Fails at every attempt where `fails` says so."""

    fails: bool = False


Task.first_delay = timedelta(milliseconds=50)


async def main(url, seconds, lease_seconds):
    engine, beside = (configure_engine(create_async_engine(url)) for _ in range(2))
    jobs = SQLAlchemyBackgroundJobRepository(Task, session_factory=async_sessionmaker(engine, expire_on_commit=False))

    async def note(job, mark):
        async with beside.begin() as connection:
            await connection.execute(sa.insert(runs), {"job_id": job.id, "worker": os.getpid(), "mark": mark})

    async def handle(job):
        await note(job, "begun")
        await asyncio.sleep(random.uniform(0.5, 1.5) * float(seconds))
        if job.fails:
            raise ValueError("it always does")
        await note(job, "done")

    worker = JobWorker(
        jobs,
        handle,
        concurrency=CONCURRENCY,
        lease=timedelta(seconds=float(lease_seconds)),
        poll_interval=timedelta(milliseconds=100),
        grace=timedelta(seconds=2),
        worker_id=str(os.getpid()),
    )
    await worker.run(handle_signals=True)
    await engine.dispose()
    await beside.dispose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
