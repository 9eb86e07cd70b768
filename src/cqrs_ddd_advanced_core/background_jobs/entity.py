"""BaseBackgroundJob: the state machine under every job, with one counter of its attempts."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from cqrs_ddd_advanced_core.background_jobs.ordered_ids import ordered_id
from cqrs_ddd_advanced_core.background_jobs.status import TRANSITIONS, JobStatus
from cqrs_ddd_advanced_core.error_text import described
from cqrs_ddd_advanced_core.exceptions import InvalidTransitionError
from cqrs_ddd_advanced_core.storable import BIGINT_MAX, ID_LENGTH, INTEGER_MAX

__all__ = ["BaseBackgroundJob", "JobStatus"]


class BaseBackgroundJob(BaseModel):
    """Work to be done later: subclass it with fields for what the work needs and what it has to remember.

    Attempts have one counter, `retry_count`: how many attempts before the present one have come to nothing, by an error
    or by a crash. So a job runs at most `max_retries + 1` times, whoever runs it and however it is told.

    Attributes:
        id: a UUID unless given; ids that are made later are greater.
        status: JobStatus.
        queue: which workers are for it.
        priority: higher ones are taken first.
        run_at: not to be taken before, aware; None for at once.
        unique_key: of the jobs of one class with the same key only one can be PENDING or RUNNING; None for no limit.
        correlation_id: what it is about, for tracing.
        total_items: how many there are to process, 0 where nobody knows.
        processed_items: how many of them are done.
        retry_count: how many attempts have come to nothing before this one.
        max_retries: how often it is tried again.
        result: what it has achieved, in a form that JSON holds.
        error: the last one.
        cancellation_reason: why it was cancelled.
        created_at: when it was made, by its maker's clock.
        started_at: when the last attempt began, None before the first.
        finished_at: when it ended for good.
        cancellation_requested_at: since when a running job is asked to stop; written by the repository alone.
    """

    model_config = ConfigDict(validate_assignment=True)

    id: str = Field(default_factory=ordered_id, min_length=1, max_length=ID_LENGTH)
    status: JobStatus = JobStatus.PENDING
    queue: str = Field(default="default", min_length=1, max_length=ID_LENGTH)
    priority: int = Field(default=0, ge=-INTEGER_MAX, le=INTEGER_MAX)
    run_at: AwareDatetime | None = None
    unique_key: str | None = Field(default=None, max_length=ID_LENGTH)
    correlation_id: str | None = Field(default=None, max_length=ID_LENGTH)
    total_items: int = Field(default=0, ge=0, le=BIGINT_MAX)
    processed_items: int = Field(default=0, ge=0, le=BIGINT_MAX)
    retry_count: int = Field(default=0, ge=0, le=INTEGER_MAX)
    max_retries: int = Field(default=3, ge=0, le=INTEGER_MAX)
    result: Any = None
    error: str | None = None
    cancellation_reason: str | None = None
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    cancellation_requested_at: AwareDatetime | None = None

    #: How long a job waits after its first failure; twice as long after each further one.
    first_delay: ClassVar[timedelta] = timedelta(seconds=10)
    #: How long it waits at most.
    longest_delay: ClassVar[timedelta] = timedelta(hours=1)

    _delay: timedelta | None = PrivateAttr(default=None)
    _cancelled: asyncio.Event | None = PrivateAttr(default=None)

    @property
    def job_type(self) -> str:
        """The name of the job's class, which tells it from others in the table that all share."""
        return type(self).__name__

    @property
    def progress(self) -> float:
        """How much is done, 0.0 to 1.0; 0.0 where nobody knows how much there is."""
        return min(1.0, self.processed_items / self.total_items) if self.total_items else 0.0

    @property
    def delay(self) -> timedelta | None:
        """How long the job waits for its next attempt, from when it is saved: by the database's clock."""
        return self._given_delay if self.run_at is None else None

    @property
    def _given_delay(self) -> timedelta | None:
        # Past pydantic's look-up of private attributes, which takes longer than reading a job does.
        return (self.__pydantic_private__ or {}).get("_delay")

    @property
    def cancelled(self) -> asyncio.Event:
        """Set by the worker that runs the job when somebody has asked for its cancellation.

        A job that hears of it and stops says so with `cancel()`; one that only returns counts as completed.
        """
        if self._cancelled is None:
            self._cancelled = asyncio.Event()
        return self._cancelled

    def mark_as_running(self) -> None:
        """Begin an attempt.

        Raises:
            InvalidTransitionError: the job runs already, or is over.
        """
        self._enter(JobStatus.RUNNING)
        self._delay = None
        self.started_at = datetime.now(UTC)

    def mark_as_completed(self, result: Any = None) -> None:
        """End well; a job that was never marked as running may do so, too.

        Args:
            result: what is kept of it; the job's own `result` unless given.

        Raises:
            InvalidTransitionError: the job is over in another way.
        """
        if self._end(JobStatus.COMPLETED):
            self.result = self.result if result is None else result
            self.error = None

    def mark_for_retry(self, delay: timedelta | None = None) -> None:
        """Count an attempt that has come to nothing, and wait for the next one.

        Whether there is one is for the caller to ask: `retry_count < max_retries`.

        Args:
            delay: before the next attempt, counted from when the job is saved; `next_delay()` unless given.

        Raises:
            InvalidTransitionError: the job is over.
            ValueError: the delay makes no sense.
        """
        if delay is not None and (not isinstance(delay, timedelta) or delay < timedelta(0)):
            raise ValueError(f"mark_for_retry: delay is a timedelta from 0, not {delay!r}")
        self._enter(JobStatus.PENDING)
        self.run_at, self._delay = None, self.next_delay() if delay is None else delay
        self.retry_count += 1

    def mark_as_failed(self, error: str | BaseException) -> None:
        """End badly, for good.

        Raises:
            InvalidTransitionError: the job is over in another way.
        """
        if self._end(JobStatus.FAILED):
            self.error = error if isinstance(error, str) else described(error)

    def cancel(self, reason: str | None = None) -> None:
        """End without having done it. To stop a job that somebody else runs, ask its repository.

        Raises:
            InvalidTransitionError: the job is over in another way.
        """
        if self._end(JobStatus.CANCELLED):
            self.cancellation_reason = reason

    def next_delay(self) -> timedelta:
        """Return how long to wait after this attempt: doubled each time, less up to half of it by chance."""
        longest = self.longest_delay / self.first_delay if self.first_delay else 0.0
        doubled = min(2.0 ** min(self.retry_count, 60), longest)
        return self.first_delay * (doubled * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)

    def set_run_at(self, run_at: datetime | None, *, delay: timedelta | None = None) -> None:
        """Let a repository replace the delay by the point in time that the database has made of it."""
        vars(self)["run_at"] = run_at  # past the validators, which might refuse what is half done
        if self._given_delay is not delay:
            self._delay = delay

    def _enter(self, status: JobStatus) -> None:
        if status not in TRANSITIONS[self.status]:
            message = f"job {self.id!r} is {self.status}, and cannot become {status}"
            raise InvalidTransitionError(message, current=self.status, target=status)
        self.status = status

    def _end(self, status: JobStatus) -> bool:
        """Enter a terminal status; False for the one it is in already."""
        if self.status is status:
            return False
        self._enter(status)
        self._delay = None
        self.finished_at = datetime.now(UTC)
        return True
