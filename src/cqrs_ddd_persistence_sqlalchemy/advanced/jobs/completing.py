"""Jobs of one worker that end at about the same time are saved as completed together, and the next ones claimed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim

Job = TypeVar("Job", bound=BaseBackgroundJob)


class Completions(Generic[Job]):
    """Completes claims in one statement: those that come while another is under way wait for it together.

    So nobody waits without need, and the busier a worker is, the fewer transactions it makes a job.

    Args:
        save: completes some claims, and returns the ids of those that were lost.
    """

    def __init__(self, save: Callable[[list[JobClaim[Job]]], Awaitable[Collection[str]]]) -> None:
        self._save_claims = save
        self._waiting: list[tuple[JobClaim[Job], asyncio.Future[None]]] = []
        self._saving: asyncio.Task[None] | None = None

    async def complete(self, claim: JobClaim[Job]) -> None:
        """Save a job as completed.

        Raises:
            LeaseLostError: the claim is lost.
            Exception: what saving this job raises; others that were to be saved with it are saved all the same.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((claim, done))
        if self._saving is None:
            self._saving = asyncio.create_task(self._save())
        # Whoever is cancelled meanwhile takes no other with it: they are saved in a task of their own.
        await done

    async def end(self, seconds: float) -> None:
        """Let what is under way end in time, or give it up."""
        saving = self._saving
        if saving is not None:
            await asyncio.wait({saving}, timeout=seconds)
            saving.cancel()
            await asyncio.wait({saving})

    async def _save(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._save_batch(batch)
        finally:
            self._saving = None

    async def _save_batch(self, batch: list[tuple[JobClaim[Job], asyncio.Future[None]]]) -> None:
        try:
            lost = await self._save_claims([claim for claim, _ in batch])
        except Exception as error:  # noqa: BLE001  (it is for whom it concerns to tell)
            if len(batch) > 1:
                # One that cannot be stored, or a passing trouble: each finds out for itself.
                for each in batch:
                    await self._save_batch([each])
                return
            _end(batch[0][1], error)
            return
        for claim, done in batch:
            _end(done, LeaseLostError("job", (claim.id,)) if claim.id in lost else None)


def _end(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return  # given up meanwhile
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
