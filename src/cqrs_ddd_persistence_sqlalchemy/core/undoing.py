"""What is taken back in memory when the database takes back its part."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event

from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine, ExceptionContext, Transaction
    from sqlalchemy.ext.asyncio import AsyncConnection

# The transaction weakly: what refers to its key is never forgotten.
Undo = tuple["weakref.ref[Transaction]", "Callable[[], None]"]

_undos: WeakKeyDictionary[Transaction, list[Undo]] = WeakKeyDictionary()
_watched: WeakSet[Engine] = WeakSet()


def on_rollback(connection: AsyncConnection, undo: Callable[[], None]) -> None:
    """Call back when what the connection's transaction, or the innermost savepoint, does now is rolled back.

    Also when its commit fails. The last to come is the first to be called. What is committed already stays.
    """
    if is_alone(connection):
        return
    sync = connection.sync_connection
    assert sync is not None  # noqa: S101  (a scope has opened it)
    root = sync.get_transaction()
    assert root is not None  # noqa: S101  (and begun it)
    if sync.engine not in _watched:
        event.listen(sync.engine, "rollback", _rolled_back)
        event.listen(sync.engine, "handle_error", _failed)
        event.listen(sync.engine, "rollback_savepoint", _rolled_back_to_savepoint)
        event.listen(sync.engine, "release_savepoint", _released)
        _watched.add(sync.engine)
    _undos.setdefault(root, []).append((weakref.ref(sync.get_nested_transaction() or root), undo))


def _rolled_back(connection: Connection) -> None:
    root = connection.get_transaction()
    if root is not None:
        for _, undo in reversed(_undos.pop(root, [])):
            undo()


def _failed(context: ExceptionContext) -> None:
    if (
        context.connection is not None and context.statement is None
    ):  # a COMMIT, after which SQLAlchemy may tell nobody of a rollback
        _rolled_back(context.connection)


def _rolled_back_to_savepoint(connection: Connection, _name: str, _context: object) -> None:
    root, nested = connection.get_transaction(), connection.get_nested_transaction()
    if root is None or root not in _undos:
        return
    for transaction, undo in reversed(_undos[root]):
        if transaction() is nested:
            undo()
    _undos[root] = [each for each in _undos[root] if each[0]() is not nested]


def _released(connection: Connection, _name: str, _context: object) -> None:
    root, nested = connection.get_transaction(), connection.get_nested_transaction()
    if root is None or nested is None or root not in _undos:
        return
    outer = nested._previous_nested or root  # noqa: SLF001  (nothing public names it)
    _undos[root] = [
        (weakref.ref(outer) if transaction() is nested else transaction, undo) for transaction, undo in _undos[root]
    ]
