"""Operations without a session: in a transaction of a connection, or in none where a statement is one by itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from cqrs_ddd_persistence_sqlalchemy.core.dialect import ALONE, dialect_of, is_by_itself, must_be_heard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

_ENGINE = "cqrs_ddd_engine_alone"
_UNDERSTOOD = frozenset({"bind", "autoflush", "expire_on_commit", "info"})
_OF_SESSIONS = ("after_transaction_create", "after_begin", "before_commit", "after_commit", "after_rollback")
# Listeners of the class are seen through any instance.
_session = Session()


def engine_without_sessions(session_factory: object, *, reading: bool = False) -> AsyncEngine | None:
    """Return the engine of a factory whose sessions add nothing to what a store does; None where one may.

    An application may have said what is to happen as transactions begin and end: which tenant's rows are seen (SET
    LOCAL in a listener), at which isolation level. That would be lost. On SQLite, sessions stay where something is
    written, and where all share one connection.

    Args:
        session_factory: any.
        reading: whether only single statements follow that read.
    """
    if not isinstance(session_factory, async_sessionmaker):
        return None
    engine = session_factory.kw.get("bind")
    if not isinstance(engine, AsyncEngine):
        return None
    dialect, sync = dialect_of(engine), cast("Any", engine.sync_engine)
    if not dialect.has_cheap_single_statements and (not reading or dialect.shares_one_connection(sync)):
        return None
    is_plain = (
        session_factory.class_ is AsyncSession
        and session_factory.kw.keys() <= _UNDERSTOOD
        and not any(must_be_heard(getattr(_session.dispatch, name)) for name in _OF_SESSIONS)
        and not any(must_be_heard(getattr(sync.dispatch, name)) for name in ("begin", "commit"))
        and sync.dialect._on_connect_isolation_level is None  # noqa: SLF001  (create_engine(isolation_level=))
        and "isolation_level" not in sync.get_execution_options()
    )
    return engine if is_plain else None


@asynccontextmanager
async def alone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Give a connection on which each statement is by itself."""
    async with _connected(_with_options(engine)) as connection:
        yield connection


@asynccontextmanager
async def in_transaction(engine: AsyncEngine, *, write: bool) -> AsyncIterator[AsyncConnection]:
    """Give a connection in a transaction, which is committed in the end, or rolled back where nothing is written."""
    async with _connected(engine) as connection:
        await connection.begin()
        yield connection
        if write:
            await connection.commit()


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
        if connection.in_transaction():
            await asyncio.shield(asyncio.ensure_future(connection.close()))
        else:
            await connection.close()


def is_alone(connection: AsyncConnection) -> bool:
    """Tell whether each statement on the connection is by itself, so that no other can be lost with it."""
    sync = connection.sync_connection
    return sync is not None and is_by_itself(sync)
