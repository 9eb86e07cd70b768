"""How asyncpg runs a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import DirectDialect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.pool import PoolProxiedConnection


class PostgreSQLDirect(DirectDialect):
    """asyncpg keeps the statements that it has prepared."""

    def _has_begun(self, pooled: PoolProxiedConnection) -> bool:
        return True  # _begun sees to it

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


async def _begun(pooled: PoolProxiedConnection) -> Any:
    """Return asyncpg's connection; SQLAlchemy sends BEGIN no sooner than the first statement."""
    driver: Any = pooled.driver_connection
    adapted: Any = pooled.dbapi_connection
    if adapted.isolation_level != "autocommit" and not driver.is_in_transaction():
        await adapted._start_transaction()  # noqa: SLF001  (what its own cursors call)
    return driver
