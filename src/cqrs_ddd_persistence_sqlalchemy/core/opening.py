"""The ways in which the scope of an operation gets its connection, and ends."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.alone import connected, lone_connection
from cqrs_ddd_persistence_sqlalchemy.core.bare import BareTransaction
from cqrs_ddd_persistence_sqlalchemy.core.dialect import READ_ONLY, dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.transactions import (
    CHANGED,
    adopt,
    begin_for_reading,
    begin_for_writing,
    claim_shared_connection,
    forget,
    release_shared_connection,
    watch,
    when_it_begins,
)
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    OptimisticConcurrencyError,
    SchemaOutOfDateError,
    TableChangedError,
    upgrade_command,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


# Classes, and no generators with a decorator: every operation goes through one of the two, and pays for it.
class JoinedOperation:
    """The scope of an operation in an open unit of work, by one task at a time."""

    def __init__(self, unit: SQLAlchemyUnitOfWork, *, write: bool) -> None:
        self._unit = unit
        self._write = write

    async def __aenter__(self) -> AsyncConnection:
        self._outer = self._unit.begin_use()
        try:
            self._connection = await self._unit.connection()
        except BaseException:
            self._unit.end_use(self._outer)
            raise
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._write:
                    self._unit.note_write()
            elif isinstance(error, DBAPIError):
                _translate(error, dialect_of(self._connection))
            elif self._write and isinstance(error, OptimisticConcurrencyError):
                self._unit.note_conflict(error)
        finally:
            self._unit.end_use(self._outer)


class OperationWithoutSession:
    """The scope of an operation on a connection of an engine's pool."""

    def __init__(self, engine: AsyncEngine, *, write: bool, single: bool) -> None:
        self._engine = engine
        self._write = write
        self._single = single

    async def __aenter__(self) -> AsyncConnection:
        watch(self._engine.sync_engine)
        self._lone = await lone_connection(self._engine, write=self._write) if self._single else None
        self._bare: BareTransaction | None = None
        if self._lone is not None and dialect_of(self._engine).is_in_transaction(self._lone.pooled):
            # One that listens to the pool has begun it, such as to say whose rows are seen.
            self._bare, self._lone = await BareTransaction.on(self._engine, self._lone.pooled), None
            return self._bare.connection
        if self._lone is not None:
            return self._lone
        self._slow = connected(self._engine, write=self._write, single=self._single)
        return await self._slow.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lone is not None:
            await self._lone.give_back(commit=error is None)
        elif self._bare is not None:
            try:
                if error is None and self._write:
                    await self._bare.commit()
            finally:
                await self._bare.end()
        else:
            await self._slow.__aexit__(kind, error, traceback)
        if isinstance(error, DBAPIError):
            _translate(error, dialect_of(self._engine))


@asynccontextmanager
async def in_session(factory: SessionFactory, *, write: bool) -> AsyncIterator[AsyncConnection]:
    """Begin a transaction of a new session, and commit in the end."""
    async with factory() as session, in_given_session(session, write=write) as connection:
        yield connection


@asynccontextmanager
async def in_given_session(session: AsyncSession, *, write: bool) -> AsyncIterator[AsyncConnection]:
    """Begin, and commit in the end. A caller's session that is in a transaction already stays as it is."""
    if session.in_transaction():
        connection = await session.connection()
        await connection.run_sync(adopt, session.sync_session, write=write)
        with _translated_errors(connection):
            yield connection
        return
    # An object of its own: two scopes on one session each take back what they have put there.
    handler = partial(begin_for_writing if write else begin_for_reading)
    shared = claim_shared_connection(session, session)
    when_it_begins(session.sync_session, handler)
    try:
        try:
            connection = await session.connection(execution_options=None if write else READ_ONLY)
            with _translated_errors(connection):
                yield connection
            if write:
                await session.commit()
        finally:
            await session.rollback()  # after a commit there is nothing left to roll back
    finally:
        forget(session.sync_session, handler)
        release_shared_connection(shared)


@contextmanager
def _translated_errors(connection: AsyncConnection) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        _translate(error, dialect_of(connection))
        raise


def _translate(error: DBAPIError, dialect: DatabaseDialect) -> None:
    """Say what a missing table or column means; everything else is left as it is."""
    table, column = dialect.missing_table(error), dialect.missing_column(error)
    if table is not None:
        raise SchemaOutOfDateError(
            f"table {table!r} is not in the database; run: {upgrade_command(table.rpartition('.')[0] or None)} "
            "(a table with a name of your own needs a revision of your own)"
        ) from error
    if column is not None:
        raise SchemaOutOfDateError(
            f"column {column!r} is not in the database, which is behind this code; run: alembic upgrade head"
        ) from error
    if dialect.has_stale_plan(error):
        raise TableChangedError(CHANGED) from error
