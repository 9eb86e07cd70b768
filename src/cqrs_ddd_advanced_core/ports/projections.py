"""The ports of projection stores, and of the positions that projections have reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema


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
