"""How aiosqlite runs a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import DirectDialect

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from sqlalchemy.pool import PoolProxiedConnection


class SQLiteDirect(DirectDialect):
    """aiosqlite has a thread for each connection: a statement goes there once, and not for each call of its cursor."""

    def _is_ready(self, pooled: PoolProxiedConnection) -> bool:
        return bool(pooled.driver_connection.in_transaction)  # type: ignore[union-attr]

    async def _run(
        self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Any], *, returns_rows: bool
    ) -> tuple[Sequence[Sequence[Any]], int]:
        driver: Any = pooled.driver_connection

        def run(sql: str) -> tuple[Sequence[Sequence[Any]], int]:
            cursor: sqlite3.Cursor = driver._conn.execute(sql, values)  # noqa: SLF001
            try:
                return cursor.fetchall() if returns_rows else (), cursor.rowcount
            finally:
                cursor.close()

        answer: tuple[Sequence[Sequence[Any]], int] = await driver._execute(run, sql)  # noqa: SLF001
        return answer

    async def _run_many(self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Sequence[Any]]) -> None:
        driver: Any = pooled.driver_connection

        def run() -> None:
            driver._conn.executemany(sql, values).close()  # noqa: SLF001

        await driver._execute(run)  # noqa: SLF001
