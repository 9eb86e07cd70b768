"""A transaction of a unit of work in which nobody has asked for the session yet (docs/decisions/0028)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import greenlet_spawn

from cqrs_ddd_persistence_sqlalchemy.core.alone import engine_without_sessions
from cqrs_ddd_persistence_sqlalchemy.core.dialect import close, dialect_of, take_pooled
from cqrs_ddd_persistence_sqlalchemy.core.transactions import watch

if TYPE_CHECKING:
    from typing import Self

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


class BareTransaction:
    """A transaction on a connection of the pool, which a session can take over.

    To make a session and have it begin, commit and close takes longer than the statements of most transactions.

    Attributes:
        connection: in the transaction.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._sync = cast("Connection", connection.sync_connection)

    @classmethod
    async def begin(cls, session_factory: object) -> Self | None:
        """Begin a transaction, or return None where it takes a session of the factory."""
        engine = engine_without_sessions(session_factory, write=True, single=False)
        if engine is None or engine.sync_engine.dispatch.engine_connect:
            return None
        watch(engine.sync_engine)
        sync = Connection(engine.sync_engine, connection=await take_pooled(engine.sync_engine))
        bare = cls(AsyncConnection(engine, sync))
        try:
            if dialect_of(engine).begins_lazily:
                sync.begin()
            else:
                await greenlet_spawn(sync.begin)
        except BaseException:
            await bare.end()
            raise
        return bare

    async def commit(self) -> None:
        """Commit, and give the connection back."""

        def commit() -> None:
            self._sync.commit()
            self._sync.close()

        await greenlet_spawn(commit)

    async def end(self) -> None:
        """Give the connection back; what is not committed is rolled back."""
        await close(self.connection)

    def hand_over(self, session_factory: async_sessionmaker[AsyncSession]) -> AsyncSession:
        """Return a session whose transaction this is from now on, to commit or roll back."""
        return session_factory(bind=self.connection, join_transaction_mode="control_fully")

    def join(self, session: AsyncSession) -> None:
        """Let that session's transaction be this one; nothing in it waits for the database."""
        if self._sync.in_transaction() and not self._sync.in_nested_transaction():
            session.sync_session.connection()

    async def leave(self, session: AsyncSession) -> None:
        """Let the session's next transaction be on a connection of its engine again."""
        engine: Any = self.connection.engine
        session.bind, session.sync_session.bind = engine, engine.sync_engine
        await self.end()
