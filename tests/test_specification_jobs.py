"""How applications are told to use jobs, each shape as a whole flow, on both databases."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import pytest

from cqrs_ddd_advanced_core import JobStatus
from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

logger = logging.getLogger(__name__)


class EmailService:
    """Notes what it has sent, and cannot reach some addresses."""

    def __init__(self, *unreachable):
        self.sent = []
        self.unreachable = unreachable

    async def send(self, email_id, template_id):
        await asyncio.sleep(0)
        if email_id in self.unreachable:
            raise ConnectionError(f"{email_id} is unreachable")
        self.sent.append((email_id, template_id))


class EmailBatchJob(BaseBackgroundJob):
    email_ids: list[str]
    template_id: str

    async def execute(self, email_service):
        for number, email_id in enumerate(self.email_ids):
            await email_service.send(email_id, self.template_id)
            self.processed_items = number + 1


class FileProcessingJob(BaseBackgroundJob):
    file_id: str


@pytest.fixture
def job_repo():
    """A repository without a factory: each operation is given its unit of work."""
    return SQLAlchemyBackgroundJobRepository(job_cls=EmailBatchJob, stale_job_timeout_seconds=3600)


async def add_job(session_factory, job_repo, name="job-123", emails=("email-1", "email-2", "email-3")):
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        job = EmailBatchJob(id=name, email_ids=list(emails), template_id="welcome", total_items=len(emails))
        await job_repo.add(job, uow=uow)
        await uow.commit()


async def job_worker(session_factory, job_repo, email_service):
    """The worker loop, which ends when nothing waits any more."""
    while True:
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            jobs = await job_repo.find_by_status(status=JobStatus.PENDING, limit=10, uow=uow)
            if not jobs:
                return
            for job in jobs:
                try:
                    job.mark_as_running()
                    await job_repo.add(job, uow=uow)
                    await uow.commit()
                    await job.execute(email_service)
                    job.mark_as_completed()
                    await job_repo.add(job, uow=uow)
                    await uow.commit()
                except Exception as e:  # noqa: BLE001  (the sample's shape)
                    if job.retry_count < job.max_retries:
                        job.mark_for_retry()
                    else:
                        job.mark_as_failed(str(e))
                    await job_repo.add(job, uow=uow)
                    await uow.commit()
        await asyncio.sleep(0)


async def test_component_4_a_worker_runs_what_waits(session_factory, job_repo):
    """A job that succeeds is COMPLETED with its progress; one that never does runs four times and is FAILED."""
    await add_job(session_factory, job_repo)
    await add_job(session_factory, job_repo, "job-124", ["email-4", "nowhere"])
    service = EmailService("nowhere")
    await job_worker(session_factory, job_repo, service)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        job, failed = await job_repo.get("job-123", uow=uow), await job_repo.get("job-124", uow=uow)
    assert (job.status, job.retry_count, (job.processed_items / job.total_items) * 100) == (JobStatus.COMPLETED, 0, 100)
    assert (failed.status, failed.retry_count, failed.progress) == (JobStatus.FAILED, 3, 0.5)
    assert failed.error == "nowhere is unreachable"
    assert service.sent.count(("email-4", "welcome")) == 4
    assert len(service.sent) == 3 + 4


async def test_component_4_stale_jobs_are_found_and_failed(session_factory, job_repo):
    """With a unit of work that has ended, as the sample has it."""
    await add_job(session_factory, job_repo)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        job = await job_repo.get("job-123", uow=uow)
        job.mark_as_running()
        await job_repo.add(job, uow=uow)
    assert await job_repo.get_stale_jobs(timeout_seconds=3600, uow=uow) == []
    stale_jobs = await job_repo.get_stale_jobs(timeout_seconds=0, uow=uow)
    assert [job.id for job in stale_jobs] == ["job-123"]
    for job in stale_jobs:
        logger.warning("Job %s has stalled, marking as failed", job.id)
        job.mark_as_failed("Job stalled")
        await job_repo.add(job, uow=uow)
        await uow.commit()
    job = await job_repo.get("job-123", uow=uow)
    assert (job.status, job.error) == (JobStatus.FAILED, "Job stalled")


async def test_progress_can_be_queried(session_factory, job_repo):
    """Outside of a block, from what was saved last."""
    await add_job(session_factory, job_repo)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        job = await job_repo.get("job-123", uow=uow)
        job.processed_items = 1
        await job_repo.add(job, uow=uow)
    job = await job_repo.get("job-123", uow=uow)
    assert f"{(job.processed_items / job.total_items) * 100:.1f}%" == "33.3%"


async def test_pattern_3_a_job_with_progress(session_factory):
    """A job that is loaded and saved once for each chunk, and completed without ever being marked as running."""
    job_repo = SQLAlchemyBackgroundJobRepository(job_cls=FileProcessingJob)
    lines = [f"line {number}" for number in range(250)]
    processed = []

    async def read_file_chunks(file_id, chunk_size):
        for start in range(0, len(lines), chunk_size):
            yield lines[start : start + chunk_size]

    job = FileProcessingJob(id=str(uuid4()), file_id="f1", total_items=len(lines))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await job_repo.add(job, uow=uow)
        await uow.commit()
    seen = []
    async for chunk in read_file_chunks("f1", chunk_size=100):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            job = await job_repo.get(job.id, uow=uow)
            seen.append(job.progress)
            for line in chunk:
                processed.append(line)
                job.processed_items += 1
            await job_repo.add(job, uow=uow)
            await uow.commit()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        job = await job_repo.get(job.id, uow=uow)
        job.mark_as_completed()
        await job_repo.add(job, uow=uow)
        await uow.commit()
    assert (seen, processed) == ([0.0, 0.4, 0.8], lines)
    job = await job_repo.get(job.id, uow=uow)
    assert (job.status, job.progress, job.file_id) == (JobStatus.COMPLETED, 1.0, "f1")


async def test_two_worker_loops_at_once_never_run_a_job_twice(session_factory, job_repo):
    """One does all that is left when the other has met a job that was taken, and has stopped with a conflict."""
    for number in range(20):
        await add_job(session_factory, job_repo, f"job-{number:02}", [f"email-{number}"])
    service = EmailService()
    both_have_looked = asyncio.Barrier(2)
    looks = []
    find = job_repo.find_by_status

    async def find_together(**arguments):
        found = await find(**arguments)
        looks.append([job.id for job in found])
        if len(looks) <= 2 and len(found) == 10:
            await arguments["uow"].commit()  # SQLite has one writer at a time, who would keep the other from looking
            await both_have_looked.wait()
        return found

    job_repo.find_by_status = find_together
    ended = await asyncio.gather(
        *(job_worker(session_factory, job_repo, service) for _ in range(2)), return_exceptions=True
    )
    assert looks[0] == looks[1]
    assert sorted(type(each).__name__ for each in ended) == ["NoneType", "OptimisticConcurrencyError"]
    conflict = next(each for each in ended if each is not None)
    assert isinstance(conflict, OptimisticConcurrencyError)
    assert conflict.entity_type == "EmailBatchJob"
    assert sorted(service.sent) == sorted((f"email-{number}", "welcome") for number in range(20))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert (await job_repo.count_by_status(uow=uow))[JobStatus.COMPLETED] == 20
