"""The interface behind which the databases differ."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import DirectDialect
from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import untouched
from cqrs_ddd_persistence_sqlalchemy.core.dialect.migrating import MigratingDialect
from cqrs_ddd_persistence_sqlalchemy.core.dialect.replacing import ReplacingDialect
from cqrs_ddd_persistence_sqlalchemy.core.dialect.running import RunningDialect
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import DocumentText, object_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.dialect.catalogues import Catalogue


#: Execution options of a connection that will only read: where beginning takes a lock, it takes none.
READ_ONLY: Mapping[str, Any] = {"sqlite_begin": "DEFERRED"}


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table as the database's catalogue knows it: schema (None: the connection's default) and name."""

    name: str
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class TableDescription:
    """What the catalogue says of a table, in the words of the projection grammar.

    Attributes:
        columns: each with name, type (as in "DECIMAL(10, 2)"), nullable, primary_key (1.. in key order, 0: no part of
            the key) and has_default.
        unique_keys: the columns of each UNIQUE constraint or index beside the primary key; () stands for one over
            expressions or some rows only.
    """

    columns: tuple[Mapping[str, Any], ...]
    unique_keys: tuple[tuple[str, ...], ...]


class DatabaseDialect(DirectDialect, MigratingDialect, ReplacingDialect, RunningDialect):
    """What one database does its own way. Stateless: one instance serves every engine."""

    name: str
    #: The database's clock as an SQL expression, read when the statement runs.
    now: sa.ColumnElement[datetime]

    #: How the database spells types, defaults and indexes.
    catalogue: Catalogue
    #: How many digits of a decimal a column holds without loss; None for all that its type declares.
    exact_decimal_digits: int | None = None

    #: Execution options of connections on which each statement is by itself.
    options_alone: Mapping[str, Any]

    #: Whether a statement that writes is faster without BEGIN and COMMIT around it, by two round trips.
    has_cheap_single_statements: bool

    #: Whether to begin a transaction waits for nobody, as it is sent with the first statement.
    begins_lazily: bool

    #: Whether one statement can contain several that write.
    has_writing_ctes: bool

    @abstractmethod
    def configure(self, engine: Engine) -> None:
        """Apply the recommended settings to an engine that has not connected yet."""

    def prepare_for_transaction_pooling(self, engine: Engine) -> None:
        """Let no connection of the engine go by what an earlier transaction has left on the server; where it could."""

    @abstractmethod
    def begins_by_itself(self, engine: Engine) -> bool:
        """Tell whether a connection of the engine begins its transactions as stores need them to begin."""

    @abstractmethod
    def let_go(self, connection: Connection) -> None:
        """Release what a cancelled statement holds, before its connection is thrown away."""

    @abstractmethod
    def shares_one_connection(self, engine: Engine) -> bool:
        """Tell whether every session of the engine ends up on one connection, and so in one transaction."""

    @abstractmethod
    def missing_table(self, error: DBAPIError) -> str | None:
        """Return the name of the table whose absence caused the error, '' where the error does not tell, or None."""

    @abstractmethod
    def missing_column(self, error: DBAPIError) -> str | None:
        """Return the name of the column whose absence caused the error, or None."""

    def has_stale_plan(self, error: DBAPIError) -> bool:
        """Tell whether the driver went by what it remembered of a table that another process has changed since."""
        return False

    def must_reconnect(self, error: BaseException) -> bool:
        """Tell from a driver's error whether connections that go by such a memory would never work again."""
        return False

    @abstractmethod
    def misfits(self, error: DBAPIError) -> bool:
        """Tell whether the statement does not fit the columns, types or keys that its table has."""

    @abstractmethod
    def violated_columns(self, error: DBAPIError, table: sa.Table) -> tuple[str, tuple[str, ...]] | None:
        """Return ("unique" or "not null", columns) when the error is such a violation on the table, else None."""

    @abstractmethod
    def is_deadlock(self, error: DBAPIError) -> bool:
        """Tell whether the database chose this transaction to break a deadlock: it is rolled back, try again."""

    @abstractmethod
    def skip_locked(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Lock the rows that a statement selects, and leave out those that somebody else has locked."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """Return the database's INSERT, the one with ON CONFLICT."""

    @abstractmethod
    def like(self, column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
        """Match a pattern with % and _, a backslash before what is meant literally; upper and lower case differ."""

    @abstractmethod
    def json_rows(self, parameter: str, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
        """Return a row source over one bound parameter: a JSON array of objects keyed by column name.

        One parameter whatever the number of rows: the drivers' limits on parameters (32,767 and 32,766) never bite.
        """

    def key_rows(self, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause | None:
        """Return a row source over parameters named as the columns, each a list; None where lists cannot be bound."""
        return None

    def batch_rows(self, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
        """Return a row source over the parameters that `batch` makes."""
        return self.json_rows("batch", columns)

    def batch(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Return the parameters for rows, given as the values of each column; their documents are given as text."""
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return {"batch": f"[{','.join(map(self._json_row, rows))}]"}

    def _json_row(self, row: Mapping[str, Any]) -> str:
        documents = {name: value for name, value in row.items() if isinstance(value, DocumentText)}
        values = {name: value for name, value in row.items() if name not in documents}
        times = {name: self.json_time(value) for name, value in values.items() if isinstance(value, datetime)}
        return object_text(values | times, **documents)

    @abstractmethod
    def json_time(self, value: datetime) -> str:
        """Return an aware time in the form in which `json_rows` stores it as this database stores times."""

    @abstractmethod
    async def hold_readers(self, connection: AsyncConnection, events: sa.Table) -> None:
        """Keep readers by position below what this transaction is about to append, until it ends."""

    def floor(self, events: sa.Table) -> sa.Select[Any] | None:
        """Return what `hold_readers` executes where nothing is held yet; the parameter `events` is the table's name."""
        return None

    def holds_nothing(self, connection: AsyncConnection, events: sa.Table) -> bool:
        """Tell whether a transaction that appends has yet to hold readers, and has certainly not begun to."""
        return False

    def note_held(self, connection: AsyncConnection, events: sa.Table, *, certain: bool) -> None:
        """Remember that a statement with `floor` in it was executed; without rows, it may have held nothing."""

    @abstractmethod
    async def readable_position(self, connection: AsyncConnection, events: sa.Table) -> int | None:
        """Return the position up to which nothing can appear any more, or None for 'everything committed'."""

    @abstractmethod
    async def look(
        self, connection: AsyncConnection, revisions: TableRef, tables: Sequence[TableRef]
    ) -> tuple[frozenset[str], Mapping[str, TableDescription]]:
        """Return the revisions in a version table, and describe those of the tables that exist, by name.

        Their UNIQUE keys are left out. A version table that is missing holds no revision.
        """

    @abstractmethod
    async def describe_table(self, connection: AsyncConnection, table: TableRef) -> TableDescription | None:
        """Describe a table, or return None where it does not exist."""

    @abstractmethod
    async def unlock_events(self, connection: AsyncConnection, events: sa.Table) -> Any:
        """Let this transaction, and no other, change and delete events; returns what `lock_events` needs."""

    @abstractmethod
    async def lock_events(self, connection: AsyncConnection, events: sa.Table, state: Any) -> None:
        """Make events immutable for this transaction again."""


def effective_schema(connection: AsyncConnection, schema: str | None) -> str | None:
    """Return the schema that statements on a table of this one reach, schema_translate_map included."""
    if untouched(connection):
        return schema  # there is none
    translate = connection.sync_connection.get_execution_options().get("schema_translate_map")  # type: ignore[union-attr]
    return translate.get(schema, schema) if translate else schema


def effective_name(connection: AsyncConnection, table: sa.Table) -> tuple[str | None, str]:
    """Return schema and name of what statements on a table reach."""
    return effective_schema(connection, table.schema), table.name


def qualified_name(connection: AsyncConnection, table: sa.Table) -> str:
    """Return the quoted, schema-qualified name under which the catalogue finds the table."""
    quote, (schema, name) = connection.dialect.identifier_preparer.quote_identifier, effective_name(connection, table)
    return f"{quote(schema)}.{quote(name)}" if schema else quote(name)
