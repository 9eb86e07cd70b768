"""The attempts of one worker: those that are being made, and how many more may be."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.attempt import Attempt
    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim

logger = logging.getLogger(__name__)

Job = TypeVar("Job", bound=BaseBackgroundJob)

#: How long giving jobs back may take, as a worker ends.
GIVING_BACK_SECONDS = 5.0


class AttemptPool(Generic[Job]):
    """Makes attempts, each in a task of its own, up to so many at once.

    Args:
        concurrency: so many.
        make: makes the attempt at a claimed job, given a moment of the monotonic clock before its lease began.

    Attributes:
        made: how many have begun, in all.
    """

    def __init__(self, concurrency: int, make: Callable[[JobClaim[Job], float], Attempt[Job]]) -> None:
        self.made = 0
        self._concurrency = concurrency
        self._make = make
        self._tasks: dict[asyncio.Task[None], Attempt[Job]] = {}
        self._saved: set[asyncio.Task[None]] = set()
        self._expected = 0

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        """Those that have not ended."""
        return self._tasks.keys()

    def room(self, *, ending: int = 0) -> int:
        """Return how many more jobs may be claimed, where the work on some is done."""
        return self._concurrency - (len(self._tasks) - len(self._saved) - ending) - self._expected

    @contextmanager
    def expecting(self, claims: int) -> Iterator[None]:
        """Leave room for jobs that are being claimed."""
        self._expected += claims
        try:
            yield
        finally:
            self._expected -= claims

    def begin(self, claims: Iterable[JobClaim[Job]], claimed_at: float, *, give_back: bool) -> None:
        """Begin to run what was claimed, or give it back at once."""
        for claim in claims:
            attempt = self._make(claim, claimed_at)
            if give_back:
                attempt.give_back()
            task = asyncio.create_task(attempt.run())
            self._tasks[task] = attempt
            task.add_done_callback(self._forget)
            self.made += 1

    def note_saved(self, claims: Iterable[JobClaim[Job]]) -> None:
        """Count those no more whose jobs are saved as completed, though their tasks have yet to hear of it."""
        saved = set(map(id, claims))
        self._saved |= {task for task, attempt in self._tasks.items() if id(attempt.claim) in saved}

    async def finish(self, seconds: float) -> None:
        """Let the running jobs end in time, and give back those that do not."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for attempt in list(self._tasks.values()):
            attempt.give_back()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GIVING_BACK_SECONDS)

    def abandon(self) -> None:
        """Leave those alone that do not end even so."""
        for task, attempt in self._tasks.items():
            logger.error("job %r does not end though it is cancelled; it is left until its lease ends", attempt.id)
            attempt.abandon()
            task.cancel()
        self._tasks, self._saved = {}, set()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._saved.discard(task)
