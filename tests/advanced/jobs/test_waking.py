"""Workers that wait are woken at once on PostgreSQL, and poll where nobody wakes them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository
from tests.advanced.jobs.conftest import Import
from tests.advanced.jobs.handlers import Work
from tests.support.waiting import until

NEVER = timedelta(hours=1)


@pytest.fixture
async def postgresql_sessions(postgresql):
    # Around the proxy, where this run has one: LISTEN needs a session of its own (tests/proxy shows it without).
    engine = create_async_engine(postgresql.direct_url)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


async def listening(sessions, count=1):
    """Tell whether so many connections listen, and have nothing else to do."""
    async with sessions() as session:
        statement = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        return await session.scalar(statement) == count


async def test_a_job_wakes_a_worker_that_does_not_poll(postgresql_sessions):
    """One by one, by the batch, and with the commit of a unit of work."""
    jobs = SQLAlchemyBackgroundJobRepository(Import, session_factory=postgresql_sessions, notify=True)
    work = Work()
    worker = JobWorker(jobs, work, poll_interval=NEVER)
    task = asyncio.create_task(worker.run())
    await until(lambda: listening(postgresql_sessions))
    await jobs.add(Import())
    await until(lambda: len(work.given) == 1)
    await jobs.enqueue_many([Import(), Import()])
    await until(lambda: len(work.given) == 3)
    async with SQLAlchemyUnitOfWork(postgresql_sessions) as uow:
        await jobs.add(Import(), uow=uow)
        await uow.commit()
    await until(lambda: len(work.given) == 4)
    worker.stop()
    await task


async def test_polling_goes_on_when_the_listener_dies(postgresql_sessions, postgresql):
    """A lost connection costs the speed, and no job."""
    jobs = SQLAlchemyBackgroundJobRepository(Import, session_factory=postgresql_sessions, notify=True)
    work = Work()
    worker = JobWorker(jobs, work, poll_interval=timedelta(milliseconds=50))
    task = asyncio.create_task(worker.run())
    await until(lambda: listening(postgresql_sessions))
    async with postgresql_sessions() as session:
        await session.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        )
    await jobs.add(Import())
    await until(lambda: len(work.given) == 1)
    worker.stop()
    await task


async def test_a_worker_polls_where_nobody_notifies(jobs):
    """On both databases."""
    work = Work()
    worker = JobWorker(jobs, work, poll_interval=timedelta(milliseconds=20))
    task = asyncio.create_task(worker.run())
    await jobs.add(Import())
    await until(lambda: len(work.given) == 1)
    worker.stop()
    await task
