"""The reading half of the projection store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.projections import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.batches import to_keys
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.catalogue import Catalogue
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.queries import chunked, count_matching, select
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import parameter
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.writer import UnexpectedNullError
from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope, repeated
from cqrs_ddd_persistence_sqlalchemy.core.transactions import is_spoilt
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, TableChangedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

T = TypeVar("T")
Work: TypeAlias = "Callable[[AsyncConnection, Collection], Awaitable[T]]"
CHUNK = 1000

# SQLAlchemy would fetch up to 1000 rows at a time, whatever their size.
_FEW_AT_A_TIME = {"max_row_buffer": 100}


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

        async def work(connection: AsyncConnection, found: Collection) -> dict[str, Any] | None:
            key = found.key_values(doc_id, exact_digits=digits_of(connection))
            parameters = {parameter(name): value for name, value in key.items()}
            return (await dialect_of(connection).execute(connection, statements.find_one(found), parameters)).mapping()

        return await self._run(collection, work, uow=uow)

    async def find_many(
        self, collection: str, doc_ids: Sequence[object], *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> list[dict[str, Any] | None]:
        """Return the documents with these keys, in the same order, None for each that is missing."""
        if isinstance(doc_ids, str | bytes | Mapping) or not isinstance(doc_ids, Iterable):
            raise ValueError(f"doc_ids is a list of keys, not {doc_ids!r}")
        wanted = list(doc_ids)

        async def work(connection: AsyncConnection, found: Collection) -> list[dict[str, Any] | None]:
            keys = to_keys(found, wanted, digits_of(connection))
            rows: dict[tuple[Any, ...], dict[str, Any]] = {}
            distinct = dict.fromkeys(keys)
            statement, by_column = statements.find_many(found, connection.dialect.name)
            for chunk in chunked(distinct, CHUNK):
                parameters: dict[str, list[Any]] = {"keys": [key[0] for key in chunk] if len(found.key) == 1 else chunk}
                if by_column:
                    parameters = dict(zip(found.key, map(list, zip(*chunk, strict=True)), strict=True))
                answer = await execute_kept(connection, statement, parameters)
                places = [answer.names.index(name) for name in found.key]
                keys_found = zip(*([row[place] for row in answer.rows] for place in places), strict=True)
                rows |= zip(keys_found, answer.mappings(), strict=True)
            if len(distinct) == len(keys):
                return list(map(rows.get, keys))
            return [dict(rows[key]) if key in rows else None for key in keys]

        return await self._run(collection, work, uow=uow)

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

        async def work(connection: AsyncConnection, found: Collection) -> list[dict[str, Any]]:
            statement = select(found, connection, filter, sort, after)
            rows = await connection.execute(statement.limit(limit).offset(offset))
            return [dict(row) for row in rows.mappings()]

        return await self._run(collection, work, uow=uow)

    async def count(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> int:
        """Return how many documents match."""

        async def work(connection: AsyncConnection, found: Collection) -> int:
            return int(await connection.scalar(count_matching(found, connection, filter)) or 0)

        return await self._run(collection, work, uow=uow)

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

        async def work(connection: AsyncConnection, found: Collection) -> AsyncResult[Any]:
            statement = select(found, connection, filter, sort)
            result: AsyncResult[Any] = await connection.stream(statement, execution_options=_FEW_AT_A_TIME)
            return result

        stack, result = await self._opened(collection, work, uow=uow)
        async with stack:
            async for row in result.mappings():
                yield dict(row)

    async def _is_there(self, connection: AsyncConnection, collection: str) -> bool:
        table = TableRef(collection, self._catalogue.db_schema)
        return await dialect_of(connection).describe_table(connection, table) is not None

    @repeated
    async def _opened(
        self, name: str, work: Work[AsyncResult[Any]], *, uow: SQLAlchemyUnitOfWork | None
    ) -> tuple[AsyncExitStack, AsyncResult[Any]]:
        """Begin what `work` begins to read; leaving the stack ends it."""
        check_identifier(name, kind="table")
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._scope.read(uow, transaction=True))
            result = await self._healed(connection, name, work)
            stack.push_async_callback(result.close)
            return stack.pop_all(), result
        raise AssertionError  # pragma: no cover  (an AsyncExitStack could swallow an error, this one has nothing to)

    @repeated
    async def _run(
        self,
        name: str,
        work: Work[T],
        *,
        uow: SQLAlchemyUnitOfWork | None,
        write: bool = False,
    ) -> T:
        """Do an operation's work in the transaction it belongs to, with the collection as it is."""
        check_identifier(name, kind="table")
        async with self._scope.write(uow, single=True) if write else self._scope.read(uow) as connection:
            return await self._healed(connection, name, work)

    def _known(self, name: str, id_column: str | None = None) -> Collection | None:
        return self._catalogue.known(name, id_column=id_column)

    async def _healed(self, connection: AsyncConnection, name: str, work: Work[T], id_column: str | None = None) -> T:
        """Do the work; where it is refused for what is known of the table, look at the table and do it again.

        That is the one place where a store notices that a migration has changed a table under it. What is known may be
        out of date in two ways. A document or a filter is refused that fits the table as it is now: nothing is lost.
        Or the database refuses the statement, which ends the transaction unless a savepoint is around it.

        Raises:
            TableChangedError: when the transaction is lost.
            CollectionNotFoundError: when the table is not there.
        """
        lost_before = is_spoilt(connection)
        known = self._known(name, id_column)
        found = known or await self._catalogue.read(connection, name, id_column=id_column)
        try:
            return await work(connection, found)
        except (ValueError, DBAPIError) as error:
            lost, dialect = is_spoilt(connection), dialect_of(connection)
            stale_plan = isinstance(error, DBAPIError) and dialect.has_stale_plan(error)
            if isinstance(error, DBAPIError):
                if dialect.missing_table(error) is not None:
                    self._catalogue.doubt(name)
                    raise CollectionNotFoundError(name, self._catalogue.db_schema) from error
                suspect = dialect.misfits(error)
            else:
                by_database = lost or isinstance(error, UnexpectedNullError)
                suspect = by_database or not self._catalogue.goes_by_schema(found)
            if lost_before or not (stale_plan or (suspect and known is not None)):
                raise
            self._catalogue.doubt(name)
            if lost:
                raise TableChangedError(
                    f"a migration changed the table of collection {name!r} while this transaction was using it: roll "
                    "back and try again"
                ) from error
            now = await self._catalogue.read(connection, name, id_column=id_column)
            if now is found and not stale_plan:
                raise
        return await work(connection, now)


def digits_of(connection: AsyncConnection) -> int | None:
    """Return how many digits of a decimal the connection's database holds exactly, None for all."""
    return dialect_of(connection).exact_decimal_digits
