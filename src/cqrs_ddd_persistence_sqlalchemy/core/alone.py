"""Operations without a session: in a transaction of a connection, or in none where a statement is one by itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from cqrs_ddd_persistence_sqlalchemy.core.dialect import (
    ALONE,
    CHANGES_TRANSACTIONS,
    READ_ONLY,
    LoneConnection,
    close,
    dialect_of,
    is_by_itself,
    is_silent,
    must_be_heard,
    untouched,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

_ENGINE = "cqrs_ddd_engine_alone"
_UNDERSTOOD = frozenset({"bind", "autoflush", "expire_on_commit", "info"})
_OF_SESSIONS = (
    "after_transaction_create", "after_begin", "before_commit", "after_commit", "after_rollback", "after_soft_rollback",
    "after_transaction_end",
)  # fmt: skip
# Listeners of the class are seen through any instance, also those that come later.
_session = Session()
_heard_by_sessions = tuple(getattr(_session.dispatch, name) for name in _OF_SESSIONS)


def engine_without_sessions(session_factory: object, *, write: bool = True, single: bool = True) -> AsyncEngine | None:
    """Return the engine of a factory whose sessions add nothing to what a store does; None where one may.

    An application may have said what is to happen as transactions begin and end: which tenant's rows are seen (SET
    LOCAL in a listener), at which isolation level. That would be lost. On SQLite, sessions stay where all share one
    connection, and for transactions that the engine does not begin as they must begin.

    Args:
        session_factory: any.
        write: whether something may be written.
        single: whether each statement is to be by itself.
    """
    if not isinstance(session_factory, async_sessionmaker):
        return None
    if type(session_factory).__call__ is not async_sessionmaker.__call__:
        return None  # of an application's own, which does more
    engine = session_factory.kw.get("bind")
    if not isinstance(engine, AsyncEngine):
        return None
    dialect, sync = dialect_of(engine), cast("Any", engine.sync_engine)
    if dialect.shares_one_connection(sync) or not (dialect.begins_by_itself(sync) or (single and not write)):
        return None
    is_plain = (
        session_factory.class_ is AsyncSession
        and session_factory.kw.keys() <= _UNDERSTOOD
        and not any(map(must_be_heard, _heard_by_sessions))
        and not any(must_be_heard(getattr(sync.dispatch, name)) for name in ("begin", "commit"))
        and sync.dialect._on_connect_isolation_level is None  # noqa: SLF001  (create_engine(isolation_level=))
        and CHANGES_TRANSACTIONS.isdisjoint(sync.get_execution_options())
    )
    return engine if is_plain else None


async def lone_connection(engine: AsyncEngine, *, write: bool) -> LoneConnection | None:
    """Take a connection on which each statement is by itself, to be given back; None where more than that is done."""
    if engine.sync_engine.dispatch.engine_connect or not is_silent(engine.sync_engine):
        return None
    return await LoneConnection.take(
        _with_options(engine) if _by_themselves(engine, write=write) else engine, writes=write
    )


@asynccontextmanager
async def connected(engine: AsyncEngine, *, write: bool, single: bool) -> AsyncIterator[AsyncConnection]:
    """Give a connection of SQLAlchemy's, on which each statement is by itself where that is both wanted and cheap.

    Otherwise it is in a transaction, which is committed in the end, or rolled back where nothing is written.
    """
    # Who listens to the pool may have begun a transaction, such as to say whose rows are seen.
    by_themselves = single and _by_themselves(engine, write=write) and not engine.sync_engine.pool.dispatch.checkout
    async with _connected(_with_options(engine) if by_themselves else engine) as connection:
        if by_themselves:
            yield connection
            return
        if not write:
            await connection.execution_options(**READ_ONLY)
        await connection.begin()
        yield connection
        if write:
            await connection.commit()


def _by_themselves(engine: AsyncEngine, *, write: bool) -> bool:
    """Tell whether single statements are by themselves where SQLAlchemy executes them: SQLite's own writes are not."""
    return not write or dialect_of(engine).has_cheap_single_statements


def _with_options(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine with other options on the same pool; kept with it, as it is made for each operation."""
    sync = engine.sync_engine
    options, echo = sync.get_execution_options(), sync.echo
    made_from, echoes, known = vars(sync).get(_ENGINE, (None, None, engine))
    if made_from is not options or echoes is not echo:  # they were changed since
        known = engine.execution_options(**{ALONE: True}, **dialect_of(engine).options_alone)
        setattr(sync, _ENGINE, (options, echo, known))
    return known  # type: ignore[no-any-return]


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Do what `engine.connect()` does, with a task of its own for the closing only where that waits for the server."""
    connection = engine.connect()
    await connection.start()
    try:
        yield connection
    finally:
        await close(connection)


def is_alone(connection: AsyncConnection) -> bool:
    """Tell whether each statement on the connection is by itself, so that no other can be lost with it."""
    pooled = untouched(connection)
    if pooled is not None:
        return isinstance(pooled, LoneConnection)
    sync = connection.sync_connection
    return sync is not None and is_by_itself(sync)
