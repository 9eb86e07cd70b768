"""A worker takes jobs, runs them, and sees to it that each ends, however that is."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.models import BackgroundJobModel
from tests.advanced.jobs.conftest import LEASE, Import
from tests.advanced.jobs.handlers import SHORT, Work
from tests.support.waiting import PATIENCE_SECONDS, until

LONG = timedelta(hours=1)


class Mail(BaseBackgroundJob):
    to: str = "somebody"

    async def execute(self, post, stamp="cheap"):
        await post(self.to, stamp)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Retries come at once."""
    monkeypatch.setattr(Import, "first_delay", timedelta(0))


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def make_worker(jobs, work):
    def make(**options):
        return JobWorker(jobs, work, **{"poll_interval": SHORT, "heartbeat": SHORT, **options})

    return make


async def test_due_jobs_are_run_and_completed(jobs, make_worker, work):
    """With what the handler returns as the result, and what the job remembers."""
    await jobs.enqueue_many([Import(id=f"j{number}") for number in range(25)])
    assert await make_worker().run_due() == 25
    assert sorted(work.given) == sorted(f"j{number}" for number in range(25))
    job = await jobs.get("j7")
    assert (job.status, job.result, job.last_line) == (JobStatus.COMPLETED, {"lines": 1}, 1)
    assert await make_worker().run_due() == 0


async def test_a_job_may_have_a_method_that_runs_it(session_factory):
    """Services come by the names of its parameters."""
    posted = []

    async def post(to, stamp):
        posted.append((to, stamp))

    mails = SQLAlchemyBackgroundJobRepository(Mail, session_factory=session_factory)
    await mails.add(Mail(id="m1", to="Ada"))
    assert await JobWorker(mails, services={"post": post, "unused": 1}).run_due() == 1
    assert posted == [("Ada", "cheap")]
    assert (await mails.get("m1")).status is JobStatus.COMPLETED


async def test_what_cannot_run_is_refused_before_anything_runs(session_factory, jobs):
    """With the name of what is missing."""
    mails = SQLAlchemyBackgroundJobRepository(Mail, session_factory=session_factory)
    with pytest.raises(ValueError, match=r"Mail.execute\(\) needs 'post': JobWorker\(..., services="):
        JobWorker(mails)
    with pytest.raises(ValueError, match=r"Import has no async method execute\(\)"):
        JobWorker(jobs)
    with pytest.raises(ValueError, match="is not an async function"):
        JobWorker(jobs, lambda _job: None)


async def test_a_failed_job_is_tried_again_and_fails_for_good_in_the_end(jobs, make_worker, work):
    """After `max_retries` retries, with the last error kept."""
    await jobs.enqueue_many([Import(id="good", max_retries=3), Import(id="bad", max_retries=2)])
    work.errors = {"good": 3, "bad": 9}
    worker = make_worker()
    task = asyncio.create_task(worker.run())

    async def over():
        counts = await jobs.count_by_status()
        return counts[JobStatus.PENDING] + counts[JobStatus.RUNNING] == 0

    await until(over)
    worker.stop()
    await task
    good, bad = await jobs.get("good"), await jobs.get("bad")
    assert (good.status, good.retry_count, work.given.count("good")) == (JobStatus.COMPLETED, 3, 4)
    assert (bad.status, bad.error, work.given.count("bad")) == (JobStatus.FAILED, "ConnectionError: no", 3)


async def test_stop_gives_back_what_does_not_end_in_time(jobs, make_worker, work):
    """The attempt does not count, and another worker takes the job at once."""
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    worker = make_worker(grace=timedelta(milliseconds=50))
    task = asyncio.create_task(worker.run())
    await work.reached.wait()
    worker.stop()
    await task
    job = await jobs.get("j1")
    assert (job.status, job.retry_count, job.last_line) == (JobStatus.PENDING, 0, 0)
    work.gate = None
    assert await make_worker().run_due() == 1
    assert (await jobs.get("j1")).status is JobStatus.COMPLETED


async def test_stop_lets_jobs_end_within_the_grace(jobs, make_worker, work):
    """And takes no others."""
    await jobs.enqueue_many([Import(id=f"j{number}") for number in range(3)])
    work.gate = asyncio.Event()
    worker = make_worker(concurrency=1, grace=LONG)
    task = asyncio.create_task(worker.run())
    await work.reached.wait()
    worker.stop()
    work.gate.set()
    await task
    counts = await jobs.count_by_status()
    assert (counts[JobStatus.COMPLETED], counts[JobStatus.PENDING]) == (1, 2)


async def test_a_cancelled_worker_gives_its_jobs_back(jobs, make_worker, work):
    """Nothing stays RUNNING."""
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    task = asyncio.create_task(make_worker().run())
    await work.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ((await jobs.get("j1")).status, (await jobs.get("j1")).retry_count) == (JobStatus.PENDING, 0)


async def test_a_job_that_cannot_be_cancelled_does_not_keep_its_worker(jobs, monkeypatch, caplog):
    """It is left until its lease ends: given back, it might run twice at once."""
    monkeypatch.setattr("cqrs_ddd_persistence_sqlalchemy.advanced.jobs.attempt_pool.GIVING_BACK_SECONDS", 0.05)
    release, reached = asyncio.Event(), asyncio.Event()

    async def stubborn(_job):
        reached.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    await jobs.add(Import(id="j1"))
    worker = JobWorker(jobs, stubborn, grace=SHORT)
    task = asyncio.create_task(worker.run())
    await reached.wait()
    worker.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await task
    assert (await jobs.get("j1")).status is JobStatus.RUNNING
    assert "job 'j1' does not end though it is cancelled" in caplog.text
    release.set()


async def test_a_worker_runs_once_at_a_time(jobs, make_worker, work):
    """A second call is refused while the first one is at work, and welcome afterwards."""
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    worker = make_worker()
    task = asyncio.create_task(worker.run())
    await work.reached.wait()
    with pytest.raises(RuntimeError, match="runs already"):
        await worker.run_due()
    work.gate.set()
    worker.stop()
    await task
    assert await worker.run_due() == 0


async def test_sigterm_stops_a_worker_that_handles_signals(jobs, make_worker, work):
    """As stop() does."""
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    task = asyncio.create_task(make_worker(grace=timedelta(milliseconds=50)).run(handle_signals=True))
    await work.reached.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await task
    assert (await jobs.get("j1")).status is JobStatus.PENDING


@pytest.mark.parametrize("hears", [True, False], ids=["hears", "is cancelled"])
async def test_a_running_job_is_cancelled_on_request(jobs, make_worker, work, hears):
    """It hears of it, and is cancelled when it does not stop by itself within the grace."""
    await jobs.add(Import(id="j1"))
    work.gate, work.hears = asyncio.Event(), hears
    worker = make_worker(grace=timedelta(hours=1) if hears else timedelta(milliseconds=30))
    task = asyncio.create_task(worker.run_due())
    await work.reached.wait()
    assert await jobs.request_cancellation("j1")
    assert await task == 1
    job = await jobs.get("j1")
    assert (job.status, job.cancellation_reason) == (JobStatus.CANCELLED, "as asked" if hears else None)
    assert await make_worker().run_due() == 0


async def test_a_job_that_completes_all_the_same_is_completed(jobs, make_worker, work):
    """Whoever does not say that it has stopped has done its work."""
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    task = asyncio.create_task(make_worker(grace=LONG).run_due())
    await work.reached.wait()
    assert await jobs.request_cancellation("j1")
    work.gate.set()
    await task
    assert (await jobs.get("j1")).status is JobStatus.COMPLETED


async def test_progress_is_saved_while_the_job_runs(jobs, make_worker):
    """With the heartbeats, for whoever looks."""
    gate = asyncio.Event()

    async def count(job):
        job.total_items = 10
        job.processed_items = 4
        await gate.wait()

    await jobs.add(Import(id="j1"))
    worker = JobWorker(jobs, count, heartbeat=SHORT)
    task = asyncio.create_task(worker.run_due())

    async def is_saved():
        return (await jobs.get("j1")).progress == 0.4

    await until(is_saved)
    gate.set()
    await task


async def test_a_lease_is_renewed_however_long_a_job_takes(jobs, make_worker, work):
    """Nobody else is given it."""
    lease = timedelta(seconds=1.5)
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    task = asyncio.create_task(make_worker(lease=lease).run_due())
    await work.reached.wait()
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.5 * lease.total_seconds()
    while loop.time() < end:
        assert await jobs.claim(worker_id="another", lease=LEASE) == []
        await asyncio.sleep(0.05)  # others write, too
    work.gate.set()
    await task
    assert work.given == ["j1"]


async def test_a_worker_that_has_lost_a_job_stops_it_and_records_nothing(jobs, make_worker, work, engine, caplog):
    """Whoever has taken it over decides what it is."""
    await jobs.add(Import(id="j1"))
    work.gate = asyncio.Event()
    task = asyncio.create_task(make_worker().run_due())
    await work.reached.wait()
    async with engine.begin() as connection:  # as if it had been given to another worker after its lease
        taken = {"version": BackgroundJobModel.version + 2, "retry_count": 1, "worker_id": "another"}
        await connection.execute(sa.update(BackgroundJobModel).values(taken))
    await task
    assert (await jobs.get("j1")).status is JobStatus.RUNNING
    assert "the lease of job 'j1' is lost" in caplog.text


async def test_a_job_of_a_dead_worker_is_run_by_another(jobs, make_worker, work, end_lease):
    """When its lease has ended; the attempt of the dead one counts."""
    await jobs.add(Import(id="j1"))
    await jobs.claim(worker_id="dead", lease=LEASE)
    assert await make_worker().run_due() == 0
    await end_lease("j1")
    assert await make_worker().run_due() == 1
    job = await jobs.get("j1")
    assert (job.status, job.retry_count) == (JobStatus.COMPLETED, 1)


async def test_queues_are_those_asked_for(jobs, make_worker, work):
    """All of them unless some are named."""
    await jobs.enqueue_many([Import(id=queue, queue=queue) for queue in ("slow", "fast", "other")])
    assert await make_worker(queues=["slow", "fast"]).run_due() == 2
    assert sorted(work.given) == ["fast", "slow"]
    assert await make_worker().run_due() == 1


async def test_no_more_than_so_many_jobs_run_at_once(jobs):
    """`concurrency` of them."""
    running, most = 0, 0

    async def count(_job):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    await jobs.enqueue_many([Import() for _ in range(20)])
    assert await JobWorker(jobs, count, concurrency=3).run_due() == 20
    assert most == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0"),
        ({"lease": timedelta(0)}, "lease is a timedelta above 0"),
        ({"heartbeat": 5}, "heartbeat is a timedelta above 0"),
        ({"grace": timedelta(-1)}, "grace is a timedelta above 0"),
        ({"worker_id": ""}, "worker_id must be a text"),
        ({"queues": "slow"}, "queues is 'slow': give a list"),
        ({"queues": []}, "at least one name, or nothing for all"),
    ],
)
async def test_what_makes_no_sense_is_refused(jobs, work, options, message):
    """By the name of the argument."""
    with pytest.raises(ValueError, match=message):
        JobWorker(jobs, work, **options)
