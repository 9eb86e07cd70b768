"""Statements on the driver's own connection, in a transaction or in none (docs/decisions/0022, 0026 and 0028).

Statements are SQLAlchemy's, compiled once by it; values go through its types on both ways, errors and cancellations
through its handling of them. What is left out is its execution context, which costs more than the driver does.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

from cqrs_ddd_persistence_sqlalchemy.core.dialect.compiling import Compiled
from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import LoneConnection, TransactionConnection, untouched

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    import sqlalchemy as sa
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import PoolProxiedConnection

#: Execution options of an engine whose connections are another session's with each transaction.
TRANSACTION_POOLING: Mapping[str, Any] = {"transaction_pooling": True}

#: Execution option of connections on which each statement is by itself.
ALONE = "cqrs_ddd_alone"

# Options by which statements become others, or are prepared by another rule than the driver's.
_CHANGES_STATEMENTS = frozenset({"schema_translate_map", *TRANSACTION_POOLING})


_COMPILED = "cqrs_ddd_compiled"
_MAY_BE_BYPASSED = "cqrs_ddd_may_be_bypassed"
Listener = TypeVar("Listener", bound=Callable[..., Any])


def may_be_bypassed(listener: Listener) -> Listener:
    """Mark a listener of the library's own that misses nothing where stores go past SQLAlchemy."""
    setattr(listener, _MAY_BE_BYPASSED, True)
    return listener


def must_be_heard(listeners: Any) -> bool:
    """Tell whether one of an event's listeners is not so marked."""
    return bool(listeners) and not all(getattr(listener, _MAY_BE_BYPASSED, False) for listener in listeners)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement answers.

    Attributes:
        rows: of tuples, in the order of `names`.
        names: of the columns.
        rowcount: how many rows a statement without RETURNING has written.
    """

    rows: Sequence[Sequence[Any]]
    names: Sequence[str]
    rowcount: int

    def mappings(self) -> list[dict[str, Any]]:
        """Return the rows by name."""
        names = self.names
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def mapping(self) -> dict[str, Any] | None:
        """Return the only row by name, or None where there is none."""
        return dict(zip(self.names, self.rows[0], strict=True)) if self.rows else None

    def scalar(self) -> Any:
        """Return the first column of the first row, or None where there is none."""
        return self.rows[0][0] if self.rows else None


class DirectDialect:
    """Runs statements past SQLAlchemy where nobody would notice."""

    def __init__(self) -> None:
        self._outdated = 0

    async def execute(
        self, connection: AsyncConnection, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> Answer:
        """Execute a statement that is made once and kept: it is remembered as long as it lives."""
        parameters = parameters or {}
        unmade = untouched(connection)
        lone = unmade if isinstance(unmade, LoneConnection) else None
        if unmade is None:
            pooled = self._pooled(connection)
        else:
            # In a transaction somebody may have begun to listen since its beginning.
            is_ready = self._is_ready(unmade.pooled, in_transaction=lone is None)
            pooled = unmade.pooled if is_ready and (lone or is_silent(unmade.sync_engine)) else None
        compiled = None if pooled is None else self._compiled(connection, statement)
        if pooled is None or compiled is None:
            result = await connection.execute(statement, parameters)
            if result.returns_rows:
                return Answer(result.all(), tuple(result.keys()), -1)
            return Answer((), (), result.rowcount)
        values = compiled.values(parameters)
        try:
            rows, count = await self._run(pooled, compiled.sql, values, returns_rows=bool(compiled.names), lone=lone)
        except BaseException as error:  # noqa: BLE001  (a cancellation, too, is SQLAlchemy's to handle)
            self._learn(error)
            await fail(connection, pooled, error, compiled.sql, tuple(values))
        return Answer(compiled.read(rows), compiled.names, count)

    async def execute_many(
        self, connection: AsyncConnection, statement: sa.Executable, columns: Mapping[str, Sequence[Any]]
    ) -> None:
        """Execute a statement that is made once and kept for each row of parameters, given as named columns."""
        pooled = self._pooled(connection)
        compiled = None if pooled is None else self._compiled(connection, statement)
        if pooled is None or compiled is None:
            rows = zip(*columns.values(), strict=True)
            await connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])
            return
        values = compiled.many_values(columns)
        try:
            await self._run_many(pooled, compiled.sql, values)
        except BaseException as error:  # noqa: BLE001  (as above)
            self._learn(error)
            await fail(connection, pooled, error, compiled.sql, values)

    async def commit(self, connection: TransactionConnection) -> None:
        """Commit the transaction of a connection: past SQLAlchemy, where that knows nothing of it and it is quicker."""
        await connection.commit()

    #: From how many rows on one statement for all of them is worth its while.
    min_rows_to_merge: float = math.inf
    #: From how many rows on a table to copy them into is worth its making.
    min_rows_to_copy: float = math.inf

    async def copy_rows(
        self,
        connection: AsyncConnection,
        table: sa.Table,
        names: Sequence[str],
        columns: Sequence[Sequence[Any]],
        text: Sequence[bytes] | None = None,
    ) -> sa.FromClause | None:
        """Copy the values of some of a table's columns into a temporary table; None where it cannot be.

        `text` is the same, in parts that what `copy_text` returns has made. `drop_copied` ends it, or rolling back to
        the savepoint in which it was made.
        """
        return None

    def copy_text(
        self, dialect: Dialect, table: sa.Table, columns: tuple[str, ...]
    ) -> Callable[[Sequence[Sequence[Any]]], bytes] | None:
        """Return what makes text for `copy_rows` of rows given as columns; None where that is no help."""
        return None

    async def drop_copied(self, connection: AsyncConnection, source: sa.FromClause) -> None:
        """Drop what `copy_rows` has made."""

    #: From how many events on copying them is quicker than one statement that does it all.
    min_events_to_copy: int

    def can_copy(self, connection: AsyncConnection) -> bool:
        """Tell whether rows can be copied past SQLAlchemy."""
        return self._pooled(connection) is not None

    @abstractmethod
    async def stream_versions(
        self, connection: AsyncConnection, events: sa.Table, streams: Sequence[str]
    ) -> dict[str, int]:
        """Return the version of each stream, 0 for a new one."""

    @abstractmethod
    async def draw_positions(
        self, connection: AsyncConnection, events: sa.Table, count: int
    ) -> Sequence[Sequence[Any]]:
        """Return so many new positions in their order, each with the time."""

    @abstractmethod
    async def copy_events(
        self, connection: AsyncConnection, events: sa.Table, columns: Sequence[str], values: Sequence[Sequence[Any]]
    ) -> None:
        """Write new events, given as the values of each column; their documents are JSON text."""

    def cannot_copy(self, error: DBAPIError) -> bool:
        """Tell whether copying was refused where an INSERT would not be."""
        return False

    def cannot_merge(self, error: DBAPIError) -> bool:
        """Tell whether copying and merging was refused where row by row would not be."""
        return False

    @abstractmethod
    async def _run(
        self,
        pooled: PoolProxiedConnection,
        sql: str,
        values: Sequence[Any],
        *,
        returns_rows: bool,
        lone: LoneConnection | None,
    ) -> tuple[Sequence[Sequence[Any]], int]:
        """Run a statement, in the transaction unless it is by itself; return its rows and how many it has written."""

    @abstractmethod
    async def _run_many(self, pooled: PoolProxiedConnection, sql: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of the values."""

    def _is_outdated(self, error: BaseException) -> bool:
        """Tell whether a driver's connection has prepared the statement before a migration, as others may have."""
        return False

    def _learn(self, error: BaseException) -> None:
        """Spell statements differently from now on, if need be: no connection has prepared those."""
        if self._is_outdated(error):
            self._outdated += 1

    @abstractmethod
    def is_in_transaction(self, pooled: PoolProxiedConnection) -> bool:
        """Tell whether the driver's connection is in a transaction, whoever has begun it."""

    @abstractmethod
    def _is_ready(self, pooled: PoolProxiedConnection, *, in_transaction: bool) -> bool:
        """Tell whether the driver is in the transaction that is taken for begun, or `_run` will see to it."""

    def _compiled(self, connection: AsyncConnection, statement: sa.Executable) -> Compiled | None:
        """Return the statement as the driver takes it, or None where SQLAlchemy has more to do."""
        dialect = connection.dialect
        # With the dialect, so that they go with its engine: types' processors refer to it.
        outdated, by_statement = vars(dialect).get(_COMPILED, (-1, None))
        if outdated != self._outdated:
            by_statement = WeakKeyDictionary()
            setattr(dialect, _COMPILED, (self._outdated, by_statement))
        compiled: Compiled | None = by_statement.get(statement)
        if compiled is None:
            spelling = f" /* {self._outdated} */" if self._outdated else ""
            compiled = by_statement[statement] = Compiled(statement, dialect, spelling)
        return compiled if compiled.is_plain else None

    def _pooled(self, connection: AsyncConnection) -> PoolProxiedConnection | None:
        """Return the driver's connection to run statements on, or None where SQLAlchemy has more to do."""
        sync: Any = connection.sync_connection
        if sync is None or sync.closed or sync.invalidated or sync._echo:  # noqa: SLF001  (what SQLAlchemy asks, too)
            return None
        if not passes_by(sync):
            return None
        transaction = sync.get_nested_transaction() or sync.get_transaction()
        is_open = is_by_itself(sync) if transaction is None else transaction.is_active
        ready = is_open and self._is_ready(sync.connection, in_transaction=transaction is not None)
        return sync.connection if ready else None


def passes_by(bind: Connection | Engine) -> bool:
    """Tell whether SQLAlchemy would do nothing but execute a statement: nobody listens, no option changes it."""
    ours, dialects = cast("Any", bind.dispatch), cast("Any", bind.dialect).dispatch
    return not (
        must_be_heard(ours.before_cursor_execute)
        or must_be_heard(ours.after_cursor_execute)
        or must_be_heard(ours.before_execute)
        or must_be_heard(ours.after_execute)
        or dialects.do_execute
        or dialects.do_executemany
        or not _CHANGES_STATEMENTS.isdisjoint(bind.get_execution_options())
    )


def is_silent(engine: Engine) -> bool:
    """Tell whether nobody would notice that statements go past SQLAlchemy's connections, nor a log tell of them."""
    return passes_by(engine) and not cast("Any", engine)._should_log_info()  # noqa: SLF001


def is_by_itself(connection: Connection) -> bool:
    """Tell whether each statement on the connection is by itself: committed, or only reading."""
    options = connection.get_execution_options()
    return bool(options.get(ALONE)) or options.get("isolation_level") == "AUTOCOMMIT"


async def fail(
    connection: AsyncConnection, pooled: PoolProxiedConnection, error: BaseException, sql: str | None, values: Any
) -> NoReturn:
    """Let SQLAlchemy make of the driver's error what it makes of its own: wrap it, invalidate, tell listeners."""

    def handle(sync: Any) -> None:
        try:
            try:
                raise error  # noqa: TRY301  (inside a greenlet there is no current exception)
            except Exception as ours:  # noqa: BLE001
                pooled.dbapi_connection._handle_exception(ours)  # type: ignore[union-attr]  # noqa: SLF001
        except BaseException as translated:  # noqa: BLE001
            sync._handle_dbapi_exception(translated, sql, values, None, None)  # noqa: SLF001

    await connection.run_sync(handle)
    raise AssertionError from error  # pragma: no cover  (SQLAlchemy raises)
