"""Connections of the pool without SQLAlchemy's around them (docs/decisions/0026 and 0028)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self, cast

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool.base import ResetStyle
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect, Engine, RootTransaction
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection


#: Execution options that say how transactions begin.
CHANGES_TRANSACTIONS = frozenset({"isolation_level", "postgresql_readonly", "postgresql_deferrable"})


class PooledConnection(AsyncConnection):
    """A connection of the pool's, around which SQLAlchemy's own is made as soon as somebody asks for it.

    Somebody does for errors, savepoints and rollbacks, and for whatever is not one statement; to make it takes longer
    than most statements.

    Args:
        engine: with the options that its connections have.
        pooled: of the engine's pool.
    """

    __slots__ = ("_made", "_pool", "_released", "pooled")

    def __init__(self, engine: AsyncEngine, pooled: PoolProxiedConnection) -> None:
        self.engine = engine
        self.sync_engine = engine.sync_engine
        # The one that it comes from: the engine may have another one by now.
        self._pool: Any = cast("Any", pooled)._pool
        self.pooled = pooled
        self._made: Connection | None = None
        self._released = False

    @property  # type: ignore[misc]
    def dialect(self) -> Dialect:
        """SQLAlchemy's."""
        return self.sync_engine.dialect

    @property
    def sync_connection(self) -> Connection:  # type: ignore[override]
        """SQLAlchemy's connection, made when it is asked for."""
        return self._made or self._make()

    def _make(self) -> Connection:
        self._made = Connection(self.sync_engine, connection=self.pooled)
        self._assign_proxied(self._made)
        if self._released:
            self._made.close()  # the pool has it back already
        return self._made

    async def release(self) -> None:
        """Give it back to the pool: nothing is to be rolled back, and SQLAlchemy's connection was never made."""
        self._released = True
        somebody_waits = isinstance(self._pool, AsyncAdaptedQueuePool) and bool(self._pool._pool._queue._getters)  # type: ignore[attr-defined]
        if _takes_at_once(self._pool):
            # What SQLAlchemy's connection calls after the end of a transaction.
            cast("Any", self.pooled)._close_special(transaction_reset=True)
        else:
            await greenlet_spawn(self.pooled.close)
        if somebody_waits:
            await asyncio.sleep(0)  # and is to have the connection, before this task takes it again


class LoneConnection(PooledConnection):
    """One on which each statement is by itself: committed before it returns, or only reading.

    Once SQLAlchemy's connection is made, what is written on SQLite is in a transaction of it.

    Args:
        engine: with the options that its connections have where each statement is by itself.
        pooled: of the engine's pool.
        writes: whether its statements may write.
    """

    __slots__ = ("writes",)

    def __init__(self, engine: AsyncEngine, pooled: PoolProxiedConnection, *, writes: bool) -> None:
        super().__init__(engine, pooled)
        self.writes = writes

    @classmethod
    async def take(cls, engine: AsyncEngine, *, writes: bool) -> Self:
        """Take a connection from the engine's pool."""
        return cls(engine, await take_pooled(engine.sync_engine), writes=writes)

    async def give_back(self, *, commit: bool) -> None:
        """Give it back to the pool; what SQLAlchemy has begun is committed or rolled back before."""
        if self._made is None:
            await self.release()
            return
        try:
            if commit and self.writes and self._made.in_transaction():
                await self.commit()
        finally:
            await close(self)


class TransactionConnection(PooledConnection):
    """One in a transaction, the only one that it is ever in.

    The driver begins it with the first statement; for SQLAlchemy it has begun as soon as its connection is made.

    Attributes:
        notes: what a dialect has to remember of the transaction.
    """

    __slots__ = ("_transaction", "notes")

    def __init__(self, engine: AsyncEngine, pooled: PoolProxiedConnection) -> None:
        super().__init__(engine, pooled)
        self._transaction: RootTransaction | None = None
        self.notes: dict[Any, Any] = {}

    @property
    def is_in_its_transaction(self) -> bool:
        """Whether it is still in that one: somebody may have ended it by hand, and begun another."""
        return not self._released and (self._made is None or self._made.get_transaction() is self._transaction)

    async def begin_now(self) -> None:
        """Let SQLAlchemy begin it now, as one must that asks the database for it."""
        await greenlet_spawn(self._make)

    def _make(self) -> Connection:
        made = super()._make()
        if not made.closed:
            self._transaction = made.begin()
        return made


async def close(connection: AsyncConnection) -> None:
    """Give a connection back, also where its task is cancelled meanwhile; what is not committed is rolled back."""
    sync = cast("Connection", connection.sync_connection)
    transaction = sync.get_transaction()
    if transaction is None:
        await connection.close()
        await asyncio.sleep(0)  # as in `release`
        return

    def end() -> None:
        try:
            if not transaction.is_active:
                # A commit has failed. SQLAlchemy takes the transaction for ended, which on SQLite it is not.
                sync._rollback_impl()
                transaction.rollback()
        finally:
            sync.close()

    await asyncio.shield(asyncio.ensure_future(greenlet_spawn(end)))  # by which others come before this task


def untouched(connection: AsyncConnection) -> PooledConnection | None:
    """Return the connection if it is one of which SQLAlchemy knows nothing yet."""
    if isinstance(connection, PooledConnection) and connection._made is None and not connection._released:
        return connection
    return None


async def take_pooled(engine: Engine) -> PoolProxiedConnection:
    """Take a connection from the engine's pool: at once, where one lies there."""
    pool = engine.pool
    return pool.connect() if _gives_at_once(pool) else await greenlet_spawn(_connect, engine)


def _connect(engine: Engine) -> PoolProxiedConnection:
    try:
        return engine.pool.connect()
    except engine.dialect.loaded_dbapi.Error as error:  # as SQLAlchemy's connection has it
        Connection._handle_dbapi_exception_noconnection(error, engine.dialect, engine)
        raise


def _gives_at_once(pool: Any) -> bool:
    """Tell whether the pool's next connection lies there, open: to wait for one takes a greenlet of SQLAlchemy's."""
    if not isinstance(pool, AsyncAdaptedQueuePool) or pool._pre_ping or pool.dispatch.checkout or not pool.checkedin():
        return False
    waiting: Any = pool._pool._queue._queue  # type: ignore[attr-defined]
    record = waiting[-1 if pool._pool.use_lifo else 0]
    started: float = record.starttime
    # A second early: the pool looks at the clock once more.
    is_recent = pool._recycle < 0 or time.time() - started <= pool._recycle - 1
    is_valid = started >= pool._invalidate_time and started >= record._soft_invalidate_time
    return record.dbapi_connection is not None and is_recent and is_valid


def _takes_at_once(pool: Any) -> bool:
    """Tell whether the pool keeps another connection, without anything being done with it."""
    is_watched = not isinstance(pool, AsyncAdaptedQueuePool) or pool.dispatch.reset or pool.dispatch.checkin
    return not is_watched and pool._reset_on_return is not ResetStyle.reset_commit and pool.checkedin() < pool.size()
