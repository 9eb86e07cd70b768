"""The port of saga repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cqrs_ddd_advanced_core.sagas.state import SagaState

if TYPE_CHECKING:
    from datetime import timedelta

Saga = TypeVar("Saga", bound=SagaState)


class ISagaRepository(Protocol[Saga]):
    """Sagas of one class, each write decided by the version that was loaded."""

    async def add(self, entity: Saga, *, uow: Any = None) -> Saga:
        """Insert a new saga, or update one that was loaded or saved before.

        A lost race is a conflict and changes nothing; so is a second saga of one correlation id (ValueError).
        """
        ...

    async def get(self, entity_id: str, *, uow: Any = None) -> Saga | None:
        """Return the saga with this id, or None."""
        ...

    async def find_by_correlation_id(
        self, correlation_id: str, saga_type: str | None = None, *, uow: Any = None
    ) -> Saga | None:
        """Return the saga with this correlation id, or None."""
        ...

    async def find_stalled_sagas(self, limit: int = 100, *, uow: Any = None) -> list[Saga]:
        """Return sagas that are RUNNING or COMPENSATING and were not saved for long, those that wait longest first."""
        ...

    async def find_suspended_sagas(self, limit: int = 100, *, uow: Any = None) -> list[Saga]:
        """Return sagas that wait for something, oldest first."""
        ...

    async def find_expired_suspended_sagas(self, limit: int = 100, *, uow: Any = None) -> list[Saga]:
        """Return sagas that have waited beyond their deadline."""
        ...

    async def claim_stalled_sagas(self, limit: int = 1, *, lease: timedelta, uow: Any = None) -> list[Saga]:
        """Take stalled sagas, each for one worker only, until the lease ends."""
        ...

    async def claim_expired_suspended_sagas(self, limit: int = 1, *, lease: timedelta, uow: Any = None) -> list[Saga]:
        """Take expired sagas, each for one worker only, until the lease ends."""
        ...

    async def claim_due_sagas(self, limit: int = 1, *, lease: timedelta, uow: Any = None) -> list[Saga]:
        """Take whatever a runner has to look after: new, given back, stalled and expired sagas.

        A saga that cannot be loaded keeps nobody from the others.
        """
        ...

    async def save_claimed(self, entity: Saga, *, lease: timedelta, uow: Any = None) -> Saga:
        """Save a saga and hold on to it until the lease ends."""
        ...

    async def give_back(self, entity: Saga, *, uow: Any = None) -> Saga:
        """Save a claimed saga and end the claim. `add` saves and leaves a claim as it is."""
        ...

    async def renew_claim(self, entity: Saga, *, lease: timedelta, uow: Any = None) -> None:
        """Hold on to a claimed saga for longer, without saving it; a lost one is a LeaseLostError."""
        ...
