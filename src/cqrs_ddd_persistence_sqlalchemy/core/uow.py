"""The unit of work: one transaction that several stores share."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self, cast

from cqrs_ddd_persistence_sqlalchemy.core.bare import FOR_TAKING_OVER
from cqrs_ddd_persistence_sqlalchemy.core.callbacks import CommitCallback, run_callbacks
from cqrs_ddd_persistence_sqlalchemy.core.joining import (
    TWO_TASKS,
    JoinedByStores,
    SessionFactory,
    check_session_factory,
)
from cqrs_ddd_persistence_sqlalchemy.core.transactions import (
    adopt,
    begin_for_writing,
    claim_shared_connection,
    forget,
    has_committed,
    may_write,
    note_statements,
    release_shared_connection,
    when_it_begins,
)
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, SessionTransaction


logger = logging.getLogger(__name__)


class SQLAlchemyUnitOfWork(JoinedByStores):
    """One transaction, opened with `async with`, that every operation given `uow=` joins.

    Leaving the block normally commits what is pending; leaving it with an exception rolls back. `commit()` and
    `rollback()` may be called any number of times inside, each is followed by a new transaction. The connection is
    taken with the first statement and given back by commit, rollback and the end of the block.

    Outside the block the unit of work is idle: operations given it run in transactions of their own.

    One task at a time may use an open unit of work.

    Args:
        session_factory: makes sessions, usually an `async_sessionmaker`.
        session: a session that the caller made and will close, in place of a factory.
    """

    def __init__(self, session_factory: SessionFactory | None = None, *, session: AsyncSession | None = None) -> None:
        if (session_factory is None) == (session is None):
            raise UnitOfWorkError("pass either a session_factory, such as async_sessionmaker(engine), or session=")
        check_session_factory(type(self).__name__, session_factory)
        super().__init__(session_factory, session)
        self._open = False
        self._shared_engine: Engine | None = None
        self._callbacks: list[CommitCallback] = []
        self._due: list[CommitCallback] = []
        # Kept, as each look at a method makes another object of it: what is removed must be what was listened with.
        self._handler: Callable[[Session, SessionTransaction, Connection], None] = self._begun

    @property
    def is_open(self) -> bool:
        """True inside the `async with` block."""
        return self._open

    @property
    def session(self) -> AsyncSession:
        """The session of the open unit of work.

        Raises:
            UnitOfWorkError: outside the block, or when another unit of work is open on a `:memory:` database.
        """
        if not self._open:
            raise UnitOfWorkError("the unit of work is not open: use its session inside 'async with uow:'")
        if self._session is None:
            self._session = self._begin_session()
        return self._session

    def on_commit(self, callback: CommitCallback) -> None:
        """Call back once, after the next successful commit and never before; a rollback forgets it.

        What the callback returns is awaited if it can be. The data is committed by then, so an error in a callback
        is logged and keeps neither the caller nor the other callbacks.

        Raises:
            UnitOfWorkError: outside the block, where nothing would ever call it; or it cannot be called.
        """
        if not callable(callback):
            raise UnitOfWorkError(f"on_commit takes a function that is called after the commit, not {callback!r}")
        if not self._open:
            raise UnitOfWorkError("the unit of work is not open: register callbacks inside 'async with uow:'")
        self._callbacks.append(callback)

    async def __aenter__(self) -> Self:
        """Open the unit of work, without taking a connection yet."""
        if self._open:
            raise UnitOfWorkError("the unit of work is open already: make another one for another transaction")
        self._open = True
        self._closing = False
        if self.given_session is not None and self.given_is_in_transaction:
            try:
                connection = await self.session.connection()
                await connection.run_sync(adopt, self.given_session.sync_session, write=True)
            except BaseException:
                self._open = False
                await self._close_session()
                raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit, or roll back after an exception or an unanswered conflict; give the connection back either way."""
        try:
            straggled = await self._other_task_has_straggled()
            self._closing = False
            with self.used_by_this_task():  # no other one begins something meanwhile
                if exc is not None:
                    await self._roll_back()
                elif straggled:
                    await self._roll_back()
                    raise UnitOfWorkError(
                        "the block of a unit of work ended while another task was using it; everything is rolled back"
                    )
                elif self._conflict is not None:
                    self._warn_of_discarded_writes()
                    await self._roll_back()
                else:
                    await self._commit()
        finally:
            self._open = False
            try:
                await self._close_session()
            finally:  # a task that is cancelled as it gives the connection back has committed
                await self._call_back()

    async def commit(self) -> None:
        """Commit and start afresh. Does nothing when the unit of work is idle.

        Raises:
            UnitOfWorkError: when the database refused a statement since the last commit. Everything is rolled back:
                PostgreSQL would discard it without a word, SQLite keep half of it.
        """
        if self._open:
            try:
                with self.used_by_this_task():
                    await self._commit()
                    await self._end_bare()
                    if self._session is not None:
                        await asyncio.sleep(0)  # who waits for the connection is to have it before this task
            finally:
                await self._call_back()

    async def rollback(self) -> None:
        """Roll back and start afresh. Does nothing when the unit of work is idle."""
        if self._open:
            with self.used_by_this_task():
                await self._roll_back()

    async def _commit(self) -> None:
        if self._session is not None or self._bare is not None:
            if self.has_failed:
                await self._roll_back()
                raise UnitOfWorkError(
                    "cannot commit: the database refused a statement in this transaction, and everything in it is "
                    "rolled back. Put what may fail into 'async with uow.session.begin_nested():', or roll back first"
                )
            for callback in self._before_commit:
                await callback()
            try:
                await self._commit_transaction()
            except BaseException:
                if self._session is not None and has_committed(self._session):
                    self._due = self._callbacks  # it is what came after the commit that has failed
                await self._roll_back()
                raise
        self._due = self._callbacks
        self._start_afresh()

    async def _call_back(self) -> None:
        """Call those back whose commit stands."""
        due, self._due = self._due, []
        await run_callbacks(due)

    async def _roll_back(self) -> None:
        self._start_afresh()
        try:
            if self._session is not None:
                await self._session.rollback()
        finally:
            await self._end_bare()

    def _start_afresh(self) -> None:
        self._conflict = None
        self._has_written = False
        self._callbacks = []

    def _begin_session(self) -> AsyncSession:
        session = self.given_session
        if session is None:
            factory = self.session_factory
            assert factory is not None  # noqa: S101  (the constructor saw to it)
            if self._is_beginning or self._is_used_by_another_task:
                raise UnitOfWorkError(TWO_TASKS)
            session = factory() if self._bare is None else cast("Any", factory)(**FOR_TAKING_OVER)
        self._shared_engine = claim_shared_connection(session, self)
        when_it_begins(session.sync_session, self._handler)
        if self._bare is not None:
            self._bare.hand_over(session)
            self._bare = None
        return session

    def _begun(self, session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        begin_for_writing(session, transaction, connection)
        if not transaction.nested:
            note_statements(connection, self._note_statement)

    def _note_statement(self, statement: str) -> None:
        # What the stores send is noted by their scope, which knows whether it was refused.
        if self._user is None and may_write(statement):
            self._has_written = True

    async def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is None:
            await self._end_bare()
            return
        forget(session.sync_session, self._handler)
        try:
            if session is not self.given_session and not session.in_transaction():
                await session.close()  # it holds no connection any more
                await asyncio.sleep(0)  # as after commit()
            elif session is not self.given_session:
                # A task that is cancelled here still gives the connection back.
                await asyncio.shield(asyncio.ensure_future(session.close()))
        finally:
            release_shared_connection(self._shared_engine)
            self._shared_engine = None

    def _warn_of_discarded_writes(self) -> None:
        session = self._session
        pending = session is not None and (session.new or session.dirty or session.deleted)
        if self._has_written or pending:
            logger.warning(
                "unit of work rolled back, its writes are discarded, because of: %s. Call commit() after catching a "
                "conflict to keep them, or rollback() to start afresh",
                self._conflict,
            )
