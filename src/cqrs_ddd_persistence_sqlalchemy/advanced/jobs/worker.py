"""JobWorker: claims jobs, runs them, and sees to it that each ends."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.attempt import Attempt
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.attempt_pool import GIVING_BACK_SECONDS, AttemptPool
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.completing import Completions
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.handling import runnable
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.periodic import Scheduler
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import Outage, is_passing, wait_for_one, wait_until
from cqrs_ddd_persistence_sqlalchemy.advanced.running.settings import check_counts, check_durations, this_process
from cqrs_ddd_persistence_sqlalchemy.advanced.running.signals import forget_signals, stop_at_signals
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_id
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim
    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.periodic import Periodic
    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.repository import SQLAlchemyBackgroundJobRepository

logger = logging.getLogger(__name__)

Job = TypeVar("Job", bound=BaseBackgroundJob)

_SCHEDULER_PAUSE_SECONDS = 10.0
_SOON_SECONDS = 0.05


class JobWorker(Generic[Job]):
    """Runs the jobs of one class: claims those that are due, runs up to `concurrency` of them at once, ends each.

    A job is with one worker as long as its lease holds, which the worker renews. A job that raises is tried again with
    exponential backoff while it has attempts left, else it is FAILED; the jobs of a worker that has died are tried
    again when their leases end, and the attempt counts. So a job runs at least once, and may run again after a crash.

    Args:
        repository: of the jobs.
        handler: called with each job; `job.execute(...)` unless given, with services found by its parameters' names.
            What it returns is the job's result.
        services: for `execute`.
        concurrency: how many jobs it runs at once.
        queues: of which it takes jobs; all unless given.
        lease: how long others wait for a worker that has died.
        heartbeat: how often a running job's lease is renewed, its progress saved, and a request to cancel it heard; at
            least three times a lease.
        poll_interval: between looks for due jobs. On PostgreSQL a repository with `notify=True` wakes the worker at
            once, where its connection can LISTEN.
        grace: after `stop()`, how long running jobs may go on before they are cancelled and given back; and after a
            request to cancel, how long a job has to end by itself, hearing `job.cancelled`.
        periodic: schedules whose jobs this worker enqueues.
        worker_id: shown with the jobs that it runs; host, process and a random part unless given.

    Raises:
        ValueError: an argument makes no sense, or `execute` needs a service that nobody gives.
    """

    def __init__(  # noqa: PLR0913  (each is a setting that a deploy may want to change)
        self,
        repository: SQLAlchemyBackgroundJobRepository[Job],
        handler: Callable[[Job], Awaitable[Any]] | None = None,
        *,
        services: Mapping[str, Any] | None = None,
        concurrency: int = 10,
        queues: Sequence[str] | None = None,
        lease: timedelta = timedelta(seconds=60),
        heartbeat: timedelta = timedelta(seconds=5),
        poll_interval: timedelta = timedelta(seconds=1),
        grace: timedelta = timedelta(seconds=20),
        periodic: Sequence[Periodic] = (),
        worker_id: str | None = None,
    ) -> None:
        check_counts(concurrency=concurrency)
        check_durations(lease=lease, heartbeat=heartbeat, poll_interval=poll_interval, grace=grace)
        self._repository = repository
        self._handler = runnable(repository.job_cls, handler, dict(services or {}))
        self._queues = _checked(queues)
        self._lease = lease
        self._heartbeat = min(heartbeat, lease / 3)
        self._poll_seconds = poll_interval.total_seconds()
        self._grace = grace
        self._scheduler = Scheduler(repository, periodic) if periodic else None
        self.worker_id = check_id("worker_id", this_process() if worker_id is None else worker_id)
        self._completions = Completions(self._complete)
        self._stopped = asyncio.Event()
        self._news = asyncio.Event()
        self._attempts = AttemptPool(concurrency, self._attempt)
        self._claiming: asyncio.Future[int] | None = None
        self._scheduling: asyncio.Task[None] | None = None
        self._is_idle = self._is_running = False
        self._next_release_at = 0.0

    async def run(self, *, handle_signals: bool = False) -> None:
        """Run jobs until `stop()`; then let the running ones end within `grace`, and give back the others.

        Args:
            handle_signals: stop at SIGTERM and SIGINT.
        """
        self._begin()
        if handle_signals:
            stop_at_signals(self)
        if self._scheduler is not None:
            self._scheduling = asyncio.create_task(self._schedule(self._scheduler))
        try:
            async with self._repository.listener(self._news.set):
                await self._work()
            await self._attempts.finish(self._grace.total_seconds())
        finally:
            forget_signals(self)
            await self._end_whatever_comes()

    async def run_due(self) -> int:
        """Run the jobs that are due now to their end, and return how many attempts were made. For tests and scripts."""
        self._begin()
        made_before = self._attempts.made
        try:
            while not self._stopped.is_set():
                await self._start_some()
                if not self._attempts.tasks and self._is_idle:
                    break
                if self._attempts.tasks:
                    await asyncio.wait(self._attempts.tasks, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await wait_until(self._stopped, self._seconds_to_wait)
            await self._attempts.finish(self._grace.total_seconds())
        finally:
            await self._end_whatever_comes()
        return self._attempts.made - made_before

    def stop(self) -> None:
        """Take no more jobs, and return from `run()` within `grace` and what it takes to give jobs back."""
        self._stopped.set()
        self._news.set()

    async def _work(self) -> None:
        outage = Outage()
        while not self._stopped.is_set():
            self._news.clear()
            found = await outage.attempt(self._start_some, "jobs", logger)
            if self._attempts.room() <= 0:
                await wait_for_one(self._attempts.tasks, self._stopped)
            elif outage.pause_seconds:
                await wait_until(self._stopped, outage.pause_seconds)
            elif not found and not self._stopped.is_set():
                await wait_until(self._news, self._seconds_to_wait)

    @property
    def _seconds_to_wait(self) -> float:
        """Short where something was due and not to be had: another worker may be about to give it back."""
        return self._poll_seconds if self._is_idle else min(_SOON_SECONDS, self._poll_seconds)

    async def _start_some(self) -> int:
        """Claim as many jobs as there is room for, and begin to run them."""
        if self._attempts.room() <= 0:
            return 0
        if self._is_idle and not await self._repository.has_due(queues=self._queues):
            return 0
        if self._shall_release:  # where due jobs never run short, a claim takes none of these back
            await self._repository.release_expired(limit=100)
            self._next_release_at = monotonic() + self._lease.total_seconds() / 3
        room = self._attempts.room()  # others may have been claimed meanwhile
        if room <= 0:
            return 0
        with self._attempts.expecting(room):
            # What is claimed is begun, also when this task is cancelled in between.
            self._claiming = asyncio.ensure_future(self._claim(room))
            claimed = await asyncio.shield(self._claiming)
        # Nothing claimed, and something due all the same: jobs that could not be loaded have been set aside, or another
        # worker is about to take them.
        self._is_idle = not claimed and not await self._repository.has_due(queues=self._queues)
        return claimed

    @property
    def _shall_release(self) -> bool:
        return monotonic() >= self._next_release_at

    async def _claim(self, room: int) -> int:
        begun = monotonic()
        claims = await self._repository.claim(room, worker_id=self.worker_id, lease=self._lease, queues=self._queues)
        self._attempts.begin(claims, begun, give_back=self._stopped.is_set())
        return len(claims)

    async def _complete(self, claims: list[JobClaim[Job]]) -> Collection[str]:
        """Save jobs as completed, claim others in their place with the same statement; return the ids of lost ones."""
        room = self._attempts.room(ending=len(claims))
        lost: Collection[str] = ()
        if room <= 0 or self._is_idle or self._shall_release or self._stopped.is_set():
            try:
                await self._repository.complete(claims)
            except LeaseLostError as error:
                lost = error.lost
        else:
            begun = monotonic()
            with self._attempts.expecting(room):
                next_ones = await self._repository.complete_and_claim(
                    claims, room, worker_id=self.worker_id, lease=self._lease, queues=self._queues
                )
                lost = next_ones.lost
                self._attempts.begin(next_ones.claims, begun, give_back=self._stopped.is_set())
        self._attempts.note_saved(claims)
        self._news.set()  # there may be room
        return lost

    def _attempt(self, claim: JobClaim[Job], claimed_at: float) -> Attempt[Job]:
        return Attempt(
            claim,
            self._repository,
            self._handler,
            self._completions,
            lease=self._lease,
            heartbeat=self._heartbeat,
            grace=self._grace,
            claimed_at=claimed_at,
        )

    def _begin(self) -> None:
        if self._is_running:
            raise RuntimeError("this JobWorker runs already: make another one for another task")
        self._is_running = True

    async def _end_whatever_comes(self) -> None:
        """End, also where the task is cancelled again and again meanwhile."""
        await asyncio.shield(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        """Leave nothing behind, however this has come to its end, and be ready to be run again."""
        self._stopped.set()
        try:
            if self._scheduling is not None:
                self._scheduling.cancel()
                await asyncio.wait({self._scheduling})
            if self._claiming is not None:
                await asyncio.wait({self._claiming})
            made = self._attempts.made
            await self._attempts.finish(0)
            await self._completions.end(GIVING_BACK_SECONDS)
            if self._attempts.made > made:
                await self._attempts.finish(0)  # what was claimed with the last completions
        finally:
            self._attempts.abandon()
            self._stopped, self._news = asyncio.Event(), asyncio.Event()
            self._scheduling = self._claiming = None
            self._is_idle = self._is_running = False

    async def _schedule(self, scheduler: Scheduler) -> None:
        """Enqueue the jobs of schedules; trouble passes."""
        while True:
            try:
                await scheduler.run()
            except Exception as error:  # noqa: BLE001  (whatever a job_factory raises must not stop the jobs)
                level = logging.WARNING if is_passing(error) else logging.ERROR
                logger.log(level, "periodic jobs: trying again in %g s: %s", _SCHEDULER_PAUSE_SECONDS, error)
                await asyncio.sleep(_SCHEDULER_PAUSE_SECONDS)


def _checked(queues: Sequence[str] | None) -> list[str] | None:
    if queues is None:
        return None
    if isinstance(queues, str) or not queues:
        raise ValueError(f"queues is {queues!r}: give a list of at least one name, or nothing for all")
    return [check_id("queue", queue) for queue in queues]
