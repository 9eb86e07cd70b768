"""What a worker may do with its claim, and that whoever has lost it changes nothing any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError, OptimisticConcurrencyError
from tests.advanced.jobs.conftest import LEASE, Import, ids

S = JobStatus

WRITES = {
    "heartbeat": lambda jobs, claim, uow=None: jobs.heartbeat(claim, LEASE, uow=uow),
    "complete": lambda jobs, claim, uow=None: jobs.complete(claim, uow=uow),
    "fail": lambda jobs, claim, uow=None: jobs.fail(claim, "no", uow=uow),
    "release": lambda jobs, claim, uow=None: jobs.release(claim, uow=uow),
}


@pytest.fixture
async def claim(jobs):
    await jobs.add(Import(id="j1", total_items=10))
    (claimed,) = await jobs.claim(worker_id="w1", lease=LEASE)
    return claimed


async def taken_by_another(jobs, claim, end_lease):
    await end_lease(claim.id)
    assert ids(await jobs.claim(worker_id="w2", lease=LEASE)) == [claim.id]


async def given_back(jobs, claim, end_lease):
    await end_lease(claim.id)
    await jobs.release_expired()


async def saved_by_another(jobs, claim, end_lease):
    job = await jobs.get(claim.id)
    job.mark_as_failed("stalled")
    await jobs.add(job)


async def taken_by_a_loop(jobs, claim, end_lease):
    await given_back(jobs, claim, end_lease)
    job = await jobs.get(claim.id)
    job.mark_as_running()
    await jobs.add(job)


async def deleted(jobs, claim, end_lease):
    await jobs.delete(claim.id)


@pytest.mark.parametrize("lose", [taken_by_another, given_back, saved_by_another, taken_by_a_loop, deleted])
@pytest.mark.parametrize("write", WRITES)
async def test_a_lost_claim_changes_nothing(session_factory, jobs, claim, end_lease, lose, write):
    """However it was lost and whatever it writes: LeaseLostError, the row is as it was, the transaction usable."""
    claim.job.processed_items, claim.job.last_line, claim.job.result = 9, 9, 9
    await lose(jobs, claim, end_lease)
    before = await jobs.get("j1")
    mine = claim.job.model_copy()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(LeaseLostError, match="the lease of job 'j1' is lost") as caught:
            await WRITES[write](jobs, claim, uow)
        assert (caught.value.kind, caught.value.lost) == ("job", ("j1",))
        await jobs.add(Import(id="other"), uow=uow)
    assert await jobs.get("j1") == before
    assert await jobs.exists("other")
    assert claim.job == mine
    with pytest.raises(OptimisticConcurrencyError):
        await jobs.add(claim.job)


async def test_a_heartbeat_renews_the_lease_and_saves_progress(jobs, claim, end_lease):
    """Also when the lease has ended and nobody has taken the job; the token stays, and only progress is saved."""
    await end_lease("j1")
    claim.job.processed_items, claim.job.last_line = 4, 40
    token = claim.token
    assert await jobs.heartbeat(claim, timedelta(minutes=10)) is False
    assert timedelta(minutes=9) < claim.lease_until - datetime.now(UTC) < timedelta(minutes=11)
    found = await jobs.get("j1")
    assert (found.progress, found.last_line, claim.token) == (0.4, 0, token)
    assert await jobs.release_expired() == 0
    await jobs.complete(claim)
    assert (await jobs.get("j1")).last_line == 40


async def test_a_heartbeat_reports_that_the_job_shall_stop(jobs, claim):
    """The claim holds; given back in any way the job is CANCELLED, and not tried again."""
    assert await jobs.request_cancellation("j1")
    assert await jobs.heartbeat(claim, LEASE) is True
    assert claim.job.cancellation_requested_at is not None
    assert await jobs.release(claim) is S.CANCELLED
    found = await jobs.get("j1")
    assert found == claim.job
    assert (found.status, found.retry_count) == (S.CANCELLED, 0)
    assert found.finished_at is not None


async def test_completion_saves_everything(jobs, claim):
    """Result, progress and fields of the subclass; the claim is over with it."""
    claim.job.result, claim.job.processed_items, claim.job.last_line = {"rows": 10}, 10, 99
    assert await jobs.complete([claim]) is None
    found = await jobs.get("j1")
    assert (found.status, found.result, found.progress, found.last_line) == (S.COMPLETED, {"rows": 10}, 1.0, 99)
    assert found == claim.job
    assert found.finished_at >= found.started_at
    with pytest.raises(LeaseLostError):
        await jobs.complete([claim])
    await jobs.add(claim.job)  # the object is as good as a loaded one


async def test_a_job_may_end_itself_in_another_way(jobs, claim):
    """What the work made of it is what is saved."""
    claim.job.cancel("nothing to import")
    await jobs.complete(claim)
    found = await jobs.get("j1")
    assert (found.status, found.cancellation_reason) == (S.CANCELLED, "nothing to import")


async def test_of_several_completions_the_lost_ones_are_named(jobs, end_lease):
    """The others are complete all the same."""
    await jobs.enqueue_many(Import(id=f"j{number}") for number in range(5))
    claims = await jobs.claim(5, worker_id="w1", lease=LEASE)
    for name in ("j1", "j3"):
        await end_lease(name)
    assert await jobs.release_expired() == 2
    with pytest.raises(LeaseLostError, match="the lease of job 'j1', 'j3' is lost") as caught:
        await jobs.complete(claims)
    assert caught.value.lost == ("j1", "j3")
    assert ids(await jobs.find_by_status(S.COMPLETED)) == ["j0", "j2", "j4"]
    assert ids(await jobs.find_by_status(S.PENDING)) == ["j1", "j3"]
    assert [claim.job.status for claim in claims] == [S.COMPLETED, S.RUNNING] * 2 + [S.COMPLETED]
    await jobs.complete([])


async def test_a_failure_is_tried_again_until_no_attempt_is_left(jobs):
    """Errors, attempts and what the job has remembered are kept; the last failure is for good."""
    await jobs.add(Import(id="j1", max_retries=2))
    for attempt in (1, 2, 3):
        (claim,) = await jobs.claim(worker_id="w", lease=LEASE)
        assert (claim.attempt, claim.job.last_line) == (attempt, (attempt - 1) * 10)
        claim.job.last_line = attempt * 10
        status = await jobs.fail(claim, OSError(f"failure {attempt}"), retry_in=timedelta(0))
        found = await jobs.get("j1")
        assert status is found.status
        assert found == claim.job
        assert found.error == f"OSError: failure {attempt}"
    assert (found.status, found.retry_count, found.last_line) == (S.FAILED, 2, 30)
    assert found.finished_at is not None


async def test_a_failed_job_waits(jobs, claim):
    """By the backoff of its class, or as long as is said."""
    assert await jobs.fail(claim, "no") is S.PENDING
    assert timedelta(seconds=3) < claim.job.run_at - datetime.now(UTC) < timedelta(seconds=12)
    assert await jobs.claim(worker_id="w", lease=LEASE) == []
    assert claim.job.finished_at is None
    await jobs.add(Import(id="j2"))
    (other,) = await jobs.claim(worker_id="w", lease=LEASE)
    for retry_in in (timedelta(seconds=-1), 5):
        with pytest.raises(ValueError, match="retry_in is .*: give a timedelta from 0"):
            await jobs.fail(other, "no", retry_in=retry_in)
    await jobs.fail(other, "no", retry_in=timedelta(hours=1))
    assert timedelta(minutes=59) < other.job.run_at - datetime.now(UTC) < timedelta(minutes=61)


async def test_a_job_given_back_unfinished_keeps_its_attempt_and_its_place(jobs, claim):
    """It is taken up again where it was left, before those that came later."""
    await jobs.add(Import(id="j2"))
    claim.job.last_line, claim.job.processed_items = 7, 1
    assert await jobs.release(claim) is S.PENDING
    assert claim.job.status is S.PENDING
    first, _ = await jobs.claim(2, worker_id="w2", lease=LEASE)
    assert (first.id, first.attempt, first.job.last_line, first.job.processed_items) == ("j1", 1, 7, 1)


async def test_a_worker_may_save_its_job_and_keeps_the_claim(jobs, claim):
    """A checkpoint in the middle of the work: the token rises, the lease stays."""
    claim.job.last_line = 7
    token = claim.token
    await jobs.add(claim.job)
    assert claim.token == token + 1
    assert await jobs.release_expired() == 0
    assert (await jobs.get("j1")).last_line == 7
    assert await jobs.heartbeat(claim, LEASE) is False
    await jobs.complete(claim)


@pytest.mark.parametrize("write", ["complete", "fail", "release"])
async def test_what_is_rolled_back_can_be_done_again(session_factory, jobs, claim, write):
    """The claim holds, and the job in memory is as it was: no attempt is counted twice."""
    before = claim.job.model_copy()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await WRITES[write](jobs, claim, uow)
        assert claim.job.status is not S.RUNNING
        await uow.rollback()
        assert (claim.job, claim.token) == (before, 2)
        await WRITES[write](jobs, claim, uow)
        await uow.commit()
    found = await jobs.get("j1")
    assert found == claim.job
    assert found.retry_count == (1 if write == "fail" else 0)
