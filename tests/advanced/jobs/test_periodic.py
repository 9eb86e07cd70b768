"""Periodic jobs: each tick's once however many schedulers run, by the database's clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, Periodic
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.periodic import Scheduler
from tests.advanced.jobs.conftest import Import
from tests.advanced.jobs.handlers import Work
from tests.support.waiting import until

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def nightly(path="night.csv"):
    return Import(path=path)


@pytest.mark.parametrize(
    ("expression", "timezone", "last", "following"),
    [
        ("*/5 * * * *", UTC, NOON, NOON + timedelta(minutes=5)),
        ("1 12 * * *", UTC, NOON + timedelta(days=-1, minutes=1), NOON + timedelta(minutes=1)),
        ("0 9 * * *", ZoneInfo("America/New_York"), NOON + timedelta(hours=-23), NOON + timedelta(hours=1)),
        ("* * * * * */30", UTC, NOON, NOON + timedelta(seconds=30)),
    ],
)
def test_ticks_are_those_of_the_expression(expression, timezone, last, following):
    """One that falls on the moment has come; the times are those of the schedule's time zone."""
    periodic = Periodic(expression, nightly, timezone=timezone)
    assert (periodic.last_tick(NOON), periodic.next_tick(NOON)) == (last, following)


def test_schedules_that_make_no_sense_are_refused(jobs):
    """By the expression, or the name that two of them have."""
    for never in ("every day", "0 0 30 2 *"):
        with pytest.raises(ValueError, match="is no cron expression that ever comes"):
            Periodic(never, nightly)
    with pytest.raises(ValueError, match="timezone is 'Europe/Rome': give a tzinfo"):
        Periodic("* * * * *", nightly, timezone="Europe/Rome")
    with pytest.raises(ValueError, match="give a name="):
        Periodic("* * * * *", lambda: Import(path="other"))
    assert Periodic("* * * * *", nightly).name == "nightly * * * * *"
    with pytest.raises(ValueError, match="two schedules have the name 'nightly"):
        Scheduler(jobs, [Periodic("* * * * *", nightly), Periodic("* * * * *", nightly)])


async def test_each_tick_is_enqueued_once_however_many_ask(jobs):
    """A schedule that is new begins with its next tick; of those that were missed, the newest counts."""
    ask = [jobs.enqueue_tick("s", NOON, nightly) for _ in range(8)]
    assert await asyncio.gather(*ask) == [False] * 8
    later = NOON + timedelta(minutes=10)
    assert sorted(await asyncio.gather(*(jobs.enqueue_tick("s", later, nightly) for _ in range(8)))) == [False] * 7 + [
        True
    ]
    assert await jobs.enqueue_tick("s", NOON + timedelta(minutes=5), nightly) is False
    assert (await jobs.count_by_status())[JobStatus.PENDING] == 1


async def test_a_tick_is_remembered_with_its_job_or_not_at_all(jobs, session_factory):
    """Rolled back, or with a factory that fails, it is still to come."""
    await jobs.enqueue_tick("s", NOON, nightly)
    later = NOON + timedelta(minutes=5)

    def broken():
        raise RuntimeError("no job today")

    with pytest.raises(RuntimeError, match="no job today"):
        await jobs.enqueue_tick("s", later, broken)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert await jobs.enqueue_tick("s", later, nightly, uow=uow)
        await uow.rollback()
    assert await jobs.enqueue_tick("s", later, nightly)
    assert (await jobs.count_by_status())[JobStatus.PENDING] == 1


async def test_a_tick_whose_job_has_a_live_unique_key_is_passed_over(jobs):
    """It is not made up for later."""

    def only_one():
        return Import(unique_key="import")

    await jobs.enqueue_tick("s", NOON, only_one)
    assert await jobs.enqueue_tick("s", NOON + timedelta(minutes=1), only_one) is True
    assert await jobs.enqueue_tick("s", NOON + timedelta(minutes=2), only_one) is False
    assert await jobs.enqueue_tick("s", NOON + timedelta(minutes=2), only_one) is False
    assert (await jobs.count_by_status())[JobStatus.PENDING] == 1


@pytest.mark.parametrize(("schedule", "tick"), [("", NOON), ("s" * 256, NOON), ("s", datetime(2026, 5, 1))])  # noqa: DTZ001
async def test_bad_input_is_refused(jobs, schedule, tick):
    """Before anything is asked of the database."""
    with pytest.raises(ValueError, match="schedule|tick"):
        await jobs.enqueue_tick(schedule, tick, nightly)


async def test_workers_enqueue_and_run_periodic_jobs(jobs):
    """Two of them, every second of the database's clock: as many jobs as ticks."""
    work = Work()
    periodic = [Periodic("* * * * * *", nightly)]
    workers = [JobWorker(jobs, work, periodic=periodic, poll_interval=timedelta(milliseconds=20)) for _ in range(2)]
    begun = await jobs.now()
    tasks = [asyncio.create_task(worker.run()) for worker in workers]

    async def three_ran():
        return len(work.given) >= 3

    await until(three_ran)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*tasks)
    ticks = int((await jobs.now()).timestamp()) - int(begun.timestamp())
    assert 3 <= sum((await jobs.count_by_status()).values()) <= ticks


@pytest.mark.parametrize("error", [RuntimeError("no job today"), asyncio.CancelledError()])
async def test_a_factory_that_fails_stops_neither_the_jobs_nor_the_other_schedules(jobs, caplog, error):
    """It is logged by name, and tried again later."""

    def broken():
        raise error

    periodic = [Periodic("* * * * *", broken, name="broken"), Periodic("* * * * *", nightly)]
    for each in periodic:
        await jobs.enqueue_tick(each.name, NOON, nightly)
    work = Work()
    worker = JobWorker(jobs, work, periodic=periodic, poll_interval=timedelta(milliseconds=20))
    task = asyncio.create_task(worker.run())

    async def failed_and_ran():
        return len(work.given) == 1 and "periodic job 'broken': no job was enqueued" in caplog.text

    await until(failed_and_ran)
    worker.stop()
    await task
