"""Workers in processes of their own: each job once when nobody is killed, none lost and all ended when somebody is."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError
from tests.advanced.jobs.worker_process import CONCURRENCY, Task, runs
from tests.support.databases import ROOT

PATIENCE_SECONDS = 240


class Workers:
    """Some processes, which can be killed and replaced."""

    def __init__(self, url, count, job_seconds, lease_seconds):
        options = [url, str(job_seconds), str(lease_seconds)]
        self._command = [sys.executable, "-m", "tests.advanced.jobs.worker_process", *options]
        self.running = [self._start() for _ in range(count)]
        self.killed = 0

    def _start(self):
        return subprocess.Popen(self._command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def kill_one(self):
        victim = self.running.pop(random.randrange(len(self.running)))
        victim.kill()
        victim.communicate()
        self.killed += 1
        self.running.append(self._start())

    def stop(self):
        """Ask all to end, and return how they did and what they said."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        return [(process.communicate(timeout=30)[1], process.returncode) for process in self.running]


@asynccontextmanager
async def working(url, count, job_seconds, *, lease_seconds=60):
    workers = Workers(url, count, job_seconds, lease_seconds)
    try:
        yield workers
        for said, code in workers.stop():
            assert code in {0, -signal.SIGTERM}, said  # which it does not handle yet as it starts
            assert "database is locked" not in said
    finally:
        for process in workers.running:
            process.kill()
            process.communicate()


@pytest.fixture
def tasks(engine):
    return SQLAlchemyBackgroundJobRepository(Task, session_factory=async_sessionmaker(engine, expire_on_commit=False))


async def fill(engine, tasks, count):
    """Enqueue jobs, of which each hundredth fails, for good."""
    async with engine.begin() as connection:
        await connection.run_sync(runs.metadata.create_all)
    await tasks.enqueue_many(
        [Task(id=f"t{n:05}", fails=n % 100 == 99, max_retries=0 if n % 100 == 99 else 50) for n in range(count)]
    )


async def begun(engine):
    async with engine.connect() as connection:
        statement = sa.select(runs.c.job_id, sa.func.count()).where(runs.c.mark == "begun").group_by(runs.c.job_id)
        return Counter({row[0]: row[1] for row in await connection.execute(statement)})


async def until_over(tasks):
    async def over():
        counts = await tasks.count_by_status()
        return counts[JobStatus.PENDING] + counts[JobStatus.RUNNING] == 0

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await over():  # noqa: ASYNC110  (what it waits for happens in other processes)
            await asyncio.sleep(0.1)


async def run_undisturbed(engine, tasks, url, *, jobs, processes, job_seconds):
    await fill(engine, tasks, jobs)
    async with working(url, processes, job_seconds):
        await until_over(tasks)
    counts = await tasks.count_by_status()
    assert (counts[JobStatus.COMPLETED], counts[JobStatus.FAILED]) == (jobs - jobs // 100, jobs // 100)
    assert await begun(engine) == Counter({f"t{number:05}": 1 for number in range(jobs)})


async def run_under_fire(engine, tasks, url, *, jobs, processes, job_seconds, kills, seconds):
    await fill(engine, tasks, jobs)
    (halted,) = await tasks.claim(worker_id="halted", lease=timedelta(seconds=1))
    async with working(url, processes, job_seconds, lease_seconds=3) as workers:
        for _ in range(kills):
            await asyncio.sleep(seconds)
            workers.kill_one()
        await until_over(tasks)
    with pytest.raises(LeaseLostError, match=f"the lease of job '{halted.id}' is lost"):
        await tasks.complete(halted)
    counts, ran = await tasks.count_by_status(), await begun(engine)
    assert (counts[JobStatus.COMPLETED], counts[JobStatus.FAILED]) == (jobs - jobs // 100, jobs // 100)
    assert jobs - len(ran) <= counts[JobStatus.FAILED]  # one without retries whose worker is killed as it begins
    repeated = sum(ran.values()) - len(ran)
    assert repeated <= workers.killed * CONCURRENCY
    return repeated


async def test_each_job_runs_once_in_several_processes(engine, database, tasks):
    """One in a hundred fails; none runs twice."""
    await run_undisturbed(engine, tasks, database.url, jobs=300, processes=3, job_seconds=0.005)


async def test_killed_workers_lose_no_job(engine, database, tasks):
    """Each ends, and a kill repeats no more than what was running; a worker that comes back late is refused."""
    options = {"jobs": 200, "processes": 3, "job_seconds": 0.1, "kills": 3, "seconds": 0.7}
    await run_under_fire(engine, tasks, database.url, **options)


async def test_sigterm_leaves_nothing_running(engine, database, tasks):
    """Within its deadline, in the middle of the work."""
    await fill(engine, tasks, 99)
    async with working(database.url, 1, 0.5) as workers:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(await begun(engine)) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        begin = time.monotonic()
        assert {code for _, code in workers.stop()} == {0}
        assert time.monotonic() - begin < 10
    counts = await tasks.count_by_status()
    assert counts[JobStatus.RUNNING] == 0
    assert counts[JobStatus.PENDING] + counts[JobStatus.COMPLETED] == 99


@pytest.mark.slow
async def test_each_of_many_jobs_runs_once(engine, database, tasks):
    """Ten thousand in eight processes on PostgreSQL, a thousand in four on SQLite."""
    many = database.kind == "postgresql"
    await run_undisturbed(
        engine, tasks, database.url, jobs=10_000 if many else 1000, processes=8 if many else 4, job_seconds=0.005
    )


@pytest.mark.slow
async def test_a_worker_is_killed_every_second(engine, database, tasks):
    """For half a minute, at the same numbers."""
    many = database.kind == "postgresql"
    repeated = await run_under_fire(
        engine,
        tasks,
        database.url,
        jobs=10_000 if many else 1000,
        processes=8 if many else 4,
        job_seconds=0.1 if many else 0.2,
        kills=30,
        seconds=1.0,
    )
    assert repeated > 0
