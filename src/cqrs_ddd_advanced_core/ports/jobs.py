"""The port of job repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime, timedelta

Job = TypeVar("Job", bound=BaseBackgroundJob)

_OVER = (JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.FAILED)


class IBackgroundJobRepository(Protocol[Job]):
    """Jobs of one class. A claim is whatever `claim` returns: `job`, `id`, `token`, `attempt` and `lease_until`."""

    async def add(self, entity: Job, *, uow: Any = None) -> Job:
        """Insert a new job, or update one that was loaded or saved before.

        A lost race is a conflict and changes nothing; so is a second live job of one unique key (ValueError).
        """
        ...

    async def get(self, entity_id: str, *, uow: Any = None) -> Job | None:
        """Return the job with this id, or None."""
        ...

    async def find_by_status(
        self, status: JobStatus | Iterable[JobStatus], limit: int = 100, offset: int = 0, *, uow: Any = None
    ) -> list[Job]:
        """Return jobs with one status or one of several, whether or not they are due, oldest first."""
        ...

    async def get_stale_jobs(
        self, timeout_seconds: float | None = None, limit: int = 100, *, uow: Any = None
    ) -> list[Job]:
        """Return RUNNING jobs that were not saved for so long and are not claimed, those that wait longest first."""
        ...

    async def count_by_status(self, *, uow: Any = None) -> dict[JobStatus, int]:
        """Return how many jobs there are of each status."""
        ...

    async def enqueue_many(self, jobs: Iterable[Job], *, uow: Any = None) -> list[str]:
        """Save new jobs, and return the ids of those that nothing stood in the way of: an id, or a live unique key."""
        ...

    async def request_cancellation(self, job_id: str, *, uow: Any = None) -> bool:
        """Cancel a PENDING job, let a RUNNING one know; False where there is nothing to cancel."""
        ...

    async def purge(self, before: datetime, statuses: Iterable[JobStatus] = _OVER, *, uow: Any = None) -> int:
        """Delete jobs that are over and were written last before a point in time; return how many."""
        ...

    async def claim(
        self,
        limit: int = 1,
        *,
        worker_id: str,
        lease: timedelta,
        queues: Collection[str] | None = None,
        uow: Any = None,
    ) -> list[Any]:
        """Take due jobs, each for one worker until its lease ends; the attempt is counted.

        Higher priorities come first, then what is due longest. Whatever a lost claim writes is refused.
        """
        ...

    async def complete_and_claim(
        self,
        claims: Iterable[Any],
        limit: int = 1,
        *,
        worker_id: str,
        lease: timedelta,
        queues: Collection[str] | None = None,
        uow: Any = None,
    ) -> Any:
        """Do what `complete` and `claim` do, in one transaction; the `claims` of the next, and those `lost`, by id."""
        ...

    async def heartbeat(self, claim: Any, lease: timedelta, *, uow: Any = None) -> bool:
        """Renew a claim and save its job's progress; True where the job's cancellation was asked for."""
        ...

    async def complete(self, claims: Any, *, uow: Any = None) -> None:
        """End jobs well: all whose claims hold, whatever becomes of the others, which are then named in the error."""
        ...

    async def fail(
        self, claim: Any, error: str | BaseException, *, retry_in: timedelta | None = None, uow: Any = None
    ) -> JobStatus:
        """End an attempt: PENDING again while attempts are left, else FAILED; the error is kept."""
        ...

    async def release(self, claim: Any, *, uow: Any = None) -> JobStatus:
        """Give a job back unfinished, without counting the attempt."""
        ...

    async def release_expired(self, limit: int = 100, *, uow: Any = None) -> int:
        """Take back jobs whose lease has ended, as after a failure; return how many."""
        ...
