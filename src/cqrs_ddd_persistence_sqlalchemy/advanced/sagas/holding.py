"""Holding a claimed saga: saved and renewed while somebody works on it, and let go of in time when it is lost."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_persistence_sqlalchemy.advanced.running.guarding import LeaseClock, run_while_renewed
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import is_passing
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import timedelta

    from cqrs_ddd_advanced_core.ports import ISagaRepository
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

logger = logging.getLogger(__name__)

Saga = TypeVar("Saga", bound=SagaState)

_FIRST_PAUSE_SECONDS = 0.1


class HeldSaga(Generic[Saga]):
    """A claimed saga in the hands of one worker.

    Every write is decided by the saga's version, which each claim counts up: a worker that has lost it writes nothing.
    A write that the database could not take just now is tried again as long as the lease holds.

    Args:
        saga: just claimed.
        repository: of its class.
        lease: that it was claimed for; each write and each renewal begins it anew.
        uow_factory: makes the units of work of the writes; the repository's own unless given.
        claimed_at: a moment of the monotonic clock before the lease began.
    """

    def __init__(
        self,
        saga: Saga,
        repository: ISagaRepository[Saga],
        lease: timedelta,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None,
        *,
        claimed_at: float,
    ) -> None:
        self.saga = saga
        self._repository = repository
        self._lease = lease
        self._uow_factory = uow_factory
        self._clock = LeaseClock(lease, claimed_at)
        self._writing = asyncio.Lock()
        self._is_let_go = False

    async def while_held(self, work: Coroutine[None, None, None]) -> None:
        """Run some work on the saga, and cancel it when the saga is lost.

        Raises:
            LeaseLostError: somebody else has taken the saga, or the lease could not be renewed in time.
        """
        if not await run_while_renewed(work, self._renew()):
            raise LeaseLostError("saga", (self.saga.id,))

    async def keep(self) -> None:
        """Save the saga and hold on to it."""
        await self._write(lambda: self._repository.save_claimed(self.saga, lease=self._lease, uow=self._uow()))

    async def put_off(self, pause: timedelta) -> None:
        """Save the saga, for nobody to take before the pause ends."""
        await self._write(lambda: self._repository.save_claimed(self.saga, lease=pause, uow=self._uow()), last=True)

    async def give_back(self) -> None:
        """Save the saga, for whoever comes next."""
        await self._write(lambda: self._repository.give_back(self.saga, uow=self._uow()), last=True)

    async def leave(self, pause: timedelta) -> None:
        """Let nobody take the saga before the pause ends, without saving it."""
        await self._write(lambda: self._repository.renew_claim(self.saga, lease=pause, uow=self._uow()), last=True)

    def _uow(self) -> SQLAlchemyUnitOfWork | None:
        return self._uow_factory() if self._uow_factory is not None else None

    async def _write(self, write: Callable[[], Awaitable[object]], *, last: bool = False) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._write_once(write, last=last)
            except Exception as error:
                if not is_passing(error) or self._clock.seconds_left <= pause:
                    raise
                logger.warning("saga %r: trying again in %g s: %s", self.saga.id, pause, error)
            else:
                return
            await asyncio.sleep(pause)
            pause *= 2

    async def _write_once(self, write: Callable[[], Awaitable[object]], *, last: bool = False) -> None:
        async with self._writing:  # a renewal meanwhile would go by the version before
            if self._is_let_go:
                return  # a renewal would take the saga again
            begun = monotonic()
            await write()
            self._clock.begin_again(begun)
            self._is_let_go = last

    async def _renew(self) -> None:
        """Renew the lease at each third of it; return when it is lost."""
        while True:
            await asyncio.sleep(min(self._clock.seconds / 3, self._clock.seconds_left))
            try:
                async with asyncio.timeout(self._clock.seconds_left):
                    await self._write_once(
                        lambda: self._repository.renew_claim(self.saga, lease=self._lease, uow=self._uow())
                    )
            except (LeaseLostError, TimeoutError):
                return
            except Exception as error:
                if not is_passing(error):
                    raise
                logger.warning("saga %r: the lease could not be renewed: %s", self.saga.id, error)
