"""What workloads work with: a database of their own, the library's engine on it and the driver's connections."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiosqlite
import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.databases import Database


@dataclass
class Bench:
    """One migrated database and the ways to it.

    Attributes:
        database: where it is.
        engine: the library's.
        sessions: the library's session factory.
        raw: a connection of the driver, asyncpg's or aiosqlite's, ready for use.
        smaller: sizes are divided by it.
        log: a file of the traffic fines log; None for a made-up log of its shape.
        stack: closes what workloads have opened.
    """

    database: Database
    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    raw: Any
    smaller: int = 1
    log: Path | None = None
    peers: bool = True
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL."""
        return self.database.kind == "postgresql"

    def size(self, full: int, *, least: int = 1) -> int:
        """Return how many to work with, where `full` is the real size."""
        return max(least, full // self.smaller)

    def unit_of_work(self) -> SQLAlchemyUnitOfWork:
        """Return a unit of work of the library's."""
        return SQLAlchemyUnitOfWork(self.sessions)

    async def connect(self) -> Any:
        """Return another connection of the driver, closed in the end."""
        connection = await _connect(self.database)
        self.stack.push_async_callback(connection.close)
        return connection

    async def execute(self, statement: str) -> None:
        """Run a statement, untimed."""
        await self.raw.execute(statement)

    async def settle(self, *tables: str) -> None:
        """Do now, untimed, what the server would otherwise do at some side's cost."""
        if self.is_postgresql:
            for table in tables:
                await self.raw.execute(f"VACUUM ANALYZE {table}")
            await self.raw.execute("CHECKPOINT")
        else:
            # By a connection that has read nothing yet: one with an old view of the file waits for itself.
            with closing(sqlite3.connect(self.database.path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def empty(self, *tables: str) -> None:
        """Empty tables, untimed."""
        for table in tables:
            await self.raw.execute(f"TRUNCATE {table}" if self.is_postgresql else f"DELETE FROM {table}")
        await self.settle(*tables)


@asynccontextmanager
async def opened(database: Database, *, smaller: int, log: Path | None, peers: bool) -> AsyncIterator[Bench]:
    """Open a database for a family of workloads."""
    # Named, as SQLAlchemy 2.0 would open a new connection for each transaction on an SQLite file.
    engine = configure_engine(create_async_engine(database.url, poolclass=AsyncAdaptedQueuePool, pool_size=10))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    raw = await _connect(database)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        stack.push_async_callback(raw.close)
        yield Bench(database, engine, sessions, raw, smaller, log, peers, stack)


async def _connect(database: Database) -> Any:
    if database.kind == "postgresql":
        return await asyncpg.connect(database.dsn)
    connection = await aiosqlite.connect(database.path, isolation_level=None)
    for pragma in ("busy_timeout = 60000", "foreign_keys = ON", "journal_mode = WAL"):  # as the library sets them
        await connection.execute_fetchall(f"PRAGMA {pragma}")  # read to its end: an open cursor is a lock
    return connection
