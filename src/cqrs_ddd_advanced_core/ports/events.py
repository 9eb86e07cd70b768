"""The port of event stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from cqrs_ddd_advanced_core.events import StoredEvent


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
