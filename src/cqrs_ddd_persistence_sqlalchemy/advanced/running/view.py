"""What the handlers of a projection work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.store import Document, SQLAlchemyProjectionStore
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


class ProjectionView:
    """The projection store, bound to one collection and one unit of work.

    Args:
        store: that knows the collection.
        collection: the table's name, which is another one while the projection is rebuilt.
        uow: of the batch. It commits with the projection's position; a handler leaves that to the runner.
    """

    def __init__(self, store: SQLAlchemyProjectionStore, collection: str, uow: SQLAlchemyUnitOfWork) -> None:
        self._store = store
        self._collection = collection
        self._uow = uow

    @property
    def uow(self) -> SQLAlchemyUnitOfWork:
        """The unit of work of the batch, for stores other than this table's."""
        return self._uow

    async def upsert(
        self,
        doc_id: object,
        doc: Document,
        *,
        expected_version: int | None = None,
        event_id: str | None = None,
        event_position: int | None = None,
    ) -> bool:
        """Write the columns in `doc`, as SQLAlchemyProjectionStore.upsert does."""
        return await self._store.upsert(
            self._collection,
            doc_id,
            doc,
            expected_version=expected_version,
            event_id=event_id,
            event_position=event_position,
            uow=self._uow,
        )

    async def bulk_upsert(self, docs: Iterable[Document]) -> int:
        """Upsert documents one after the other, all or none; return how many."""
        return await self._store.bulk_upsert(self._collection, docs, uow=self._uow)

    async def delete(self, doc_id: object, *, expected_version: int | None = None) -> bool:
        """Delete a document; False when there was none."""
        return await self._store.delete(self._collection, doc_id, expected_version=expected_version, uow=self._uow)

    async def find_one(self, doc_id: object) -> dict[str, Any] | None:
        """Return the document with this key, or None."""
        return await self._store.find_one(self._collection, doc_id, uow=self._uow)

    async def find_many(self, doc_ids: Sequence[object]) -> list[dict[str, Any] | None]:
        """Return the documents with these keys in the same order, None for each that is missing."""
        return await self._store.find_many(self._collection, doc_ids, uow=self._uow)

    async def find(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 100,
        offset: int = 0,
        after: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the documents that match, as SQLAlchemyProjectionStore.find does."""
        return await self._store.find(self._collection, filter, sort, limit, offset, after, uow=self._uow)

    async def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002  (pymongo's name)
        """Return how many documents match."""
        return await self._store.count(self._collection, filter, uow=self._uow)
