"""How aiosqlite runs a statement."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import DirectDialect
from cqrs_ddd_persistence_sqlalchemy.core.dialect.times import UTCDateTime
from cqrs_ddd_persistence_sqlalchemy.core.dialect.types import JSONText

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import PoolProxiedConnection

    from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import LoneConnection


class SQLiteDirect(DirectDialect):
    """aiosqlite has a thread for each connection: a statement goes there once, and not for each call of its cursor."""

    now: sa.ColumnElement[Any]
    min_events_to_copy = 10

    async def stream_versions(
        self, connection: AsyncConnection, events: sa.Table, streams: Sequence[str]
    ) -> dict[str, int]:
        """Look each up. They stay what they are: nobody else may write until the transaction ends."""
        answer = await self.execute(connection, _stream_versions(events), {"streams": json.dumps(streams)})
        return dict(map(tuple, answer.rows))

    async def draw_positions(
        self, connection: AsyncConnection, events: sa.Table, count: int
    ) -> Sequence[Sequence[Any]]:
        """Go on from the last one that AUTOINCREMENT has given; the table's own is higher once rows were moved in."""
        answer = await self.execute(connection, _last_position(events, self.now))
        last, time = answer.rows[0]
        return [(position, time) for position in range(last + 1, last + count + 1)]

    async def copy_events(
        self, connection: AsyncConnection, events: sa.Table, columns: Sequence[str], values: Sequence[Sequence[Any]]
    ) -> None:
        """Use `executemany`."""
        statement = _insert_events(events, tuple(columns))
        await self.execute_many(connection, statement, dict(zip(columns, values, strict=True)))

    def is_in_transaction(self, pooled: PoolProxiedConnection) -> bool:
        """Ask the driver."""
        return bool(pooled.driver_connection.in_transaction)  # type: ignore[union-attr]

    def _is_ready(self, pooled: PoolProxiedConnection, *, in_transaction: bool) -> bool:
        return not in_transaction or self.is_in_transaction(pooled)

    async def _run(
        self,
        pooled: PoolProxiedConnection,
        sql: str,
        values: Sequence[Any],
        *,
        returns_rows: bool,
        lone: LoneConnection | None,
    ) -> tuple[Sequence[Sequence[Any]], int]:
        driver: Any = pooled.driver_connection

        def run(sql: str) -> tuple[Sequence[Sequence[Any]], int]:
            cursor: sqlite3.Cursor = driver._conn.execute(sql, values)  # noqa: SLF001
            try:
                return cursor.fetchall() if returns_rows else (), cursor.rowcount
            finally:
                cursor.close()

        answer: tuple[Sequence[Sequence[Any]], int]
        if lone is None or not lone.writes:
            answer = await driver._execute(run, sql)  # noqa: SLF001
            return answer
        committed = _Committed(run)
        try:
            answer = await driver._execute(committed, sql, driver._conn)  # noqa: SLF001
        except asyncio.CancelledError:
            committed.is_wanted = False
            raise
        return answer

    async def _run_many(self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Sequence[Any]]) -> None:
        driver: Any = pooled.driver_connection

        def run() -> None:
            driver._conn.executemany(sql, values).close()  # noqa: SLF001

        await driver._execute(run)  # noqa: SLF001


class _Committed:
    """Runs in the thread of a connection: a statement between BEGIN and COMMIT, unless it is given up before."""

    def __init__(self, run: Callable[[str], tuple[Sequence[Sequence[Any]], int]]) -> None:
        self._run = run
        self.is_wanted = True

    def __call__(self, sql: str, driver: sqlite3.Connection) -> tuple[Sequence[Sequence[Any]], int]:
        # At once IMMEDIATE: a transaction that reads first and writes later cannot wait for its turn.
        driver.execute("BEGIN IMMEDIATE").close()
        try:
            # Who was cancelled while the thread waited for another writer expects nothing to be written later on.
            answer = self._run(sql) if self.is_wanted else ((), 0)
            driver.execute("COMMIT" if self.is_wanted else "ROLLBACK").close()
        except BaseException:
            if driver.in_transaction:  # some errors end it
                driver.execute("ROLLBACK").close()
            raise
        return answer


@lru_cache(maxsize=1024)
def _stream_versions(events: sa.Table) -> sa.Select[Any]:
    each = sa.func.json_each(sa.bindparam("streams", type_=sa.Text())).table_valued(sa.column("value", sa.Text()))
    version = sa.select(sa.func.max(events.c.version)).where(events.c.aggregate_id == each.c.value)
    return sa.select(each.c.value, sa.func.coalesce(version.scalar_subquery(), 0))


@lru_cache(maxsize=1024)
def _last_position(events: sa.Table, now: sa.ColumnElement[Any]) -> sa.Select[Any]:
    # A Table, so that schema_translate_map reaches it.
    columns = sa.Column("name", sa.Text()), sa.Column("seq", sa.Integer())
    given = sa.Table("sqlite_sequence", sa.MetaData(), *columns, schema=events.schema)
    ever = sa.select(sa.func.max(given.c.seq)).where(given.c.name == events.name).scalar_subquery()
    there = sa.select(sa.func.max(events.c.position)).scalar_subquery()
    last = sa.func.max(sa.func.coalesce(ever, 0), sa.func.coalesce(there, 0), type_=sa.BigInteger())
    return sa.select(last, sa.type_coerce(now, UTCDateTime()))


@lru_cache(maxsize=1024)
def _insert_events(events: sa.Table, columns: tuple[str, ...]) -> sa.Insert:
    types = {name: events.c[name].type for name in columns} | {"payload": JSONText(), "metadata": JSONText()}
    return sa.insert(events).values({name: sa.bindparam(name, type_=type_) for name, type_ in types.items()})
