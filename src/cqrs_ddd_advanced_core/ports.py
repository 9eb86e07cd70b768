"""What the stores promise, whichever database is behind them. The docstrings are the contract.

For every method: with an open unit of work it joins that transaction and does not commit it; otherwise it works in a
transaction of its own, committed before it returns. Conflicts leave a joined transaction usable. Bad input is a
ValueError that names it, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cqrs_ddd_advanced_core.background_jobs.ports import IBackgroundJobRepository  # noqa: F401  (one of the ports)
from cqrs_ddd_advanced_core.sagas.state import SagaState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
    from datetime import timedelta

    from pydantic import BaseModel

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema


Saga = TypeVar("Saga", bound=SagaState)


class IEventStore(Protocol):
    """Streams of events that only grow, in one order of positions."""

    async def append(
        self, events: Iterable[StoredEvent], *, expected_version: int | None = None, uow: Any = None
    ) -> list[StoredEvent]:
        """Append events to the ends of their streams, all or none, and return them as stored.

        Two appends of one version of one stream cannot both succeed; neither can two of one `event_id`.
        """
        ...

    async def get_events(
        self, aggregate_id: str, *, after_version: int = 0, limit: int | None = None, uow: Any = None
    ) -> list[StoredEvent]:
        """Return a stream's events above a version, oldest first."""
        ...

    async def get_events_after(
        self,
        position: int,
        *,
        limit: int = 1000,
        event_types: Collection[str] | None = None,
        aggregate_types: Collection[str] | None = None,
        uow: Any = None,
    ) -> list[StoredEvent]:
        """Return the events of all streams above a position, ordered by position.

        Whoever goes on from the last position returned misses no event, however late it commits.
        """
        ...

    def stream_after(
        self,
        position: int,
        *,
        page_size: int = 1000,
        event_types: Collection[str] | None = None,
        aggregate_types: Collection[str] | None = None,
        uow: Any = None,
    ) -> AsyncIterator[StoredEvent]:
        """Iterate over the events above a position without holding more than a page of them."""
        ...

    async def last_position(self, *, uow: Any = None) -> int:
        """Return the position up to which `get_events_after` goes at present, 0 without events."""
        ...


class IProjectionStore(Protocol):
    """Documents by collection and key. Which columns there are is a revision's to decide."""

    async def collection_exists(self, collection: str, *, uow: Any = None) -> bool:
        """Tell whether the collection's table exists."""
        ...

    async def ensure_collection(self, collection: str, *, schema: ProjectionSchema, uow: Any = None) -> None:
        """Make sure that the collection exists, or say which command writes its revision."""
        ...

    async def upsert(
        self,
        collection: str,
        doc_id: object,
        doc: Mapping[str, Any] | BaseModel,
        *,
        expected_version: int | None = None,
        event_id: str | None = None,
        event_position: int | None = None,
        uow: Any = None,
    ) -> bool:
        """Write the columns in `doc`, unless its event is no news to the document (False).

        Atomic: of two concurrent writers with one `expected_version` one gets a conflict, and an event that is
        delivered twice or late counts once.
        """
        ...

    async def bulk_upsert(
        self,
        collection: str,
        docs: Iterable[Mapping[str, Any] | BaseModel],
        doc_id_field: str | None = None,
        *,
        uow: Any = None,
    ) -> int:
        """Upsert documents as if one after the other, all or none; return how many."""
        ...

    async def find_one(self, collection: str, doc_id: object, *, uow: Any = None) -> dict[str, Any] | None:
        """Return the document with this key, or None."""
        ...

    async def find(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 100,
        offset: int = 0,
        after: Mapping[str, Any] | None = None,
        *,
        uow: Any = None,
    ) -> list[dict[str, Any]]:
        """Return matching documents, at most `limit`, in a fixed order, behind `offset` others or `after` one."""
        ...

    async def find_many(
        self, collection: str, doc_ids: Sequence[object], *, uow: Any = None
    ) -> list[dict[str, Any] | None]:
        """Return the documents with these keys in the same order, None for each that is missing."""
        ...

    async def count(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        *,
        uow: Any = None,
    ) -> int:
        """Return how many documents match."""
        ...

    def stream(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        *,
        uow: Any = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Iterate over all matching documents as they were at the beginning, without holding them."""
        ...

    async def delete(
        self, collection: str, doc_id: object, *, expected_version: int | None = None, uow: Any = None
    ) -> bool:
        """Delete a document; False when there was none."""
        ...

    async def truncate(self, collection: str, *, uow: Any = None) -> int:
        """Delete all documents, and return how many they were."""
        ...


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


class IProjectionPositionStore(Protocol):
    """One position a projection, which never moves backwards."""

    async def get_position(self, projection_name: str, *, uow: Any = None) -> int | None:
        """Return the position last saved, or None."""
        ...

    async def save_position(
        self, projection_name: str, position: int, *, expected: int | None = None, uow: Any = None
    ) -> bool:
        """Save a newer position (True); leave a newer saved one alone (False).

        With `expected` (compare and set) of two runners of one projection one gets a conflict.
        """
        ...

    async def reset_position(self, projection_name: str, *, uow: Any = None) -> bool:
        """Forget a position; False when there was none."""
        ...

    async def all_positions(self, *, uow: Any = None) -> dict[str, int]:
        """Return all positions by projection name."""
        ...
