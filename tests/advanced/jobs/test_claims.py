"""Claims: each due job is given to one worker, in order, and the attempt is counted."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from tests.advanced.jobs.conftest import LEASE, Import, ids

S = JobStatus
PAST = datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_claim_says_what_a_worker_needs(jobs, row_of):
    """The job as RUNNING, its id, the number of the attempt, when the lease ends, and a token that rises."""
    await jobs.add(Import(id="j1", retry_count=2, last_line=5))
    (claim,) = await jobs.claim(worker_id="w1", lease=LEASE)
    assert (claim.id, claim.attempt, claim.worker_id, claim.job.last_line) == ("j1", 3, "w1", 5)
    assert (claim.job.status, claim.token) == (S.RUNNING, 2)
    assert timedelta(seconds=25) < claim.lease_until - datetime.now(UTC) < timedelta(seconds=35)
    assert claim.job == await jobs.get("j1")
    assert claim.job.started_at is not None
    assert (await row_of("j1"))["worker_id"] == "w1"


async def test_jobs_are_taken_by_priority_and_then_in_the_order_they_are_due(jobs):
    """Higher priorities first; not before their time; those that are added one after the other in that order."""
    for values in (
        {"id": "a", "priority": -1, "run_at": PAST},
        {"id": "b"},
        {"id": "c", "run_at": PAST},
        {"id": "d", "priority": 5},
        {"id": "e", "priority": 9, "run_at": datetime(2999, 1, 1, tzinfo=UTC)},
    ):
        await jobs.add(Import(**values))
    assert ids(await jobs.claim(3, worker_id="w", lease=LEASE)) == ["d", "c", "b"]
    assert ids(await jobs.claim(3, worker_id="w", lease=LEASE)) == ["a"]
    assert await jobs.claim(3, worker_id="w", lease=LEASE) == []
    made = [Import() for _ in range(50)]
    assert await jobs.enqueue_many(made) == ids(made)
    assert ids(await jobs.claim(30, worker_id="w", lease=LEASE)) == ids(made)[:30]


async def test_a_worker_may_be_for_some_queues(jobs):
    """For one, for several, for all; an empty list is none."""
    for number, queue in enumerate(["mail", "slow", "default", "mail"]):
        await jobs.add(Import(id=f"j{number}", queue=queue))
    assert await jobs.claim(9, worker_id="w", lease=LEASE, queues=[]) == []
    assert ids(await jobs.claim(1, worker_id="w", lease=LEASE, queues=["mail"])) == ["j0"]
    assert ids(await jobs.claim(9, worker_id="w", lease=LEASE, queues=("mail", "default"))) == ["j2", "j3"]
    assert ids(await jobs.claim(9, worker_id="w", lease=LEASE)) == ["j1"]


async def test_no_job_is_given_to_two_workers(jobs):
    """Ten workers at once take all of two hundred jobs, and each of them once."""
    made = [Import() for _ in range(200)]
    await jobs.enqueue_many(made)
    taken = []

    async def work(name):
        while claims := await jobs.claim(7, worker_id=name, lease=LEASE):
            taken.extend(ids(claims))
            await jobs.complete(claims)

    await asyncio.gather(*(work(f"w{number}") for number in range(10)))
    assert sorted(taken) == ids(made)
    assert (await jobs.count_by_status())[S.COMPLETED] == 200


async def test_a_claim_in_a_unit_of_work_is_the_callers_to_commit(session_factory, jobs):
    """Rolled back, the job waits again and no attempt is counted."""
    await jobs.add(Import(id="j1"))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert ids(await jobs.claim(worker_id="w1", lease=LEASE, uow=uow)) == ["j1"]
        await uow.rollback()
    (claim,) = await jobs.claim(worker_id="w2", lease=LEASE)
    assert (claim.attempt, claim.job.retry_count) == (1, 0)


async def test_jobs_under_an_open_claim_are_passed_over(database, session_factory, jobs):
    """A claim that is not committed yet keeps nobody from the other jobs (SQLite: until it is committed)."""
    await jobs.enqueue_many([Import(id="j1"), Import(id="j2")])
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert ids(await jobs.claim(worker_id="w1", lease=LEASE, uow=uow)) == ["j1"]
        if database.kind == "postgresql":
            assert ids(await jobs.claim(9, worker_id="w2", lease=LEASE)) == ["j2"]
    assert ids(await jobs.claim(9, worker_id="w3", lease=LEASE)) == ([] if database.kind == "postgresql" else ["j2"])


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_crash_counts_as_an_attempt(jobs, end_lease, by_itself):
    """A job whose workers die runs four times and is FAILED then; a claim that finds nothing else looks for them."""
    await jobs.add(Import(id="j1"))
    attempts = []
    while True:
        claims = await jobs.claim(worker_id="w", lease=LEASE)
        if not claims:
            break
        attempts.append((claims[0].attempt, claims[0].job.retry_count))
        assert await jobs.release_expired() == 0
        await end_lease("j1")
        if not by_itself:
            assert await jobs.release_expired(limit=10) == 1
            assert await jobs.release_expired() == 0
    assert attempts == [(1, 0), (2, 1), (3, 2), (4, 3)]
    job = await jobs.get("j1")
    assert (job.status, job.retry_count) == (S.FAILED, 3)
    assert job.error.startswith("the lease ended before the job did")
    assert job.finished_at is not None


async def test_leases_that_ended_are_released_once(jobs, end_lease):
    """Ten at once, at most so many as wanted, those first that ended first; what was asked to stop is CANCELLED."""
    await jobs.enqueue_many(Import(id=f"j{number}") for number in range(5))
    await jobs.claim(9, worker_id="w", lease=LEASE)
    await jobs.request_cancellation("j0")
    for number in range(5):
        await end_lease(f"j{number}")
    assert await jobs.release_expired(2) == 2
    assert {job.id: job.status for job in await jobs.list()} == {
        "j0": S.CANCELLED,
        "j1": S.PENDING,
        **dict.fromkeys(["j2", "j3", "j4"], S.RUNNING),
    }
    assert sum(await asyncio.gather(*(jobs.release_expired() for _ in range(10)))) == 3
    assert (await jobs.count_by_status())[S.PENDING] == 4


async def test_a_running_job_that_nobody_has_claimed_is_left_alone(jobs):
    """Without a lease it is no claim's business; get_stale_jobs() looks for it."""
    await jobs.add(Import(id="j1", status=S.RUNNING))
    assert await jobs.release_expired() == 0
    assert await jobs.claim(worker_id="w", lease=LEASE) == []


class Moved(BaseBackgroundJob):
    path: int  # was a text


Moved.__name__ = "Import"  # a later version of the class


async def test_a_job_that_cannot_be_loaded_keeps_nobody_from_the_others(session_factory, jobs, caplog, row_of):
    """Its attempt counts as failed, with the reason; the version of the class that can load it may still do it."""
    await jobs.add(Import(id="j1", path="a.csv", max_retries=1))
    await jobs.add(Import(id="j2", path="5", max_retries=1))
    later = SQLAlchemyBackgroundJobRepository(Moved, session_factory=session_factory)
    with caplog.at_level(logging.ERROR):
        assert ids(await later.claim(9, worker_id="w", lease=LEASE)) == ["j2"]
    assert "job 'j1' cannot be loaded as Import" in caplog.text
    row = await row_of("j1")
    assert (row["status"], row["retry_count"], row["lease_until"]) == (S.PENDING, 1, None)
    assert row["error"].startswith("cannot be loaded as Import: ValidationError")
    assert row["due_at"] > datetime.now(UTC)
    job = await jobs.get("j1")
    job.run_at = None
    await jobs.add(job)
    assert await later.claim(9, worker_id="w", lease=LEASE) == []
    assert (await jobs.get("j1")).status is S.FAILED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lease": timedelta(0)}, "lease is .*: give a timedelta above 0"),
        ({"lease": 30}, "lease is 30: give a timedelta above 0"),
        ({"worker_id": ""}, "worker_id must be a text"),
        ({"limit": -1}, "limit must be a whole number"),
        ({"queues": "mail"}, "queues is the text 'mail': give a list"),
    ],
)
async def test_a_claim_that_makes_no_sense_is_refused(jobs, arguments, message):
    """Nothing is claimed."""
    await jobs.add(Import(id="j1"))
    with pytest.raises(ValueError, match=message):
        await jobs.claim(**{"worker_id": "w", "lease": LEASE, **arguments})
    assert ids(await jobs.find_by_status(S.PENDING)) == ["j1"]


async def test_whatever_a_class_raises_keeps_nobody_from_the_other_jobs(jobs, engine, session_factory, monkeypatch):
    """A job whose class raises something odd as it is loaded is set aside; those claimed with it are given."""
    await jobs.enqueue_many([Import(path=f"{n}") for n in range(3)])
    load = SQLAlchemyBackgroundJobRepository.from_model

    def odd(self, model):
        if model.state["path"] == "1":
            raise RuntimeError("odd")
        return load(self, model)

    monkeypatch.setattr(SQLAlchemyBackgroundJobRepository, "from_model", odd)
    claims = await jobs.claim(3, worker_id="w", lease=LEASE)
    assert sorted(claim.job.path for claim in claims) == ["0", "2"]


@pytest.mark.parametrize("queues", [None, ["default"]])
async def test_what_is_claimed_is_told_of_whatever_comes_after_it(jobs, engine, queues):
    """Jobs that are claimed, and committed, get to the worker, also where those of a lost worker cannot be had back."""
    await jobs.add(Import(id="old"))
    await jobs.claim(worker_id="lost", lease=timedelta(milliseconds=1))
    await jobs.add(Import(id="due"))
    async with engine.begin() as connection:
        for statement in REFUSING[engine.dialect.name]:
            await connection.execute(sa.text(statement))
    await asyncio.sleep(0.01)
    assert ids(await jobs.claim(5, worker_id="w", lease=LEASE, queues=queues)) == ["due"]


REFUSING = {
    "sqlite": [
        "CREATE TRIGGER refusing BEFORE UPDATE ON jobs WHEN old.id = 'old' BEGIN SELECT raise(ABORT, 'refused'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
        "CREATE TRIGGER refusing BEFORE UPDATE ON jobs FOR EACH ROW WHEN (old.id = 'old') EXECUTE FUNCTION refuse()",
    ],
}
