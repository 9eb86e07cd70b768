"""What a unit of work must know of its session's transaction: how it began, and whether the database refused something.

A PostgreSQL transaction in which a statement failed answers COMMIT with a rollback and no error, a SQLite one keeps
what came before. Neither is what the caller meant, so failures are noted here and `commit()` asks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakMethod, WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of, may_be_bypassed, untouched
from cqrs_ddd_persistence_sqlalchemy.exceptions import TableChangedError, UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from sqlalchemy.engine import Connection, ExceptionContext, Transaction
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import SessionTransaction

    BeginHandler: TypeAlias = Callable[[Session, SessionTransaction, Connection], None]

CHANGED = "a migration changed a table while this transaction was using it: roll back and try again"
_TRANSACTIONS = f"{__name__}.transactions"
_CONNECTION = f"{__name__}.connection"
_HANDLERS = f"{__name__}.handlers"
_COMMITTED = f"{__name__}.committed"
_noted: WeakKeyDictionary[Connection, WeakMethod[Callable[[str], None]]] = WeakKeyDictionary()
_failed: WeakSet[Transaction] = WeakSet()
_watched: WeakSet[Engine] = WeakSet()
_READS = re.compile(r"\s*(SELECT|BEGIN|SAVEPOINT|RELEASE|ROLLBACK|SHOW|SET|PRAGMA|EXPLAIN|VALUES)\b", re.IGNORECASE)
_sole_users: WeakKeyDictionary[Any, object] = WeakKeyDictionary()


def when_it_begins(session: Session, handler: BeginHandler) -> None:
    """Call back as the session begins a transaction or a savepoint, until `forget` is called with the same object."""
    session.info.setdefault(_HANDLERS, []).append(handler)


def forget(session: Session, handler: BeginHandler) -> None:
    """Call back no more."""
    session.info[_HANDLERS] = [each for each in session.info.get(_HANDLERS, ()) if each is not handler]


# One listener for all sessions: to listen to one of them takes SQLAlchemy longer than a statement.
@event.listens_for(Session, "after_begin")
@may_be_bypassed
def _begun(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    for handler in session.info.get(_HANDLERS, ()):
        handler(session, transaction, connection)


@event.listens_for(Session, "after_commit")
@may_be_bypassed
def _committed(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_COMMITTED] = True


def forget_commit(session: AsyncSession) -> None:
    """Forget that the session has committed."""
    session.sync_session.info.pop(_COMMITTED, None)


def has_committed(session: AsyncSession) -> bool:
    """Tell whether the session has committed since: what follows, such as giving the connection back, may yet fail."""
    return bool(session.sync_session.info.get(_COMMITTED))


def note_statements(connection: Connection, note: Callable[[str], None]) -> None:
    """Call a method back with what SQLAlchemy sends on the connection, in place of whoever was called before."""
    _noted[connection] = WeakMethod(note)
    watch(connection.engine)


@may_be_bypassed
def _note_statement(
    connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: object
) -> tuple[str, Any]:
    method = _noted.get(connection)
    note = None if method is None else method()
    if note is not None:
        note(statement)
    return statement, parameters


def begin_for_writing(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """Handle `after_begin` of a session that may write."""
    _begin(session, transaction, connection, write=True)


def begin_for_reading(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """Handle `after_begin` of a session that only reads."""
    _begin(session, transaction, connection, write=False)


async def connection_of(session: AsyncSession) -> AsyncConnection:
    """Return what `session.connection()` returns, remembered for as long as the (sub)transaction lasts."""
    sync = session.sync_session
    current = sync.get_nested_transaction() or sync.get_transaction()
    if current is not None and current.is_active:
        known, connection = sync.info.get(_CONNECTION, (None, None))
        if known is current and connection.in_transaction():
            return connection  # type: ignore[no-any-return]
    connection = await session.connection()
    sync.info[_CONNECTION] = (sync.get_nested_transaction() or sync.get_transaction(), connection)
    return connection


def adopt(connection: Connection, session: Session, *, write: bool) -> None:
    """Take over a transaction that the session began before anybody listened: complete it, and notice its failures."""
    session.info.setdefault(_TRANSACTIONS, WeakSet()).add(connection.get_transaction())
    watch(connection.engine)
    dialect_of(connection).begin(connection, write=write)


def _begin(session: Session, transaction: SessionTransaction, connection: Connection, *, write: bool) -> None:
    if transaction.nested:
        return
    # A session bound to a connection in a transaction may have begun a savepoint for its whole transaction.
    outermost = connection.get_nested_transaction() or connection.get_transaction()
    session.info.setdefault(_TRANSACTIONS, WeakSet()).add(outermost)
    watch(connection.engine)
    if connection.in_nested_transaction():
        return
    _refuse_autocommit(connection)
    dialect_of(connection).begin(connection, write=write)


def _refuse_autocommit(bind: Connection | Engine) -> None:
    by_engine = getattr(bind.dialect, "_on_connect_isolation_level", None)  # create_engine(isolation_level=)
    if (bind.get_execution_options().get("isolation_level") or by_engine) == "AUTOCOMMIT":
        raise UnitOfWorkError(
            "the connection is in AUTOCOMMIT mode, where nothing can be rolled back: use another engine"
        )


def watch(engine: Engine) -> None:
    """Note what fails on an engine's connections, from now on."""
    if engine not in _watched:
        event.listen(engine, "handle_error", _note_failure)
        event.listen(engine, "release_savepoint", _note_release)
        # Without retval SQLAlchemy puts a function of its own in its place, which has not its mark.
        event.listen(engine, "before_cursor_execute", _note_statement, retval=True)
        _watched.add(engine)


def _note_failure(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is not None and not isinstance(context.original_exception, Exception):
        dialect_of(connection).let_go(connection)  # cancelled
    if connection is None:
        return
    unwrapped = not isinstance(context.sqlalchemy_exception, DBAPIError)
    stale = dialect_of(connection).must_reconnect(context.original_exception)
    if stale:
        context.is_disconnect = True  # takes all connections of the pool out of use
    elif unwrapped:
        return
    transaction = connection.get_nested_transaction() or connection.get_transaction()
    if transaction is not None:
        _failed.add(transaction)
    if stale and unwrapped:  # SQLAlchemy 2.0 does not know this error of the driver's
        raise TableChangedError(CHANGED) from context.original_exception


def _note_release(connection: Connection, _name: str, _context: object) -> None:
    # Rolling back to the savepoint would have healed the failure; releasing it passes the failure on.
    nested = connection.get_nested_transaction()
    if nested in _failed:
        outer: Any = nested._previous_nested or connection.get_transaction()  # type: ignore[union-attr]  # noqa: SLF001
        _failed.add(outer)


def may_write(statement: str) -> bool:
    """Tell whether discarding a statement's effects may discard something."""
    return not _READS.match(statement)


def has_failed(session: AsyncSession) -> bool:
    """Tell whether a statement failed in the session's transaction and no rollback to a savepoint undid it."""
    if session.in_transaction() and not session.is_active:
        return True
    transactions: WeakSet[Transaction] = session.info.get(_TRANSACTIONS, WeakSet())
    return any(transaction.is_active and transaction in _failed for transaction in transactions)


def is_spoilt(connection: AsyncConnection) -> bool:
    """Tell whether a statement failed in the connection's transaction and no rollback to a savepoint undid it."""
    if untouched(connection):
        return False
    sync = connection.sync_connection
    if sync is not None and is_alone(connection):
        return sync.invalidated  # no statement takes another along
    transaction = sync and (sync.get_nested_transaction() or sync.get_transaction())
    return transaction is None or transaction in _failed


def claim_shared_connection(session: AsyncSession, owner: object) -> Engine | None:
    """Refuse a second transaction on a connection that all sessions of an engine share (SQLite `:memory:`).

    One's commit or rollback would be the other's too.

    Returns:
        The engine to give to `release_shared_connection`, or None where each session has its own connection.

    Raises:
        UnitOfWorkError: while another unit of work is open.
    """
    engine: Any = session.sync_session.bind
    if engine is not None:
        _refuse_autocommit(engine)
    if not isinstance(engine, Engine) or not dialect_of(engine).shares_one_connection(engine):
        return None
    if _sole_users.setdefault(engine.pool, owner) is not owner:
        raise UnitOfWorkError(
            "another unit of work is open on this in-memory database, whose sessions share one connection and so one "
            "transaction: pass that unit of work as uow=, or use a database file"
        )
    return engine


def release_shared_connection(engine: Engine | None) -> None:
    """Let the next unit of work have the shared connection."""
    if engine is not None:
        _sole_users.pop(engine.pool, None)
