"""Jobs that end at about the same time are saved together, and none for another's sake goes wrong."""

from __future__ import annotations

import asyncio

import pytest

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.completing import Completions
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError
from tests.advanced.jobs.conftest import LEASE, Import


@pytest.fixture
def batches(monkeypatch):
    """How many jobs each statement was to complete."""
    sizes, complete = [], SQLAlchemyBackgroundJobRepository.complete

    async def noted(self, claims, **options):
        sizes.append(len(claims))
        await complete(self, claims, **options)

    monkeypatch.setattr(SQLAlchemyBackgroundJobRepository, "complete", noted)
    return sizes


async def claimed(jobs, count):
    await jobs.enqueue_many([Import() for _ in range(count)])
    return await jobs.claim(count, worker_id="w", lease=LEASE)


async def statuses(jobs, claims):
    return [(await jobs.get(claim.id)).status for claim in claims]


async def test_those_that_come_meanwhile_are_saved_together(jobs, batches):
    """The first is saved at once, the others in one statement after it."""
    claims = await claimed(jobs, 20)
    completions = Completions(jobs)
    tasks = [asyncio.create_task(completions.complete(claims[0]))]
    await asyncio.sleep(0)  # the first one's statement is under way
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(completions.complete(claim)) for claim in claims[1:]]
    await asyncio.gather(*tasks)
    assert batches == [1, 19]
    assert await statuses(jobs, claims) == [JobStatus.COMPLETED] * 20


async def test_a_lost_claim_is_its_own_error(jobs, end_lease, batches):
    """Of jobs saved together, the one whose claim is lost hears of it, and the others are complete."""
    claims = await claimed(jobs, 3)
    await end_lease(claims[1].id)
    await jobs.release_expired()
    completions = Completions(jobs)
    results = await asyncio.gather(*map(completions.complete, claims), return_exceptions=True)
    assert batches == [3]
    assert [type(result) for result in results] == [type(None), LeaseLostError, type(None)]
    assert results[1].lost == (claims[1].id,)
    assert await statuses(jobs, claims) == [JobStatus.COMPLETED, JobStatus.PENDING, JobStatus.COMPLETED]


async def test_a_job_that_cannot_be_stored_takes_no_other_with_it(jobs):
    """What one job has left that no column takes is its own error; the others are complete."""
    claims = await claimed(jobs, 3)
    claims[1].job.path = "a\0b"
    completions = Completions(jobs)
    results = await asyncio.gather(*map(completions.complete, claims), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), ValueError, type(None)]
    assert await statuses(jobs, claims) == [JobStatus.COMPLETED, JobStatus.RUNNING, JobStatus.COMPLETED]


async def test_whoever_is_cancelled_takes_no_other_with_it(jobs):
    """A task that no longer waits leaves the statement to those that do."""
    claims = await claimed(jobs, 2)
    completions = Completions(jobs)
    tasks = [asyncio.create_task(completions.complete(claim)) for claim in claims]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await tasks[1]
    assert tasks[0].cancelled()
    assert (await statuses(jobs, claims))[1] is JobStatus.COMPLETED


async def test_a_busy_worker_makes_fewer_statements_than_jobs(jobs, batches):
    """A worker with room for ten jobs that end at once saves most of them with others."""

    async def handler(job):
        return None

    await jobs.enqueue_many([Import() for _ in range(100)])
    assert await JobWorker(jobs, handler, concurrency=10).run_due() == 100
    assert sum(batches) == 100
    assert len(batches) <= 50
