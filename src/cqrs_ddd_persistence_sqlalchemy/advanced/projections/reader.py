"""The reading half of the projection store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.projections import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.catalogue import Catalogue
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import UnknownColumnError
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.queries import chunked, count_matching, select
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import parameter
from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SessionFactory, SQLAlchemyUnitOfWork

T = TypeVar("T")
CHUNK = 1000


class ProjectionReader:
    """Reads documents by collection; `SQLAlchemyProjectionStore` says what its arguments are."""

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
            key = found.key_values(doc_id, exact_digits=digits_of(connection))
            parameters = {parameter(name): value for name, value in key.items()}
            row = (await connection.execute(statements.find_one(found), parameters)).mappings().one_or_none()
            return None if row is None else dict(row)

    async def find_many(
        self, collection: str, doc_ids: Sequence[object], *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> list[dict[str, Any] | None]:
        """Return the documents with these keys, in the same order, None for each that is missing."""
        if isinstance(doc_ids, str | bytes | Mapping) or not isinstance(doc_ids, Iterable):
            raise ValueError(f"doc_ids is a list of keys, not {doc_ids!r}")
        async with self._using(collection, self._scope.read(uow)) as (connection, found):
            digits = digits_of(connection)
            keys = [tuple(found.key_values(doc_id, exact_digits=digits).values()) for doc_id in doc_ids]
            rows: dict[tuple[Any, ...], dict[str, Any]] = {}
            for chunk in chunked(dict.fromkeys(keys), CHUNK):
                among = [key[0] for key in chunk] if len(found.key) == 1 else chunk
                result = await connection.execute(statements.find_many(found), {"keys": among})
                rows |= {tuple(row[name] for name in found.key): dict(row) for row in result.mappings()}
            return [dict(rows[key]) if key in rows else None for key in keys]

    async def find(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 100,
        offset: int = 0,
        after: Mapping[str, Any] | None = None,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> list[dict[str, Any]]:
        """Return the documents that match, in the order of `sort`, or of the key without one.

        Args:
            collection: the table's name.
            filter: as in MongoDB: columns and the values they have, None for NULL, or operators: `$eq $ne $gt $gte $lt
                $lte $in $nin $like $exists $not`, and around columns `$and $or $not`.
            sort: (column, 1 or -1) pairs; NULLs come first either way, ties are in the key's order. Text is ordered
                as the database orders it.
            limit: at most so many.
            offset: after passing over so many.
            after: the last document of the page before: the next page goes on behind it, at the same speed however
                far that is. Not together with `offset`.
            uow: joined when open.

        Raises:
            ValueError: naming an unknown column or operator, or a value that cannot be compared with its column.
        """
        check_count("limit", limit)
        if check_count("offset", offset) and after is not None:
            raise ValueError("offset and after are two ways to page: give one of them")
        async with self._using(collection, self._scope.read(uow)) as (connection, known):
            statement = await self._prepared(
                connection, known, lambda found: select(found, connection, filter, sort, after)
            )
            rows = await connection.execute(statement.limit(limit).offset(offset))
            return [dict(row) for row in rows.mappings()]

    async def count(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> int:
        """Return how many documents match."""
        async with self._using(collection, self._scope.read(uow)) as (connection, known):
            statement = await self._prepared(connection, known, lambda found: count_matching(found, connection, filter))
            return int(await connection.scalar(statement) or 0)

    async def stream(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Iterate over all documents that match, as they were when it began, without holding them in memory.

        The connection stays in use until the iteration ends; leaving it early, close it (`contextlib.aclosing`).
        """
        async with self._using(collection, self._scope.read(uow)) as (connection, known):
            statement: sa.Select[Any] = await self._prepared(
                connection, known, lambda found: select(found, connection, filter, sort)
            )
            async with connection.stream(statement) as result:
                async for row in result.mappings():
                    yield dict(row)

    async def _is_there(self, connection: AsyncConnection, collection: str) -> bool:
        table = TableRef(collection, self._catalogue.db_schema)
        return await dialect_of(connection).describe_table(connection, table) is not None

    @asynccontextmanager
    async def _using(
        self, name: str, scope: Any, id_column: str | None = None
    ) -> AsyncIterator[tuple[AsyncConnection, Collection]]:
        """Open a scope together with the collection, and say in the collection's terms when its table is gone."""
        check_identifier(name, kind="table")
        async with scope as connection:
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

    async def _prepared(
        self, connection: AsyncConnection, collection: Collection, prepare: Callable[[Collection], T]
    ) -> T:
        """Prepare what is to be sent; a column that seems to be unknown may have come with a migration meanwhile."""
        try:
            return prepare(collection)
        except UnknownColumnError:
            if not self._catalogue.forget(collection.name):
                raise
        id_column = collection.key[0] if collection.by_id_column else None
        return prepare(await self._catalogue.find(connection, collection.name, id_column=id_column))


def digits_of(connection: AsyncConnection) -> int | None:
    """Return how many digits of a decimal the connection's database holds exactly, None for all."""
    return dialect_of(connection).exact_decimal_digits
