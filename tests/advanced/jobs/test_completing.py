"""Jobs that end at about the same time are saved together, and none for another's sake goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.completing import Completions
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError
from tests.advanced.jobs.conftest import LEASE, Import


@pytest.fixture
def batches(monkeypatch):
    """How many jobs each statement was to complete."""
    sizes = []

    def noted(method):
        async def note(self, claims, *arguments, **options):
            sizes.append(len(claims))
            return await method(self, claims, *arguments, **options)

        return note

    for name in ("complete", "complete_and_claim"):
        method = getattr(SQLAlchemyBackgroundJobRepository, name)
        monkeypatch.setattr(SQLAlchemyBackgroundJobRepository, name, noted(method))
    return sizes


def completions_of(jobs):
    async def save(claims):
        try:
            await jobs.complete(claims)
        except LeaseLostError as error:
            return error.lost
        return ()

    return Completions(save)


async def claimed(jobs, count):
    await jobs.enqueue_many([Import() for _ in range(count)])
    return await jobs.claim(count, worker_id="w", lease=LEASE)


async def statuses(jobs, claims):
    return [(await jobs.get(claim.id)).status for claim in claims]


async def test_those_that_come_meanwhile_are_saved_together(jobs, batches):
    """The first is saved at once, the others in one statement after it."""
    claims = await claimed(jobs, 20)
    completions = completions_of(jobs)
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
    completions = completions_of(jobs)
    results = await asyncio.gather(*map(completions.complete, claims), return_exceptions=True)
    assert batches == [3]
    assert [type(result) for result in results] == [type(None), LeaseLostError, type(None)]
    assert results[1].lost == (claims[1].id,)
    assert await statuses(jobs, claims) == [JobStatus.COMPLETED, JobStatus.PENDING, JobStatus.COMPLETED]


async def test_a_job_that_cannot_be_stored_takes_no_other_with_it(jobs):
    """What one job has left that no column takes is its own error; the others are complete."""
    claims = await claimed(jobs, 3)
    claims[1].job.path = "a\0b"
    completions = completions_of(jobs)
    results = await asyncio.gather(*map(completions.complete, claims), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), ValueError, type(None)]
    assert await statuses(jobs, claims) == [JobStatus.COMPLETED, JobStatus.RUNNING, JobStatus.COMPLETED]


async def test_whoever_is_cancelled_takes_no_other_with_it(jobs):
    """A task that no longer waits leaves the statement to those that do."""
    claims = await claimed(jobs, 2)
    completions = completions_of(jobs)
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


async def test_the_next_jobs_are_claimed_with_the_completion_of_others(jobs, monkeypatch):
    """A busy worker hardly ever claims by itself."""
    claims, claim = [], jobs.claim

    async def noted(limit, **options):
        claims.append(limit)
        return await claim(limit, **options)

    async def handler(job):
        return job.id

    monkeypatch.setattr(jobs, "claim", noted)
    await jobs.enqueue_many([Import(id=f"j{n:03}") for n in range(100)])
    assert await JobWorker(jobs, handler, concurrency=10).run_due() == 100
    assert claims[0] == 10
    assert len(claims) <= 5
    found = await jobs.list(limit=200)
    assert {(job.status, job.result == job.id, job.retry_count) for job in found} == {(JobStatus.COMPLETED, True, 0)}


@pytest.mark.parametrize("workers", [1, 3])
async def test_no_worker_runs_more_jobs_than_it_may(jobs, workers):
    """However claims and completions overlap, each job runs once, and at most so many at once in each worker."""
    running, most, runs = Counter(), Counter(), Counter()

    def of_worker(number):
        async def handler(job):
            runs[job.id] += 1
            running[number] += 1
            most[number] = max(most[number], running[number])
            for _ in range(hash(job.id) % 7):
                await asyncio.sleep(0)
            running[number] -= 1

        return handler

    await jobs.enqueue_many([Import(id=f"j{n:03}") for n in range(200)])
    made = [JobWorker(jobs, of_worker(number), concurrency=4) for number in range(workers)]
    attempts = await asyncio.gather(*(worker.run_due() for worker in made))
    assert sum(attempts) == 200
    assert max(most.values()) <= 4
    assert set(runs.values()) == {1}
    assert (await jobs.count_by_status())[JobStatus.COMPLETED] == 200


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_what_is_claimed_as_a_worker_ends_goes_back(jobs, monkeypatch, end):
    """Jobs that come with the last completion are given back at once, and their attempts do not count."""
    both, committed = jobs.complete_and_claim, asyncio.Event()

    async def slow(*arguments, **options):
        next_ones = await both(*arguments, **options)
        committed.set()
        await asyncio.sleep(0.05)
        return next_ones

    async def handler(job):
        return None

    monkeypatch.setattr(jobs, "complete_and_claim", slow)
    await jobs.enqueue_many([Import(id=f"j{n}") for n in range(9)])
    worker = JobWorker(jobs, handler, concurrency=3)
    task = asyncio.create_task(worker.run())
    await committed.wait()
    worker.stop() if end == "stop" else task.cancel()
    await asyncio.wait([task])
    counts = await jobs.count_by_status()
    assert (counts[JobStatus.COMPLETED], counts[JobStatus.PENDING]) == (3, 6)
    assert {job.retry_count for job in await jobs.list()} == {0}
