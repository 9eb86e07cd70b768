"""A claimed saga in the hands of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_persistence_sqlalchemy.advanced.running.guarding import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import timedelta

    from cqrs_ddd_advanced_core.ports import ISagaRepository
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

Saga = TypeVar("Saga", bound=SagaState)


class HeldSaga(Generic[Saga]):
    """Saves a claimed saga, holds on to it while somebody works on it, and lets it go.

    Every write is decided by the saga's version, which each claim counts up: a worker that has lost it writes nothing.

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
        self._guard = Guard("saga", saga.id, lease, claimed_at)

    async def while_held(self, work: Coroutine[None, None, None]) -> None:
        """Run some work on the saga, and cancel it when the saga is lost.

        Raises:
            LeaseLostError: somebody else has taken the saga, or the lease could not be renewed in time.
        """
        await self._guard.run(work, lambda: self._repository.renew_claim(self.saga, lease=self._lease, uow=self._uow()))

    async def keep(self) -> None:
        """Save the saga and hold on to it."""
        await self._guard.write(lambda: self._repository.save_claimed(self.saga, lease=self._lease, uow=self._uow()))

    async def put_off(self, pause: timedelta) -> None:
        """Save the saga, for nobody to take before the pause ends."""
        await self._guard.write(
            lambda: self._repository.save_claimed(self.saga, lease=pause, uow=self._uow()), last=True
        )

    async def give_back(self) -> None:
        """Save the saga, for whoever comes next."""
        await self._guard.write(lambda: self._repository.give_back(self.saga, uow=self._uow()), last=True)

    async def leave(self, pause: timedelta) -> None:
        """Let nobody take the saga before the pause ends, without saving it."""
        await self._guard.write(
            lambda: self._repository.renew_claim(self.saga, lease=pause, uow=self._uow()), last=True
        )

    def _uow(self) -> SQLAlchemyUnitOfWork | None:
        return self._uow_factory() if self._uow_factory is not None else None
