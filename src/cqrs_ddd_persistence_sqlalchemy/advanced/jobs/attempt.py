"""One attempt at a job: its lease renewed, its progress saved, its end recorded, whichever it is."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus
from cqrs_ddd_advanced_core.cancellation import is_cancelled
from cqrs_ddd_advanced_core.error_text import described
from cqrs_ddd_persistence_sqlalchemy.advanced.running.guarding import Guard
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import is_passing
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import jsonable
from cqrs_ddd_persistence_sqlalchemy.core.mapping import stored_version
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim
    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.completing import Completions
    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.repository import SQLAlchemyBackgroundJobRepository

logger = logging.getLogger(__name__)

Job = TypeVar("Job", bound=BaseBackgroundJob)


class Attempt(Generic[Job]):
    """Runs a claimed job to its end, in a task of its own.

    Args:
        claim: of the job, just taken.
        repository: that it was taken from.
        handler: called with the job; what it returns is the job's result.
        completions: that saves it as completed, with others.
        lease: that it was claimed for; each heartbeat begins it anew.
        heartbeat: how often.
        grace: how long the job may go on once its cancellation was requested.
        claimed_at: a moment of the monotonic clock before the lease began.
    """

    def __init__(
        self,
        claim: JobClaim[Job],
        repository: SQLAlchemyBackgroundJobRepository[Job],
        handler: Callable[[Job], Awaitable[Any]],
        completions: Completions[Job],
        *,
        lease: timedelta,
        heartbeat: timedelta,
        grace: timedelta,
        claimed_at: float,
    ) -> None:
        self.claim = claim
        self._repository = repository
        self._handler = handler
        self._completions = completions
        self._lease = lease
        self._heartbeat = heartbeat
        self._grace = grace
        self._guard = Guard("job", claim.id, lease, claimed_at)
        self._handling: asyncio.Task[Any] | None = None
        self._is_given_back = False

    @property
    def id(self) -> str:
        """The job's."""
        return self.claim.id

    async def run(self) -> None:
        """Run the job; errors are recorded or logged, and never raised."""
        job_id = self.claim.id
        try:
            await self._guard.run(self._work(), self._beat, every_seconds=self._heartbeat.total_seconds())
        except LeaseLostError as error:
            logger.warning("%s: its result is not recorded", error)
        except Exception as error:
            if is_passing(error):
                logger.warning("job %r is left until its lease ends: %s", job_id, error)
            else:
                logger.exception("job %r is left until its lease ends", job_id)

    def give_back(self) -> None:
        """Cancel the job, for another worker to begin it again; the attempt does not count."""
        self._is_given_back = True
        if self._handling is not None:
            self._handling.cancel()

    def abandon(self) -> None:
        """Leave the job until its lease ends, though it goes on."""
        self._guard.leave()

    async def _work(self) -> None:
        # A task of its own: to cancel the job is not to cancel what is written of it afterwards.
        handling = self._handling = asyncio.create_task(self._call())
        if self._is_given_back:
            handling.cancel()
        # Who cancels this task cancels the job, and waits for its end.
        with suppress(BaseException):  # which is recorded below
            await handling
        if is_cancelled():
            raise asyncio.CancelledError
        await self._guard.write(lambda: self._record(handling), last=True)

    async def _call(self) -> Any:
        try:
            return await self._handler(self.claim.job)
        except GeneratorExit as error:
            # Whatever waits for it would be closed by it.
            raise RuntimeError("the handler raised GeneratorExit") from error

    async def _record(self, handling: asyncio.Task[Any]) -> None:
        """Write down how the job has ended; where that cannot be stored, that it could not."""
        token = self.claim.token
        try:
            await self._record_outcome(handling)
        except LeaseLostError:
            raise
        except Exception as error:
            if is_passing(error):
                raise
            failure = None if handling.cancelled() else handling.exception()
            logger.exception("job %r: what it has left cannot be stored", self.id)
            stored = await self._repository.get(self.id)
            if stored is None or stored_version(stored) != token:
                raise LeaseLostError("job", (self.id,)) from error
            self.claim.job = stored  # as it was before the attempt
            await self._repository.fail(self.claim, failure or error)

    async def _record_outcome(self, handling: asyncio.Task[Any]) -> None:
        repository, claim = self._repository, self.claim
        has_failed = handling.cancelled() or handling.exception() is not None
        if has_failed and (self._is_given_back or (handling.cancelled() and claim.job.cancelled.is_set())):
            await repository.release(claim)  # which ends it as CANCELLED where that was asked for
        elif handling.cancelled():
            await repository.fail(claim, "the job was cancelled from inside")
        elif (error := handling.exception()) is not None:
            logger.warning("job %r failed: %s", claim.id, described(error), exc_info=error)
            await repository.fail(claim, error)
        elif claim.job.status is JobStatus.PENDING:
            await repository.fail(claim, "the job has asked to be tried again", retry_in=claim.job.delay)
        else:
            result = handling.result()
            if result is not None:
                jsonable(result, "result")  # which pydantic would write otherwise, NaN as null
                claim.job.result = result
            await self._completions.complete(claim)

    async def _beat(self) -> None:
        """Renew the lease, save the progress, and hear whether the job is to be cancelled."""
        is_requested = await self._repository.heartbeat(self.claim, self._lease)
        if is_requested and not self.claim.job.cancelled.is_set():
            self.claim.job.cancelled.set()
            if self._handling is not None:
                timer = asyncio.get_running_loop().call_later(self._grace.total_seconds(), self._handling.cancel)
                self._handling.add_done_callback(lambda _: timer.cancel())
