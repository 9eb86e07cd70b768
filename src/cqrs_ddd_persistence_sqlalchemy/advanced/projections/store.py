"""The projection store: documents in tables that revisions own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.projections import filters, statements
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.auto_ddl import create_collection
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.catalogue import Catalogue
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.documents import complete, guarded
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import Guards, parameter
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.writer import violations_named, write_row, write_rows
from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import AutoDDLDisabledError, CollectionNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import (
        Collection,
    )
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SessionFactory, SQLAlchemyUnitOfWork

Document = Mapping[str, Any] | BaseModel
_CHUNK = 1000


class SQLAlchemyProjectionStore:
    """Reads and writes documents by collection; each collection is a table of its own.

    Args:
        session_factory: for operations without a unit of work.
        allow_auto_ddl: let `ensure_collection` create tables. For development; migrations own the tables elsewhere.
        default_id_column: the column that identifies documents, where it is not the primary key. It must be unique.
        schemas: the collections in use. The types of others are read from the database, once each.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the tables; the connection's default when omitted.
    """

    def __init__(
        self,
        session_factory: SessionFactory | None = None,
        *,
        allow_auto_ddl: bool = False,
        default_id_column: str | None = None,
        schemas: Iterable[ProjectionSchema] = (),
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        schema: str | None = None,
    ) -> None:
        if default_id_column is not None:
            check_identifier(default_id_column, kind="column")
        self._allow_auto_ddl = allow_auto_ddl
        self._catalogue = Catalogue(schemas, db_schema=check_schema(schema), id_column=default_id_column)
        self._scope = SessionScope(type(self).__name__, session_factory=session_factory, uow_factory=uow_factory)

    async def collection_exists(self, collection: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Tell whether the collection's table is in the database."""
        check_identifier(collection, kind="table")
        async with self._scope.read(uow) as connection:
            return await self._is_there(connection, collection)

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
            raise AutoDDLDisabledError(collection)
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
        async with self._using(collection, self._scope.write(uow), (doc,)) as (connection, found):
            values = guarded(found, complete(found, doc_id, doc, _digits(connection)), guards)
            async with violations_named(connection, found):
                return await write_row(connection, found, values, guards)

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
        remaining, count = iter(docs), 0
        first = list(islice(remaining, _CHUNK))
        scope = self._scope.write(uow)
        async with self._using(collection, scope, first, doc_id_field) as (connection, found):  # noqa: SIM117
            async with violations_named(connection, found, always=True):
                chunk = first
                while chunk:
                    rows = [complete(found, None, doc, _digits(connection)) for doc in chunk]
                    await write_rows(connection, found, rows)
                    count += len(chunk)
                    chunk = list(islice(remaining, _CHUNK))
        return count

    async def find_one(
        self, collection: str, doc_id: object, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> dict[str, Any] | None:
        """Return the document with this key, or None.

        Args:
            collection: the table's name.
            doc_id: a scalar, or a dict for a composite key.
            uow: joined when open.
        """
        async with self._using(collection, self._scope.read(uow)) as (connection, found):
            key = found.key_values(doc_id, exact_digits=_digits(connection))
            parameters = {parameter(name): value for name, value in key.items()}
            row = (await connection.execute(statements.find_one(found), parameters)).mappings().one_or_none()
            return None if row is None else dict(row)

    async def find(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 100,
        offset: int = 0,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> list[dict[str, Any]]:
        """Return the documents that match, in the order of `sort`, or of the key without one.

        Args:
            collection: the table's name.
            filter: columns and the values they must have; None matches NULL.
            sort: (column, 1 or -1) pairs; NULLs come first either way, ties are in the key's order. Text is ordered
                as the database orders it.
            limit: at most so many.
            offset: after passing over so many.
            uow: joined when open.

        Raises:
            ValueError: naming an unknown column or operator, or a value that the column cannot hold.
        """
        check_count("limit", limit)
        check_count("offset", offset)
        async with self._using(collection, self._scope.read(uow), (filter or {},)) as (connection, found):
            conditions = filters.where(found, filter, exact_digits=_digits(connection))
            statement = sa.select(found.table).where(*conditions).order_by(*filters.order_by(found, sort))
            rows = await connection.execute(statement.limit(limit).offset(offset))
            return [dict(row) for row in rows.mappings()]

    async def _is_there(self, connection: AsyncConnection, collection: str) -> bool:
        table = TableRef(collection, self._catalogue.db_schema)
        return await dialect_of(connection).describe_table(connection, table) is not None

    @asynccontextmanager
    async def _using(
        self, name: str, scope: Any, named: Iterable[Document] = (), id_column: str | None = None
    ) -> AsyncIterator[tuple[AsyncConnection, Collection]]:
        """Open a scope together with the collection, and say in the collection's terms when its table is gone.

        A column in `named` that the collection seems to lack may have come with a migration since it was read.
        """
        check_identifier(name, kind="table")
        async with scope as connection:
            found = await self._catalogue.find(connection, name, id_column=id_column)
            if _names_unknown_column(found, named) and self._catalogue.forget(name):
                found = await self._catalogue.find(connection, name, id_column=id_column)
            try:
                yield connection, found
            except DBAPIError as error:
                dialect = dialect_of(connection)
                if dialect.missing_table(error) is not None:
                    self._catalogue.forget(name)
                    raise CollectionNotFoundError(name) from error
                if dialect.missing_column(error) is not None:
                    self._catalogue.forget(name)
                raise


def _digits(connection: AsyncConnection) -> int | None:
    return dialect_of(connection).exact_decimal_digits


def _names_unknown_column(collection: Collection, docs: Iterable[Document]) -> bool:
    names: set[str] = set()
    for doc in docs:
        names.update(doc.model_dump(by_alias=True) if isinstance(doc, BaseModel) else doc)
    return not names.issubset(collection.types)
