"""A transaction of a unit of work in which nobody has asked for the session yet (docs/decisions/0028)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.orm import Session

from cqrs_ddd_persistence_sqlalchemy.core.alone import engine_without_sessions
from cqrs_ddd_persistence_sqlalchemy.core.dialect import (
    TransactionConnection,
    close,
    dialect_of,
    is_silent,
    may_be_bypassed,
    must_be_heard,
    take_pooled,
    untouched,
)
from cqrs_ddd_persistence_sqlalchemy.core.transactions import watch
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import PoolProxiedConnection

#: How a session is made that is to take a transaction over.
FOR_TAKING_OVER: Mapping[str, Any] = {"join_transaction_mode": "control_fully"}
_handed_over: WeakKeyDictionary[Session, BareTransaction] = WeakKeyDictionary()


class BareTransaction:
    """A transaction on a connection of the pool, which a session can take over.

    To make a session and have it begin, commit and close takes longer than the statements of most transactions.

    Attributes:
        connection: in the transaction, or about to begin it.
    """

    def __init__(self, connection: TransactionConnection) -> None:
        self.connection = connection
        self._is_committed = False

    @classmethod
    async def begin(cls, session_factory: object) -> Self | None:
        """Begin a transaction, or return None where it takes a session of the factory."""
        engine = engine_without_sessions(session_factory, write=True, single=False)
        if engine is None or engine.sync_engine.dispatch.engine_connect:
            return None
        watch(engine.sync_engine)
        return await cls.on(engine, await take_pooled(engine.sync_engine))

    @classmethod
    async def on(cls, engine: AsyncEngine, pooled: PoolProxiedConnection) -> Self:
        """Begin a transaction on a connection of the engine's pool, or go on with the one that it is in already."""
        bare = cls(TransactionConnection(engine, pooled))
        if not (dialect_of(engine).begins_lazily and is_silent(engine.sync_engine)):
            try:
                await bare.connection.begin_now()
            except BaseException:
                await bare.end()
                raise
        return bare

    async def commit(self) -> None:
        """Commit; `end` gives the connection back."""
        if must_be_heard(self.connection.sync_engine.dispatch.commit):
            await self.connection.commit()
        else:
            await dialect_of(self.connection).commit(self.connection)
        self._is_committed = True

    async def end(self) -> None:
        """Give the connection back; what is not committed is rolled back."""
        if self._is_committed and untouched(self.connection):
            await self.connection.release()
        else:
            # Through SQLAlchemy's connection: there are listeners to rollbacks, the library's own among them.
            await close(self.connection)

    def hand_over(self, session: AsyncSession) -> None:
        """Let the transaction of a session, made with FOR_TAKING_OVER, be this one: to commit or roll back.

        Its next transaction is on a connection of its own. Nothing in it waits for the database.
        """
        _handed_over[session.sync_session] = self
        sync: Any = self.connection.sync_connection
        # A savepoint of a store's may be open; what the session joins is the transaction around it.
        nested, sync._nested_transaction = sync._nested_transaction, None  # noqa: SLF001
        try:
            session.sync_session.connection(bind_arguments={"bind": sync})
        except MissingGreenlet:  # to begin another one
            raise UnitOfWorkError("the database has ended the transaction of this unit of work: roll back") from None
        finally:
            sync._nested_transaction = nested  # noqa: SLF001


@event.listens_for(Session, "after_transaction_end")
@may_be_bypassed
def _ended(session: Session, transaction: SessionTransaction) -> None:
    """Give the connection back once the session has ended the transaction, by whichever of its methods."""
    bare = None if transaction.parent is not None else _handed_over.pop(session, None)
    if bare is not None:
        bare.connection.sync_connection.close()
