"""The projection store: documents in tables that revisions own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import BaseModel

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.auto_ddl import create_collection
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.batches import Chunk, convert_ahead, next_chunk, to_values
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.documents import guarded
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.reader import ProjectionReader, digits_of
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import Guards
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.writer import (
    delete_row,
    violations_named,
    write_batches,
    write_row,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.meanwhile import meanwhile
from cqrs_ddd_persistence_sqlalchemy.exceptions import AutoDDLDisabledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

Document = Mapping[str, Any] | BaseModel
_BULK = 5000


class SQLAlchemyProjectionStore(ProjectionReader):
    """Reads and writes documents by collection; each collection is a table of its own.

    Args:
        session_factory: for operations without a unit of work.
        allow_auto_ddl: let `ensure_collection` create tables. For development; migrations own the tables elsewhere.
        default_id_column: the column that identifies documents, where it is not the primary key. It must be unique.
        schemas: the collections in use. The types of others are read from the database, once each.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the tables; the connection's default when omitted.
    """

    async def ensure_collection(
        self, collection: str, *, schema: ProjectionSchema, uow: SQLAlchemyUnitOfWork | None = None
    ) -> None:
        """Create the collection's table if it is missing and the store may; do nothing when it is there.

        Raises:
            AutoDDLDisabledError: when it is missing and `allow_auto_ddl` is off, with the command that writes its
                revision.
            ValueError: when `schema` is that of another collection.
        """
        check_identifier(collection, kind="table")
        if schema.collection != collection:
            raise ValueError(f"collection {collection!r} is given the schema of {schema.collection!r}")
        async with self._scope.read(uow) as connection:
            if await self._is_there(connection, collection):
                return
        if not self._allow_auto_ddl:
            raise AutoDDLDisabledError(collection, self._catalogue.db_schema)
        async with self._scope.write(uow) as connection:
            await create_collection(connection, schema, db_schema=self._catalogue.db_schema)

    async def upsert(
        self,
        collection: str,
        doc_id: object,
        doc: Document,
        *,
        expected_version: int | None = None,
        event_id: str | None = None,
        event_position: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> bool:
        """Insert a document, or change the columns that `doc` has in the document that is there.

        Args:
            collection: the table's name.
            doc_id: the key: a scalar, or a dict for a composite key. It fills the key columns that `doc` omits.
            doc: columns and values; a pydantic model counts with its aliases. Columns that it omits keep their
                values; in a new document they get the column's default.
            expected_version: the `_version` that must be stored (0: none, or no document yet).
            event_id: of the event that `doc` was made from; kept in `_last_event_id`. A repeat changes nothing.
            event_position: of that event; kept in `_last_event_position`. A position that is not newer changes nothing.
            uow: joined when open.

        Returns:
            True when the document was written; False when the event was no news.

        `_version` is stored as `doc` gives it; without one, an update counts it up by one.

        Raises:
            OptimisticConcurrencyError: another `_version` is stored than expected. Nothing changed.
            CollectionNotFoundError: the table is missing.
            ValueError: naming the column that is unknown, missing, out of range, NULL or not unique.
        """
        guards = Guards(expected_version, event_id, event_position)

        async def work(connection: AsyncConnection, found: Collection) -> bool:
            values = guarded(found, to_values(found, doc_id, doc, digits_of(connection)), guards)
            async with violations_named(connection, found):
                return await write_row(connection, found, values, guards)

        return await self._run(collection, work, uow=uow, write=True)

    async def bulk_upsert(
        self,
        collection: str,
        docs: Iterable[Document],
        doc_id_field: str | None = None,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> int:
        """Upsert documents one after the other, all or none, and return how many they were.

        Args:
            collection: the table's name.
            docs: read once, a chunk at a time; they may differ in their columns and repeat a key.
            doc_id_field: the column that identifies them, where it is not the primary key.
            uow: joined when open.

        Raises:
            CollectionNotFoundError: the table is missing.
            ValueError: as for `upsert`; nothing is written.
        """
        if isinstance(docs, (Mapping, BaseModel, str)) or not isinstance(docs, Iterable):
            raise ValueError(f"docs is an iterable of documents, not {type(docs).__name__}")
        check_identifier(collection, kind="table")
        # A chunk is read from an iterator that may have no beginning to go back to: so the chunk is what is repeated,
        # in a savepoint of its own. Another one around several makes it all or nothing in a caller's transaction.
        async with self._scope.write(uow) as connection:
            remaining = iter(docs)
            chunk = await next_chunk(remaining, _BULK)
            spoils = len(chunk.docs) == _BULK and self._scope.joins(uow)
            async with connection.begin_nested() if spoils else nullcontext():
                return await self._write_chunks(connection, collection, chunk, remaining, doc_id_field)

    async def _write_chunks(
        self,
        connection: AsyncConnection,
        collection: str,
        chunk: Chunk,
        remaining: Iterator[Document],
        id_column: str | None,
    ) -> int:
        """Write a chunk and all that remain, each converted while the one before is written; return the number."""
        count, digits, dialect = 0, digits_of(connection), dialect_of(connection)

        async def convert(chunk: Chunk, begin: asyncio.Event | None = None) -> None:
            if begin is not None:
                await begin.wait()
            copies = len(chunk.docs) >= dialect.min_rows_to_copy and dialect.can_copy(connection)
            spell = partial(dialect.copy_text, connection.dialect) if copies else None
            await convert_ahead(chunk, self._known(collection, id_column), digits, spell)

        await convert(chunk)
        while chunk.docs:
            is_busy = asyncio.Event()  # the database is; before that, converting would keep it waiting

            async def work(
                connection: AsyncConnection,
                found: Collection,
                chunk: Chunk = chunk,
                when_busy: Callable[[], None] = is_busy.set,
            ) -> None:
                await write_batches(connection, found, chunk.rows_of(found, digits), when_busy)

            following = await next_chunk(remaining, _BULK) if len(chunk.docs) == _BULK else Chunk()
            async with meanwhile(convert(following, is_busy)) as converting:
                await self._healed(connection, collection, work, id_column)
                is_busy.set()
                await converting
            count += len(chunk.docs)
            chunk = following
        return count

    async def delete(
        self,
        collection: str,
        doc_id: object,
        *,
        expected_version: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> bool:
        """Delete a document; returns False when there was none.

        Raises:
            OptimisticConcurrencyError: another `_version` is stored than expected, or none.
        """
        guards = Guards(expected_version)

        async def work(connection: AsyncConnection, found: Collection) -> bool:
            guarded(found, {}, guards)
            key = found.key_values(doc_id, exact_digits=digits_of(connection))
            return await delete_row(connection, found, key, guards)

        return await self._run(collection, work, uow=uow, write=True)

    async def truncate(self, collection: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> int:
        """Delete all documents and return how many they were.

        It is a DELETE: unlike SQL's TRUNCATE it locks no reader out, and readers never see the collection half empty.
        """

        async def work(connection: AsyncConnection, found: Collection) -> int:
            return int((await connection.execute(sa.delete(found.table))).rowcount)

        return await self._run(collection, work, uow=uow, write=True)
