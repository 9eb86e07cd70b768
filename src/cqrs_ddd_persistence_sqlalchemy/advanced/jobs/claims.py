"""What a worker holds in its hands while it is at a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy.core.mapping import stored_version

if TYPE_CHECKING:
    from datetime import datetime

Job = TypeVar("Job", bound=BaseBackgroundJob)


@dataclass
class JobClaim(Generic[Job]):
    """The right to run a job, until the lease ends or somebody takes it away.

    Attributes:
        job: as it was claimed; what the work changes in it is saved when the claim ends.
        worker_id: who has claimed it.
        attempt: the number of this attempt, from 1.
        lease_until: when the right ends unless it is renewed, by the database's clock.
    """

    job: Job
    worker_id: str
    attempt: int
    lease_until: datetime

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def token(self) -> int:
        """The version that the job is stored with as long as the claim holds; every later owner's is greater.

        Whoever saves the job itself, as with `add(claim.job)`, keeps the claim and gets a new token.
        """
        return stored_version(self.job) or 0


@dataclass
class Succession(Generic[Job]):
    """What a worker has after it has completed some jobs and claimed the next.

    Attributes:
        claims: of the next jobs, in the order in which they were due.
        lost: the ids of the jobs whose claims were lost before they were completed.
    """

    claims: list[JobClaim[Job]]
    lost: tuple[str, ...]
