"""How asyncpg runs a statement."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import asyncpg
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import DirectDialect, fail
from cqrs_ddd_persistence_sqlalchemy.core.dialect.types import PortableArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import PoolProxiedConnection

_COPIED = "cqrs_ddd_copied"


class PostgreSQLDirect(DirectDialect):
    """asyncpg keeps the statements that it has prepared."""

    copies_from = 200

    async def copy_rows(
        self,
        connection: AsyncConnection,
        table: sa.Table,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
    ) -> sa.TableClause | None:
        """Use COPY, which takes what asyncpg writes in binary."""
        pooled = self._pooled(connection)
        if pooled is None:
            return None
        selected = sa.select(*(table.c[name] for name in columns)).compile(dialect=connection.dialect)
        create = f"CREATE TEMPORARY TABLE {_COPIED} ON COMMIT DROP AS {selected} WITH NO DATA"
        processes = [_writes(table.c[name].type, connection.dialect) for name in columns]
        if any(processes):
            rows = [
                [value if process is None else process(value) for value, process in zip(row, processes, strict=True)]
                for row in rows
            ]
        try:
            driver = await _begun(pooled)
            await driver.execute(create)
            await driver.copy_records_to_table(_COPIED, columns=columns, records=rows)
        except BaseException as error:  # noqa: BLE001  (a cancellation, too, is SQLAlchemy's to handle)
            await fail(connection, pooled, error, f"COPY {table.name} ({', '.join(columns)})", ())
        return _copied(tuple(columns))

    async def drop_copied(self, connection: AsyncConnection) -> None:
        """Drop the temporary table."""
        await connection.exec_driver_sql(f"DROP TABLE pg_temp.{_COPIED}")

    def cannot_merge(self, error: DBAPIError) -> bool:
        """Recognise insufficient_privilege, and keys that are equal to the database and not to Python."""
        return getattr(error.orig, "sqlstate", None) in {"42501", "21000"}

    def _is_ready(self, pooled: PoolProxiedConnection) -> bool:
        # Whoever has switched the driver's cache off, for a proxy's sake, has SQLAlchemy name its statements.
        return bool(getattr(pooled.driver_connection, "_stmt_cache_enabled", True))

    def _is_outdated(self, error: BaseException) -> bool:
        return isinstance(error, asyncpg.InvalidCachedStatementError)

    async def _run(
        self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Any], *, returns_rows: bool
    ) -> tuple[Sequence[Sequence[Any]], int]:
        driver = await _begun(pooled)
        if returns_rows:
            return await driver.fetch(sql, *values), -1
        status: str = await driver.execute(sql, *values)
        return (), int(status.rpartition(" ")[2])

    async def _run_many(self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Sequence[Any]]) -> None:
        driver = await _begun(pooled)
        await driver.executemany(sql, values)


@lru_cache(maxsize=1024)
def _copied(columns: tuple[str, ...]) -> sa.TableClause:
    return sa.table(_COPIED, *(sa.column(name) for name in columns), schema="pg_temp")


def _writes(type_: sa.types.TypeEngine[Any], dialect: Dialect) -> Any:
    """Return what makes a checked value of a document what the driver takes; None where it takes it as it is."""
    if not isinstance(type_, sa.JSON | PortableArray):
        return None
    return type_.dialect_impl(dialect).bind_processor(dialect)


async def _begun(pooled: PoolProxiedConnection) -> Any:
    """Return asyncpg's connection; SQLAlchemy sends BEGIN no sooner than the first statement."""
    driver: Any = pooled.driver_connection
    adapted: Any = pooled.dbapi_connection
    if adapted.isolation_level != "autocommit" and not driver.is_in_transaction():
        await adapted._start_transaction()  # noqa: SLF001  (what its own cursors call)
    return driver
