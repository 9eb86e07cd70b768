"""Jobs in their table: saved, found, counted, cancelled and cleared away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import Field

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError
from tests.advanced.jobs.conftest import LEASE, Import, Report, ids

S = JobStatus
FUTURE = datetime(2999, 1, 1, tzinfo=UTC)


class Invoice(BaseBackgroundJob):
    total: Decimal
    seen: set[str] = Field(default_factory=set)


async def test_a_job_comes_back_whole(session_factory):
    """Every field of the base and of the subclass, whatever its type."""
    invoices = SQLAlchemyBackgroundJobRepository(job_cls=Invoice, session_factory=session_factory)
    job = Invoice(
        total=Decimal("9.90"), seen={"a"}, queue="slow", priority=-3, run_at=FUTURE, unique_key="k", correlation_id="c",
        total_items=2**40, processed_items=7, retry_count=1, max_retries=5, result={"a": [1, None]}, error="e",
        cancellation_reason="r", started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    await invoices.add(job)
    found = await invoices.get(job.id)
    assert found == job
    for result in ("text", 5, [1], None):
        found.result = result
        await invoices.add(found)
        assert (await invoices.get(job.id)).result == result


async def test_classes_share_the_table_without_meeting_each_other(jobs, reports):
    """Neither by id nor by status, count, claim, cancellation or purge; an id is one job's all the same."""
    await jobs.add(Import(id="i1", unique_key="k"))
    await reports.add(Report(id="r1", unique_key="k"))
    assert await reports.get("i1") is None
    assert not await reports.exists("i1")
    assert ids(await reports.find_by_status(S.PENDING)) == ["r1"]
    assert not await reports.request_cancellation("i1")
    assert not await reports.delete("i1")
    assert (await reports.count_by_status())[S.PENDING] == 1
    assert ids(await reports.claim(10, worker_id="w", lease=LEASE)) == ["r1"]
    done = await jobs.get("i1")
    done.mark_as_completed()
    await jobs.add(done)
    assert await reports.purge(FUTURE) == 0
    with pytest.raises(OptimisticConcurrencyError):
        await reports.add(Report(id="i1"))
    with pytest.raises(TypeError, match="this repository stores Report, not Import"):
        await reports.add(Import())


async def test_jobs_are_found_by_one_status_or_several(jobs):
    """Oldest first, whether or not they are due, page by page."""
    for number, status in enumerate(S):
        await jobs.add(Import(id=f"j{number}", status=status))
    await jobs.add(Import(id="later", run_at=FUTURE))
    assert ids(await jobs.find_by_status(status=S.PENDING, limit=10)) == ["j0", "later"]
    assert ids(await jobs.find_by_status(["FAILED", S.PENDING])) == ["j0", "j3", "later"]
    assert ids(await jobs.find_by_status(status=[*S], limit=2, offset=1)) == ["j1", "j2"]
    with pytest.raises(ValueError, match="'ASLEEP' is not a valid JobStatus"):
        await jobs.find_by_status("ASLEEP")
    with pytest.raises(ValueError, match="give at least one status"):
        await jobs.find_by_status([])


async def test_jobs_are_counted_by_status(jobs):
    """Those of which there is none, too."""
    for _ in range(3):
        await jobs.add(Import())
    await jobs.add(Import(status=S.FAILED))
    assert await jobs.count_by_status() == dict.fromkeys(S, 0) | {S.PENDING: 3, S.FAILED: 1}


async def test_stale_jobs_run_and_are_not_saved(jobs, set_columns):
    """By the database's time of the last save, longest first; a claim that holds keeps a job from being stale."""
    for status in S:
        await jobs.add(Import(id=status, status=status))
    assert await jobs.get_stale_jobs() == []
    assert ids(await jobs.get_stale_jobs(timeout_seconds=0)) == ["RUNNING"]
    hours_ago = datetime.now(UTC) - timedelta(hours=2)
    await set_columns("RUNNING", updated_at=hours_ago)
    assert ids(await jobs.get_stale_jobs()) == ["RUNNING"]
    await jobs.claim(worker_id="w", lease=LEASE)
    await set_columns("PENDING", updated_at=hours_ago)
    assert ids(await jobs.get_stale_jobs(timeout_seconds=3600)) == ["RUNNING"]
    await set_columns("PENDING", lease_until=hours_ago)
    assert ids(await jobs.get_stale_jobs(3600)) == ["PENDING", "RUNNING"]
    for seconds in (-1, float("inf"), float("nan"), True):
        with pytest.raises(ValueError, match="timeout_seconds"):
            await jobs.get_stale_jobs(timeout_seconds=seconds)


async def test_a_retry_waits_by_the_databases_clock(session_factory, jobs):
    """The duration becomes a time when the job is saved; a rollback makes it a duration again."""
    job = await jobs.add(Import(id="j1"))
    job.mark_as_running()
    await jobs.add(job)
    job.mark_for_retry(timedelta(hours=1))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await jobs.add(job, uow=uow)
        assert job.delay is None
        await uow.rollback()
    assert (job.delay, job.run_at) == (timedelta(hours=1), None)
    await jobs.add(job)
    found = await jobs.get("j1")
    assert (found.run_at, found.retry_count, found.status) == (job.run_at, 1, S.PENDING)
    assert timedelta(minutes=59) < found.run_at - datetime.now(UTC) < timedelta(minutes=61)
    assert await jobs.claim(worker_id="w", lease=LEASE) == []
    found.run_at = None  # at once, after all
    await jobs.save(found)
    assert ids(await jobs.claim(worker_id="w", lease=LEASE)) == ["j1"]


async def test_one_live_job_has_a_unique_key(session_factory, jobs):
    """A second one is refused by name, and the transaction is usable; once the first is over, the key is free."""
    first = await jobs.add(Import(id="j1", unique_key="a.csv"))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(ValueError, match="Import: another one has the same job_type, unique_key"):
            await jobs.add(Import(id="j2", unique_key="a.csv"), uow=uow)
        await jobs.add(Import(id="j3", unique_key="b.csv"), uow=uow)
        await jobs.add(Import(id="j4"), uow=uow)
        await jobs.add(Import(id="j5"), uow=uow)
    first.mark_as_running()
    await jobs.add(first)
    with pytest.raises(ValueError, match="unique_key"):
        await jobs.add(Import(id="j2", unique_key="a.csv"))
    first.mark_as_failed("no")
    await jobs.add(first)
    await jobs.add(Import(id="j2", unique_key="a.csv"))
    assert ids(await jobs.list()) == ["j1", "j3", "j4", "j5", "j2"]


async def test_of_many_adders_of_one_key_one_wins(jobs):
    """Ten at once."""
    added = await asyncio.gather(*(jobs.add(Import(unique_key="k")) for _ in range(10)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in added) == ["Import", *["ValueError"] * 9]


async def test_a_waiting_job_is_cancelled_at_once(jobs):
    """Nobody is given it any more, whoever had loaded it cannot save it, and asking again changes nothing."""
    loaded = await jobs.add(Import(id="j1"))
    assert await jobs.request_cancellation("j1")
    found = await jobs.get("j1")
    assert found.status is S.CANCELLED
    assert found.finished_at is not None
    assert await jobs.claim(worker_id="w", lease=LEASE) == []
    assert not await jobs.request_cancellation("j1")
    assert not await jobs.request_cancellation("j2")
    loaded.mark_as_running()
    with pytest.raises(OptimisticConcurrencyError):
        await jobs.add(loaded)


async def test_a_running_job_is_asked_to_stop(jobs):
    """Whoever runs it can still save it: as completed, but not to be tried again."""
    for name in ("done", "again"):
        await jobs.add(Import(id=name, status=S.RUNNING))
    done, again = await jobs.get("done"), await jobs.get("again")
    assert [await jobs.request_cancellation(name) for name in ("done", "again")] == [True, True]
    done.processed_items = 1
    await jobs.add(done)
    assert (await jobs.get("done")).cancellation_requested_at is not None
    done.mark_as_completed()
    await jobs.add(done)
    assert (await jobs.get("done")).status is S.COMPLETED
    again.mark_for_retry()
    await jobs.add(again)
    assert again.status is S.CANCELLED
    assert again == await jobs.get("again")
    assert again.finished_at is not None


async def test_what_is_over_is_purged(session_factory, jobs, set_columns):
    """Terminal jobs alone, those that were written last before the time given, more than a thousand as well."""
    for status in S:
        await jobs.add(Import(id=status, status=status))
    past = datetime.now(UTC) - timedelta(days=1)
    assert await jobs.purge(before=past) == 0
    await set_columns("COMPLETED", updated_at=past - timedelta(days=1))
    await set_columns("RUNNING", updated_at=past - timedelta(days=1))
    assert await jobs.purge(past) == 1
    assert await jobs.purge(before=FUTURE, statuses=[S.CANCELLED]) == 1
    assert await jobs.count_by_status() == dict.fromkeys(S, 0) | {S.PENDING: 1, S.RUNNING: 1, S.FAILED: 1}
    await jobs.enqueue_many(Import(id=f"n{number}") for number in range(2500))
    await jobs.complete(await jobs.claim(2500, worker_id="w", lease=LEASE))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert await jobs.purge(FUTURE, uow=uow) == 2501
        await uow.rollback()
    assert await jobs.purge(FUTURE) == 2501
    assert ids(await jobs.list(limit=10)) == ["RUNNING", "n999"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"before": datetime(2026, 1, 1)}, "before is the naive datetime"),  # noqa: DTZ001
        ({"before": FUTURE, "statuses": [S.RUNNING, S.FAILED]}, "statuses has RUNNING: only jobs that are over"),
    ],
)
async def test_a_purge_that_makes_no_sense_is_refused(jobs, arguments, message):
    """Nothing is deleted."""
    await jobs.add(Import(status=S.FAILED))
    with pytest.raises(ValueError, match=message):
        await jobs.purge(**arguments)
    assert (await jobs.count_by_status())[S.FAILED] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [({"unique_key": "\0"}, "unique_key contains a NUL"), ({"path": "\ud800"}, "state.path contains a lone surrogate")],
)
async def test_what_cannot_be_stored_is_named(jobs, values, message):
    """By both databases alike, one by one and in a batch."""
    for attempt in (lambda: jobs.add(Import(**values)), lambda: jobs.enqueue_many([Import(**values)])):
        with pytest.raises(ValueError, match=message):
            await attempt()


async def test_errors_are_stored_whatever_they_say(jobs):
    """NUL characters are replaced, and long ones are cut."""
    job = Import(id="j1")
    job.mark_as_failed("\0" + "x" * 10_000)
    await jobs.add(job)
    assert (await jobs.get("j1")).error == "\N{REPLACEMENT CHARACTER}" + "x" * 3999 + "..."


async def test_without_a_transaction_it_says_what_to_pass():
    """Neither a unit of work nor a factory."""
    with pytest.raises(UnitOfWorkError, match="pass uow=, or give it a session_factory or uow_factory"):
        await SQLAlchemyBackgroundJobRepository(Import).claim(worker_id="w", lease=LEASE)


@pytest.mark.parametrize("seconds", [-1, True, float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(seconds):
    """When the repository is made."""
    with pytest.raises(ValueError, match="stale_job_timeout_seconds"):
        SQLAlchemyBackgroundJobRepository(Import, stale_job_timeout_seconds=seconds)
