"""Completing some jobs and claiming the next, at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from tests.advanced.jobs.conftest import LEASE, Import, Report, ids

S = JobStatus
MINE = {"worker_id": "w1", "lease": LEASE}


@pytest.fixture
async def first(jobs, reports):
    """The claims of two jobs, while four others wait."""
    await jobs.enqueue_many([Import(id=f"j{n}", priority=9 - n) for n in range(5)])
    await jobs.enqueue_many([Import(id="aside", queue="slow")])
    await reports.enqueue_many([Report(id="other class", priority=99)])
    claims = await jobs.claim(2, **MINE)
    assert ids(claims) == ["j0", "j1"]
    return claims


async def statuses(jobs):
    return {job.id: str(job.status) for job in await jobs.list()}


async def test_some_end_and_the_next_begin(jobs, first):
    """Jobs are saved with what they have achieved; the next come in the order in which they are due."""
    first[0].job.result, first[0].job.last_line, first[1].job.processed_items = {"lines": [1.5, "ß"]}, 7, 3
    next_ones = await jobs.complete_and_claim(first, 2, **MINE)
    assert (ids(next_ones.claims), next_ones.lost) == (["j2", "j3"], ())
    for claim in first:
        stored = await jobs.get(claim.id)
        assert stored == claim.job
        assert stored.status is S.COMPLETED
        assert stored.finished_at is not None
    assert ((await jobs.get("j0")).result, (await jobs.get("j0")).last_line) == ({"lines": [1.5, "ß"]}, 7)
    for claim in next_ones.claims:
        assert claim.job == await jobs.get(claim.id)
        assert (claim.worker_id, claim.attempt, claim.job.status) == ("w1", 1, S.RUNNING)
    last = await jobs.complete_and_claim(next_ones.claims, 5, **MINE)
    assert ids(last.claims) == ["j4", "aside"]
    assert (await jobs.complete_and_claim(last.claims, 5, **MINE)).claims == []
    assert set((await statuses(jobs)).values()) == {S.COMPLETED}


async def test_either_may_be_nothing(jobs, first):
    """With a limit of 0 nothing is claimed, without claims nothing is completed."""
    assert (await jobs.complete_and_claim(first, 0, **MINE)).claims == []
    assert ids((await jobs.complete_and_claim([], 9, queues=["slow"], **MINE)).claims) == ["aside"]
    assert (await statuses(jobs))["j2"] == S.PENDING


async def test_lost_claims_are_named_and_keep_nobody(jobs, first, end_lease):
    """A job that another worker has by now is left alone; the others are completed, and the next claimed."""
    await end_lease("j0")
    await jobs.release_expired()
    before = await jobs.get("j0")
    next_ones = await jobs.complete_and_claim(first, 1, **MINE)
    assert (ids(next_ones.claims), next_ones.lost) == (["j0"], ("j0",))
    assert next_ones.claims[0].attempt == 2
    assert before.status is S.PENDING
    assert (await jobs.get("j1")).status is S.COMPLETED


async def test_a_job_that_has_ended_by_itself_is_saved_as_that(jobs, first):
    """What a job has made of itself is kept, as `complete` does."""
    first[0].job.cancel("not needed")
    await jobs.complete_and_claim(first, 0, **MINE)
    assert (await jobs.get("j0")).cancellation_reason == "not needed"
    assert await statuses(jobs) | {"j0": S.CANCELLED, "j1": S.COMPLETED} == await statuses(jobs)


async def test_what_cannot_be_stored_changes_nothing(jobs, first):
    """A result without a form in JSON is refused, and nothing is completed or claimed."""
    first[1].job.result = object()
    before = await statuses(jobs)
    with pytest.raises(ValueError, match="object"):
        await jobs.complete_and_claim(first, 2, **MINE)
    assert await statuses(jobs) == before


@pytest.mark.parametrize("complete", ["complete", "complete_and_claim"])
async def test_a_job_that_has_asked_to_be_tried_again_is_not_complete(jobs, first, complete):
    """It is refused, with what to do instead; nothing of the batch is written."""
    first[1].job.mark_for_retry(timedelta(hours=1))
    before = await statuses(jobs)
    with pytest.raises(ValueError, match=r"job 'j1' has asked to be tried again.*use fail\(claim"):
        await getattr(jobs, complete)(first, **(MINE if complete == "complete_and_claim" else {}))
    assert await statuses(jobs) == before
    assert await jobs.fail(first[1], "not yet", retry_in=first[1].job.delay) is S.PENDING
    assert (await jobs.complete_and_claim(first[0], 1, **MINE)).lost == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limit": -1}, "limit"),
        ({"worker_id": ""}, "worker_id"),
        ({"lease": 30}, "lease is 30"),
        ({"queues": "slow"}, "queues is the text 'slow'"),
    ],
)
async def test_nonsense_is_refused_by_name(jobs, first, given, message):
    """Arguments are checked as those of `claim`."""
    with pytest.raises((ValueError, TypeError), match=message):
        await jobs.complete_and_claim(first, **(MINE | given))
    assert (await statuses(jobs))["j0"] == S.RUNNING


async def test_rolled_back_it_has_not_happened(jobs, session_factory, first):
    """In a unit of work that is rolled back the jobs are the worker's as before, and their objects know it."""
    before = await statuses(jobs)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        next_ones = await jobs.complete_and_claim(first, 2, uow=uow, **MINE)
        assert ids(next_ones.claims) == ["j2", "j3"]
        await uow.rollback()
    assert await statuses(jobs) == before
    assert [claim.job.status for claim in first] == [S.RUNNING, S.RUNNING]
    await jobs.complete(first)


async def test_a_job_that_cannot_be_loaded_keeps_nobody(jobs, first, set_columns, row_of):
    """It counts as failed; what is claimed with it gets to its worker."""
    await set_columns("j2", state={"last_line": "no number"})
    next_ones = await jobs.complete_and_claim(first, 2, **MINE)
    assert ids(next_ones.claims) == ["j3"]
    assert (await row_of("j2"))["status"] == S.PENDING


async def test_each_job_has_one_worker(session_factory, jobs):
    """Workers that loop side by side do each job once."""
    await jobs.enqueue_many([Import(id=f"j{n:03}") for n in range(100)])
    done = []

    async def worker(number):
        mine = SQLAlchemyBackgroundJobRepository(Import, session_factory=session_factory)
        claims = await mine.claim(3, worker_id=f"w{number}", lease=LEASE)
        while claims:
            done.extend(ids(claims))
            next_ones = await mine.complete_and_claim(claims, 3, worker_id=f"w{number}", lease=LEASE)
            assert next_ones.lost == ()
            claims = next_ones.claims

    await asyncio.gather(*(worker(number) for number in range(4)))
    assert sorted(done) == [f"j{n:03}" for n in range(100)]
    assert set((await statuses(jobs)).values()) == {S.COMPLETED}


async def test_it_is_no_different_where_statements_are_listened_to(jobs, engine, first):
    """SQLAlchemy executes it where somebody wants to see the statements."""
    seen = []
    sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    next_ones = await jobs.complete_and_claim(first, 2, **MINE)
    assert (ids(next_ones.claims), next_ones.lost) == (["j2", "j3"], ())
    assert next_ones.claims[0].job == await jobs.get("j2")
    assert any("UPDATE jobs" in statement for statement in seen)
