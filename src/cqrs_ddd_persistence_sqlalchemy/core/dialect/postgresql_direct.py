"""How asyncpg runs a statement."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NullType

from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import qualified_name
from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import DirectDialect, fail
from cqrs_ddd_persistence_sqlalchemy.core.dialect.floors import draw_positions, sequence_of, stream_versions
from cqrs_ddd_persistence_sqlalchemy.core.dialect.keeping import kept
from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import untouched
from cqrs_ddd_persistence_sqlalchemy.core.dialect.texts import ListText, copy_text
from cqrs_ddd_persistence_sqlalchemy.core.dialect.types import PortableArray

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import PoolProxiedConnection

    from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import LoneConnection, TransactionConnection


# Of a part of text: so many rows, or characters in their documents.
_AT_ONCE, _PART_SIZE = 500, 1 << 20
_DOCUMENTS = ("payload", "metadata")


class PostgreSQLDirect(DirectDialect):
    """asyncpg keeps the statements that it has prepared."""

    min_rows_to_merge = 5
    # COPY takes less of the client's time, but each table that is made and dropped leaves dead rows in the catalogue.
    min_rows_to_copy = 2000

    async def copy_rows(
        self,
        connection: AsyncConnection,
        table: sa.Table,
        names: Sequence[str],
        columns: Sequence[Sequence[Any]],
        text: Sequence[bytes] | None = None,
    ) -> sa.FromClause | None:
        """Use COPY; of rows without text in binary, and so without types that asyncpg has no such form for."""
        pooled = self._pooled(connection)
        if pooled is None:
            return None
        dialect, of = connection.dialect, tuple(names)
        source, create = kept(dialect, (_source, table, of), lambda: _source(table, of, dialect))
        if source is None:
            return None
        if text is None:
            processes = [_writes(table.c[name].type, dialect) for name in names]
            pairs = zip(processes, columns, strict=True)
            rows = zip(*(each if process is None else map(process, each) for process, each in pairs), strict=True)
            await _copy(connection, pooled, source, names, rows=rows, first=create)
        else:
            await _copy(connection, pooled, source, names, text=[b"".join(text)], first=create)
        return source

    def copy_text(
        self, dialect: Dialect, table: sa.Table, columns: tuple[str, ...]
    ) -> Callable[[Sequence[Sequence[Any]]], bytes] | None:
        """Return what writes COPY's text form."""
        return copy_text(tuple([table.c[name].type for name in columns]), dialect)

    async def drop_copied(self, connection: AsyncConnection, source: sa.FromClause) -> None:
        """Drop the temporary table."""
        await connection.exec_driver_sql(f"DROP TABLE {source.schema}.{source.name}")  # type: ignore[attr-defined]

    # Four round trips, and no look-ups by row: that pays from some hundred events on.
    min_events_to_copy = 100

    async def stream_versions(
        self, connection: AsyncConnection, events: sa.Table, streams: Sequence[str]
    ) -> dict[str, int]:
        """Look each up."""
        answer = await self.execute(connection, stream_versions(events), {"streams": streams})
        return dict(map(tuple, answer.rows))

    async def draw_positions(
        self, connection: AsyncConnection, events: sa.Table, count: int
    ) -> Sequence[Sequence[Any]]:
        """Draw from the identity's sequence, which needs the right to use it."""
        sequence = qualified_name(connection, sequence_of(events))
        return (await self.execute(connection, draw_positions(), {"sequence": sequence, "count": count})).rows

    async def copy_events(
        self, connection: AsyncConnection, events: sa.Table, columns: Sequence[str], values: Sequence[Sequence[Any]]
    ) -> None:
        """Use COPY."""
        pooled = self._pooled(connection)
        assert pooled is not None, "ask can_copy first"  # noqa: S101
        types = tuple([events.c[name].type for name in columns])
        write = copy_text(types, connection.dialect, json_is_text=True)
        assert write is not None, "types are known"  # noqa: S101
        # The server reads a part while the next one is written.
        count = len(values[0])
        size = sum(
            len(text) for name, texts in zip(columns, values, strict=True) if name in _DOCUMENTS for text in texts
        )
        at_once = max(1, min(_AT_ONCE, _PART_SIZE * count // (size + 1)))
        parts = ([each[n : n + at_once] for each in values] for n in range(0, count, at_once))
        await _copy(connection, pooled, events, columns, text=map(write, parts))

    def cannot_copy(self, error: DBAPIError) -> bool:
        """Recognise insufficient_privilege (of the sequence), and feature_not_supported (row-level security)."""
        return getattr(error.orig, "sqlstate", None) in {"42501", "0A000"}

    def key_rows(self, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause | None:
        """Use unnest. In a plan that is kept, `= ANY` compares each row of a scan with each element of the list."""
        if any(isinstance(column.type, sa.types.NullType) for column in columns):
            return None  # an array of what is not known
        lists = [_list_of(column.name, column.type) for column in columns]
        typed = [sa.column(column.name, column.type) for column in columns]
        # A name that no table of a projection has.
        return sa.func.unnest(*lists).table_valued(*typed).render_derived(name="0_wanted")

    def batch_rows(self, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
        """Use unnest."""
        lists = self.key_rows(columns)
        assert lists is not None, "types are known"  # noqa: S101
        return lists

    def batch(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Return them: each is a list."""
        return dict(columns)

    def cannot_merge(self, error: DBAPIError) -> bool:
        """Recognise insufficient_privilege, and keys that are equal to the database and not to Python."""
        return getattr(error.orig, "sqlstate", None) in {"42501", "21000"}

    def is_in_transaction(self, pooled: PoolProxiedConnection) -> bool:
        """Ask the driver, which was told by the server."""
        return bool(cast("Any", pooled.driver_connection).is_in_transaction())

    def _is_ready(self, pooled: PoolProxiedConnection, *, in_transaction: bool) -> bool:
        driver: Any = pooled.driver_connection
        # Whoever has switched the driver's cache off, for a proxy's sake, has SQLAlchemy name its statements.
        if not getattr(driver, "_stmt_cache_enabled", True):
            return False
        has_begun = getattr(pooled.dbapi_connection, "_transaction", None) is not None
        return has_begun is bool(driver.is_in_transaction())  # somebody may have sent BEGIN or COMMIT by hand

    def _is_outdated(self, error: BaseException) -> bool:
        return isinstance(error, asyncpg.InvalidCachedStatementError)

    async def _run(
        self,
        pooled: PoolProxiedConnection,
        sql: str,
        values: Sequence[Any],
        *,
        returns_rows: bool,
        lone: LoneConnection | None,
    ) -> tuple[Sequence[Sequence[Any]], int]:
        driver: Any = await _begun(pooled) if lone is None else pooled.driver_connection
        if returns_rows:
            return await driver.fetch(sql, *values), -1
        status: str = await driver.execute(sql, *values)
        return (), int(status.rpartition(" ")[2])

    async def _run_many(self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Sequence[Any]]) -> None:
        driver = await _begun(pooled)
        await driver.executemany(sql, values)

    async def commit(self, connection: TransactionConnection) -> None:
        """Do what SQLAlchemy's connection does, without a greenlet, unless it was made."""
        if not untouched(connection):
            await super().commit(connection)
            return
        adapted: Any = connection.pooled.dbapi_connection
        transaction = adapted._transaction  # noqa: SLF001
        if transaction is None:
            return  # no statement was sent
        try:
            try:
                await transaction.commit()
            finally:
                adapted._transaction = None  # noqa: SLF001
                if hasattr(adapted, "_started"):  # SQLAlchemy 2.0
                    adapted._started = False  # noqa: SLF001
        except BaseException as error:  # noqa: BLE001  (a cancellation, too, is SQLAlchemy's to handle)
            await fail(connection, connection.pooled, error, None, None)


def _list_of(name: str, item: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Return a parameter that is a list."""
    # Of one dimension: a document that is a list is not to be taken for another one.
    array = postgresql.ARRAY(item, dimensions=1)
    if ListText.takes(item):
        return sa.cast(sa.bindparam(name, type_=ListText(item)), array)
    return sa.bindparam(name, type_=array)


def _source(table: sa.Table, columns: tuple[str, ...], dialect: Dialect) -> tuple[sa.Table | None, str]:
    """Return a temporary table with some columns of another, in the types that are known of them, and what makes it.

    asyncpg remembers the types of columns by the text of a query, so tables of other types have other names.
    """
    if any(isinstance(table.c[name].type, NullType) for name in columns):
        return None, ""
    copied = [sa.Column(table.c[name].name, table.c[name].type, autoincrement=False) for name in columns]
    spelled = [f"{column.name} {column.type.compile(dialect=dialect)}" for column in copied]
    digest = sha256("\n".join(spelled).encode()).hexdigest()[:16]
    source = sa.Table(
        f"cqrs_ddd_copied_{digest}",
        sa.MetaData(),
        *copied,
        schema="pg_temp",
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    create = sa.schema.CreateTable(source, include_foreign_key_constraints=()).compile(dialect=dialect)
    return source, str(create)


def _writes(type_: sa.types.TypeEngine[Any], dialect: Dialect) -> Any:
    """Return what makes a checked value of a document what the driver takes; None where it takes it as it is."""
    if not isinstance(type_, sa.JSON | PortableArray):
        return None
    return type_.dialect_impl(dialect).bind_processor(dialect)


async def _copy(
    connection: AsyncConnection,
    pooled: PoolProxiedConnection,
    table: sa.Table,
    columns: Sequence[str],
    *,
    rows: Iterable[Sequence[Any]] = (),
    text: Iterable[bytes] | None = None,
    first: str | None = None,
) -> None:
    """Copy rows, or their text, into a table, after a statement that makes it."""
    try:
        driver = await _begun(pooled)
        if first is not None:
            await driver.execute(first)
        into = {"schema_name": table.schema, "columns": columns}
        if text is None:
            await driver.copy_records_to_table(table.name, records=rows, **into)
        else:
            await driver.copy_to_table(table.name, source=_one_by_one(text), encoding="utf8", **into)
    except BaseException as error:  # noqa: BLE001  (a cancellation, too, is SQLAlchemy's to handle)
        await fail(connection, pooled, error, f"COPY {table.name} ({', '.join(columns)})", ())


async def _one_by_one(text: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in text:
        yield part


async def _begun(pooled: PoolProxiedConnection) -> Any:
    """Return asyncpg's connection; SQLAlchemy sends BEGIN no sooner than the first statement."""
    driver: Any = pooled.driver_connection
    adapted: Any = pooled.dbapi_connection
    if adapted.isolation_level != "autocommit" and not driver.is_in_transaction():
        await adapted._start_transaction()  # noqa: SLF001  (what its own cursors call)
    return driver
