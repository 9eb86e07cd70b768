"""Handlers that do odd things, and workers to whom odd things happen: each job ends rightly all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.models import BackgroundJobModel
from tests.advanced.jobs.conftest import Import
from tests.advanced.jobs.handlers import SHORT, Work
from tests.support.engines import checked_out
from tests.support.waiting import PATIENCE_SECONDS, until


async def test_a_job_may_save_itself_in_the_middle_of_its_work(jobs, session_factory):
    """By itself, or with what it has written in one unit of work, while heartbeats go on."""

    async def handle(job):
        for _ in range(10):
            job.last_line += 1
            await jobs.add(job)
            await asyncio.sleep(0.005)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            job.last_line += 1
            await jobs.add(job, uow=uow)
            await asyncio.sleep(0.1)

    await jobs.enqueue_many([Import(id=f"j{number}") for number in range(3)])
    assert await JobWorker(jobs, handle, heartbeat=timedelta(milliseconds=5)).run_due() == 3
    for number in range(3):
        job = await jobs.get(f"j{number}")
        assert (job.status, job.last_line, job.retry_count) == (JobStatus.COMPLETED, 11, 0)


@pytest.mark.parametrize("result", [object(), b"\xff", "a\0b", float("nan")], ids=["object", "bytes", "NUL", "NaN"])
async def test_a_result_that_cannot_be_stored_is_a_failure(jobs, result):
    """With the true reason, and what the job remembered before."""

    async def handle(job):
        job.last_line = 7
        return result

    await jobs.add(Import(id="j1", max_retries=0))
    assert await JobWorker(jobs, handle).run_due() == 1
    job = await jobs.get("j1")
    assert (job.status, job.last_line) == (JobStatus.FAILED, 0)
    assert job.error.startswith(("ValueError", "PydanticSerializationError", "UnicodeDecodeError"))


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [Stop("now"), GeneratorExit(), BaseExceptionGroup("both", [Stop(), KeyError()])])
async def test_whatever_is_raised_is_a_failure(jobs, engine, error):
    """Of the job, and of nothing else."""

    async def handle(_job):
        raise error

    await jobs.enqueue_many([Import(id="j1", max_retries=0), Import(id="j2", max_retries=0)])
    assert await JobWorker(jobs, handle).run_due() == 2
    for name in ("j1", "j2"):
        assert (await jobs.get(name)).status is JobStatus.FAILED
    assert type(error).__name__ in (await jobs.get("j1")).error
    assert checked_out(engine) == 0


async def test_a_failure_is_kept_also_where_the_rest_cannot_be_stored(jobs):
    """The error is the job's, not the one of storing it."""

    async def handle(job):
        job.path = "a\0b"
        raise LookupError("the true reason")

    await jobs.add(Import(id="j1", max_retries=0))
    await JobWorker(jobs, handle).run_due()
    job = await jobs.get("j1")
    assert (job.status, job.error, job.path) == (JobStatus.FAILED, "LookupError: the true reason", "a.csv")


async def test_a_job_may_ask_to_be_tried_again(jobs):
    """When it says; the attempt counts."""

    async def handle(job):
        job.mark_for_retry(timedelta(hours=1))

    await jobs.add(Import(id="j1"))
    begun = await jobs.now()
    assert await JobWorker(jobs, handle).run_due() == 1
    job = await jobs.get("j1")
    assert (job.status, job.retry_count) == (JobStatus.PENDING, 1)
    assert timedelta(minutes=59) < job.run_at - begun < timedelta(minutes=61)


async def test_a_stop_is_no_failure_whatever_the_handler_makes_of_it(jobs):
    """The attempt does not count."""
    reached = asyncio.Event()

    async def handle(_job):
        reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None

    await jobs.add(Import(id="j1", max_retries=0))
    worker = JobWorker(jobs, handle, grace=SHORT)
    task = asyncio.create_task(worker.run())
    await reached.wait()
    worker.stop()
    await task
    assert ((await jobs.get("j1")).status, (await jobs.get("j1")).retry_count) == (JobStatus.PENDING, 0)


async def test_a_worker_that_is_cancelled_again_and_again_gives_its_jobs_back(jobs):
    """In the background, if it must."""
    work = Work()
    work.gate = asyncio.Event()
    await jobs.enqueue_many([Import() for _ in range(5)])
    task = asyncio.create_task(JobWorker(jobs, work).run())
    await work.reached.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)

    async def given_back():
        return (await jobs.count_by_status())[JobStatus.PENDING] == 5

    await until(given_back)


async def test_a_worker_that_is_cancelled_as_it_claims_leaves_nothing_running(jobs, monkeypatch):
    """What the database has given it goes back."""
    claim, committed = jobs.claim, asyncio.Event()

    async def slow_claim(*arguments, **options):
        claims = await claim(*arguments, **options)
        committed.set()
        await asyncio.sleep(0.05)
        return claims

    monkeypatch.setattr(jobs, "claim", slow_claim)
    await jobs.enqueue_many([Import() for _ in range(5)])
    task = asyncio.create_task(JobWorker(jobs, Work()).run())
    await committed.wait()
    task.cancel()
    await asyncio.wait([task])
    counts = await jobs.count_by_status()
    assert (counts[JobStatus.RUNNING], sum(counts.values())) == (0, 5)


async def test_jobs_that_cannot_be_loaded_keep_no_worker_from_the_others(jobs, engine):
    """However many stand in front."""
    await jobs.enqueue_many([Import(id=f"bad{number}", priority=1) for number in range(5)])
    async with engine.begin() as connection:
        await connection.execute(sa.update(BackgroundJobModel).values(state={"last_line": "many"}))
    await jobs.add(Import(id="good"))
    assert await JobWorker(jobs, Work(), concurrency=1).run_due() == 1
    assert (await jobs.get("good")).status is JobStatus.COMPLETED


async def test_the_lease_of_a_job_that_is_left_ends(jobs, row_of, monkeypatch):
    """Though the job goes on: another worker may take it then."""
    monkeypatch.setattr("cqrs_ddd_persistence_sqlalchemy.advanced.jobs.attempt_pool.GIVING_BACK_SECONDS", 0.05)
    release, reached = asyncio.Event(), asyncio.Event()

    async def stubborn(_job):
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                reached.set()
                await release.wait()

    await jobs.add(Import(id="j1"))
    beat = timedelta(milliseconds=10)
    worker = JobWorker(jobs, stubborn, grace=SHORT, lease=timedelta(seconds=5), heartbeat=beat)
    task = asyncio.create_task(worker.run())
    await reached.wait()
    worker.stop()
    await task
    try:
        await asyncio.sleep(beat.total_seconds())  # a renewal may be under way
        ends_at = (await row_of("j1"))["lease_until"]
        await asyncio.sleep(5 * beat.total_seconds())
        assert (await row_of("j1"))["lease_until"] == ends_at
    finally:
        release.set()


class Report(BaseBackgroundJob):
    pass


async def test_a_signal_stops_all_workers_of_the_process(jobs, session_factory):
    """Also those that were started before the last one, and those that go on after another one has ended."""
    reports = SQLAlchemyBackgroundJobRepository(Report, session_factory=session_factory)
    works = [Work(), Work()]
    workers = [
        JobWorker(repository, work, poll_interval=SHORT, grace=SHORT)
        for repository, work in zip([jobs, reports], works, strict=True)
    ]
    for repository, job, work in zip([jobs, reports], [Import(id="j1"), Report(id="r1")], works, strict=True):
        work.gate = asyncio.Event()
        await repository.add(job)
    tasks = [asyncio.create_task(worker.run(handle_signals=True)) for worker in workers]
    for work in works:
        await work.reached.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*tasks)
    assert ((await jobs.get("j1")).status, (await reports.get("r1")).status) == ("PENDING", "PENDING")
