"""The only room that names a database: what PostgreSQL and SQLite do differently, behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import (
    READ_ONLY,
    DatabaseDialect,
    TableDescription,
    TableRef,
    effective_schema,
    qualified_name,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import (
    ALONE,
    Answer,
    is_by_itself,
    is_silent,
    may_be_bypassed,
    must_be_heard,
    passes_by,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect.documents import as_text
from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import (
    CHANGES_TRANSACTIONS,
    LoneConnection,
    TransactionConnection,
    close,
    take_pooled,
    untouched,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql import PostgreSQL
from cqrs_ddd_persistence_sqlalchemy.core.dialect.replacing import beside
from cqrs_ddd_persistence_sqlalchemy.core.dialect.sqlite import SQLite
from cqrs_ddd_persistence_sqlalchemy.core.dialect.times import UTCDateTime
from cqrs_ddd_persistence_sqlalchemy.core.dialect.types import (
    ALL_DIGITS,
    UNKNOWN_RESERVED_WORDS,
    BigIntegerKey,
    ExactDecimal,
    JSONDocument,
    JSONText,
    PortableArray,
    PortableLiteral,
    identifier,
    portable_literal,
    prepare_for_reflection,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect.urls import async_url
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = [
    "ALL_DIGITS",
    "ALONE",
    "CHANGES_TRANSACTIONS",
    "DIALECTS",
    "READ_ONLY",
    "UNKNOWN_RESERVED_WORDS",
    "Answer",
    "BigIntegerKey",
    "DatabaseDialect",
    "ExactDecimal",
    "JSONDocument",
    "JSONText",
    "LoneConnection",
    "PortableArray",
    "PortableLiteral",
    "TableDescription",
    "TableRef",
    "TransactionConnection",
    "UTCDateTime",
    "as_text",
    "async_url",
    "beside",
    "close",
    "configure_engine",
    "dialect_named",
    "dialect_of",
    "effective_schema",
    "execute_kept",
    "identifier",
    "is_by_itself",
    "is_silent",
    "may_be_bypassed",
    "must_be_heard",
    "passes_by",
    "portable_literal",
    "prepare_for_reflection",
    "qualified_name",
    "take_pooled",
    "untouched",
]

DIALECTS: dict[str, DatabaseDialect] = {"postgresql": PostgreSQL(), "sqlite": SQLite()}


def dialect_of(bind: AsyncConnection | AsyncEngine | Connection | Engine) -> DatabaseDialect:
    """Return what is particular to the database behind an engine or connection."""
    return dialect_named(bind.dialect.name)


def dialect_named(name: str) -> DatabaseDialect:
    """Return a dialect by SQLAlchemy's name for it.

    Raises:
        PersistenceError: for a database that is not supported.
    """
    try:
        return DIALECTS[name]
    except KeyError:
        raise PersistenceError(f"database {name!r} is not supported; use {' or '.join(DIALECTS)}") from None


async def execute_kept(
    connection: AsyncConnection, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
) -> Answer:
    """Execute a statement that is built once and kept; its compiled form is kept, too, for as long as it lives."""
    return await dialect_of(connection).execute(connection, statement, parameters)


def configure_engine(engine: AsyncEngine, *, transaction_pooling: bool = False) -> AsyncEngine:
    """Apply the recommended settings to a new engine, before its first connection, and return it.

    SQLite: write-ahead log, a busy timeout of 60 seconds, foreign keys enforced, and transactions that take the
    write lock as they begin, so that waiting for another writer never ends in 'database is locked'. A connection with
    the execution option `sqlite_begin="DEFERRED"` only reads and waits for nobody.
    PostgreSQL: nothing needs changing, but behind a proxy such as PgBouncer.

    Args:
        engine: as `create_async_engine` returns it.
        transaction_pooling: whether the URL leads to a proxy that gives each transaction another server connection:
            PgBouncer with `pool_mode = transaction`. No statement is then prepared for longer than it
            runs, by which it takes one more round trip. SQLite has no such proxy and ignores it.
    """
    dialect = dialect_of(engine)
    dialect.configure(engine.sync_engine)
    if transaction_pooling:
        dialect.prepare_for_transaction_pooling(engine.sync_engine)
    return engine
