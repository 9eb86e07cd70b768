"""PostgreSQL through asyncpg."""

from __future__ import annotations

import re
import weakref
from datetime import UTC
from typing import TYPE_CHECKING, Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import (
    DatabaseDialect,
    TableDescription,
    TableRef,
    effective_name,
    qualified_name,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect.catalogues import PostgreSQLCatalogue
from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import TRANSACTION_POOLING
from cqrs_ddd_persistence_sqlalchemy.core.dialect.floors import LOWEST_FLOOR, hold_floor, read_last_value
from cqrs_ddd_persistence_sqlalchemy.core.dialect.lone import TransactionConnection, untouched
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql_direct import PostgreSQLDirect
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql_migrations import PostgreSQLMigrations, qualified
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql_replacing import PostgreSQLReplacing
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql_running import PostgreSQLRunning
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import TypeAlias

    from sqlalchemy.engine import Connection, Engine, Transaction
    from sqlalchemy.ext.asyncio import AsyncConnection

    # What holds a lock: True for the whole transaction, or a savepoint; False where that is not known.
    Holder: TypeAlias = bool | weakref.ref[Transaction]
    Holders: TypeAlias = dict[tuple[str | None, str], Holder]

# undefined_column, datatype_mismatch, undefined_function (no such operator), invalid_column_reference (ON CONFLICT),
# string_data_right_truncation, numeric_value_out_of_range.
_MISFITS = frozenset({"42703", "42804", "42883", "42P10", "22001", "22003"})


_STALE = (asyncpg.FeatureNotSupportedError, asyncpg.OutdatedSchemaCacheError)


class PostgreSQL(PostgreSQLDirect, PostgreSQLMigrations, PostgreSQLReplacing, PostgreSQLRunning, DatabaseDialect):
    """What PostgreSQL does its own way."""

    name = "postgresql"
    has_cheap_single_statements = has_writing_ctes = begins_lazily = True
    options_alone: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    catalogue = PostgreSQLCatalogue()
    now: sa.ColumnElement[datetime] = sa.func.clock_timestamp(type_=sa.DateTime(timezone=True))

    def __init__(self) -> None:
        super().__init__()
        # What holds the locks of hold_readers, for each open transaction and table; savepoints weakly, to be forgotten.
        self._holding: weakref.WeakKeyDictionary[Transaction, Holders] = weakref.WeakKeyDictionary()

    def configure(self, engine: Engine) -> None:
        """Leave the engine alone: PostgreSQL's defaults are the recommended settings."""

    def prepare_for_transaction_pooling(self, engine: Engine) -> None:
        """Leave statements unnamed, and have each parsed where it runs.

        A named one is on one of the proxy's server connections only, where its name may be taken by another client's
        and where nobody would close it. PgBouncer 1.21 and newer follows named ones, older ones do not.
        """

        @sa.event.listens_for(engine, "do_connect")
        def leave_unnamed(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
            options |= {
                "statement_cache_size": 0,  # asyncpg's
                "prepared_statement_cache_size": 0,  # SQLAlchemy's
                "prepared_statement_name_func": str,  # '' is the name of the unnamed one
            }

        engine.update_execution_options(**TRANSACTION_POOLING)

    def begin(self, connection: Connection, *, write: bool) -> None:
        """Do nothing more: the driver has sent BEGIN."""

    def begins_by_itself(self, engine: Engine) -> bool:
        """Return True."""
        return True

    def let_go(self, connection: Connection) -> None:
        """Do nothing: closing the connection ends its transaction."""

    def shares_one_connection(self, engine: Engine) -> bool:
        """Return False: each session has a connection, and so a transaction, of its own."""
        return False

    def missing_table(self, error: DBAPIError) -> str | None:
        """Recognise undefined_table and invalid_schema_name."""
        if getattr(error.orig, "sqlstate", None) not in {"42P01", "3F000"}:
            return None
        found = re.search(r'"(.+?)"', str(error.orig))
        return found[1].removesuffix("_position_seq") if found else ""

    def missing_column(self, error: DBAPIError) -> str | None:
        """Recognise undefined_column."""
        if getattr(error.orig, "sqlstate", None) != "42703":
            return None
        found = re.search(r'"(.+?)"', str(error.orig)) or re.search(r"column (\S+)", str(error.orig))
        return found[1] if found else ""

    def has_stale_plan(self, error: DBAPIError) -> bool:
        """Recognise feature_not_supported ('cached plan must not change result type') and the driver's own check."""
        return isinstance(getattr(error.orig, "__cause__", None), _STALE)

    def must_reconnect(self, error: BaseException) -> bool:
        """Recognise all but the one error after which statements are prepared anew."""
        cause = error.__cause__ or error
        return isinstance(cause, _STALE) and not isinstance(cause, asyncpg.InvalidCachedStatementError)

    def misfits(self, error: DBAPIError) -> bool:
        """Recognise what a statement meets whose columns, types or conflict target are those of another table."""
        return getattr(error.orig, "sqlstate", None) in _MISFITS

    def violated_columns(self, error: DBAPIError, table: sa.Table) -> tuple[str, tuple[str, ...]] | None:
        """Read the columns from the server's fields; its messages are translated, the fields are not."""
        cause: Any = getattr(error.orig, "__cause__", None)
        state = getattr(error.orig, "sqlstate", None)
        if state == "23502":
            return "not null", (cause.column_name,)
        if state == "23505":
            key = re.search(r"\((.*?)\)=\(", cause.detail or "")
            columns = key[1].replace('"', "").split(", ") if key else [cause.constraint_name]
            return "unique", tuple(columns)
        return None

    def is_deadlock(self, error: DBAPIError) -> bool:
        """Recognise deadlock_detected."""
        return getattr(error.orig, "sqlstate", None) == "40P01"

    def skip_locked(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Use FOR UPDATE SKIP LOCKED."""
        return statement.with_for_update(skip_locked=True)

    def insert(self, table: sa.Table) -> Any:
        """Return PostgreSQL's INSERT."""
        return postgresql.insert(table)

    def like(self, column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
        """Use LIKE."""
        return column.like(pattern)

    def json_rows(self, parameter: str, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
        """Use json_to_recordset, which reads a JSON array into typed rows."""
        array = sa.cast(sa.bindparam(parameter, type_=sa.Text()), postgresql.JSON())
        typed = [sa.column(column.name, column.type) for column in columns]
        return sa.func.json_to_recordset(array).table_valued(*typed, name="rows").render_derived(with_types=True)

    def json_time(self, value: datetime) -> str:
        """Return ISO 8601 in UTC: the session's time zone plays no part, and PostgreSQL knows no offset of 16 hours."""
        return value.astimezone(UTC).isoformat()

    async def hold_readers(self, connection: AsyncConnection, events: sa.Table) -> None:
        """Take a shared advisory lock on the position that the sequence has reached, before drawing from it.

        Positions are drawn before the commit, so a transaction may commit position 7 after another's 9. A reader that
        sees this lock stops at the floor it names (`readable_position`). The lock ends with the transaction; inside a
        savepoint it would end with the savepoint, hence the note of what took it.
        """
        held = self._holders(connection).get(effective_name(connection, events))
        savepoint = held() if isinstance(held, weakref.ref) else None
        if held is True or (savepoint is not None and savepoint.is_active):
            return
        # A savepoint that took the lock and was released has left it with its parent, one that was rolled back has
        # not: ask the server, rather than take one lock a savepoint until its lock table is full.
        statement = hold_floor(events, only_if_not_held=held is not None)
        await self.execute(connection, statement, {"events": qualified_name(connection, events)})
        self.note_held(connection, events, certain=True)

    def floor(self, events: sa.Table) -> sa.Select[Any]:
        """Lock the floor."""
        return hold_floor(events, only_if_not_held=False)

    def holds_nothing(self, connection: AsyncConnection, events: sa.Table) -> bool:
        """Look at what is noted."""
        return effective_name(connection, events) not in self._holders(connection)

    def note_held(self, connection: AsyncConnection, events: sa.Table, *, certain: bool) -> None:
        """Note what holds the lock; an inactive savepoint has the server asked the next time."""
        nested = None if untouched(connection) else connection.sync_connection.get_nested_transaction()  # type: ignore[union-attr]
        held = certain if nested is None or not certain else weakref.ref(nested)
        self._holders(connection)[effective_name(connection, events)] = held

    def _holders(self, connection: AsyncConnection) -> Holders:
        if isinstance(connection, TransactionConnection) and connection.is_in_its_transaction:
            return connection.notes
        sync = connection.sync_connection
        root = sync.get_transaction() if sync else None
        if root is None:
            raise PersistenceError("appending needs a transaction; the connection is in autocommit mode")
        return self._holding.setdefault(root, {})

    async def readable_position(self, connection: AsyncConnection, events: sa.Table) -> int | None:
        """Return the lower of the sequence's last value and the lowest floor held by another transaction.

        Two statements, and the caller's read is the third: each must see what was committed when it began. A writer
        whose position is below the last value had taken its lock before that value was read, so it is either still
        listed in the second statement or has ended, and its rows are there for the third.
        """
        key = qualified_name(connection, events)
        answer = await self.execute(connection, read_last_value(events), {"events": key})
        last, oid, isolation, is_standby = answer.rows[0]
        if is_standby:
            raise PersistenceError("reading events by position needs the primary: a standby does not show who appends")
        if isolation != "read committed":
            raise PersistenceError(
                f"reading events by position needs READ COMMITTED, this transaction is {isolation.upper()}: "
                "use a unit of work of its own for it"
            )
        floor = (await self.execute(connection, LOWEST_FLOOR, {"oid": oid, "last": last})).scalar()
        return int(last if floor is None else min(last, floor))

    async def look(
        self, connection: AsyncConnection, revisions: TableRef, tables: Sequence[TableRef]
    ) -> tuple[frozenset[str], Mapping[str, TableDescription]]:
        """Read both in one statement and no transaction; it fails where there is no version table."""
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        by_name = {qualified(connection, table): table.name for table in tables}
        recorded = sa.text(_RECORDED.format(qualified(connection, revisions)))
        try:
            rows = (await connection.execute(recorded, {"names": list(by_name)})).mappings().all()
        except DBAPIError as error:
            if self.missing_table(error) is None:
                raise
            return frozenset(), {}
        columns: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["wanted"] is not None:
                column = {name: value for name, value in row.items() if name not in {"wanted", "revision"}}
                column["type"] = self.catalogue.grammar_type(column["type"])
                columns.setdefault(by_name[row["wanted"]], []).append(column)
        found = frozenset(row["revision"] for row in rows if row["revision"] is not None)
        return found, {name: TableDescription(tuple(each), ()) for name, each in columns.items()}

    async def describe_table(self, connection: AsyncConnection, table: TableRef) -> TableDescription | None:
        """Read pg_attribute; format_type spells the types."""
        name = qualified(connection, table)
        oid = await connection.scalar(sa.text("SELECT to_regclass(:name)::oid::bigint"), {"name": name})
        if oid is None:
            return None
        rows = (await connection.execute(_COLUMNS, {"oid": oid})).mappings().all()
        columns = tuple({**row, "type": self.catalogue.grammar_type(row["type"])} for row in rows)
        unique = (await connection.execute(_UNIQUE_KEYS, {"oid": oid})).scalars()
        return TableDescription(columns, tuple(tuple(names) for names in unique))

    async def unlock_events(self, connection: AsyncConnection, events: sa.Table) -> str:
        """Set what the trigger asks for, until the transaction ends, and return what was set before."""
        was = await connection.scalar(sa.text("SELECT current_setting('cqrs_ddd.unlock_events', true)"))
        await connection.execute(sa.text("SELECT set_config('cqrs_ddd.unlock_events', 'on', true)"))
        return str(was or "off")

    async def lock_events(self, connection: AsyncConnection, events: sa.Table, state: Any) -> None:
        """Set what was set before."""
        await connection.execute(sa.text("SELECT set_config('cqrs_ddd.unlock_events', :state, true)"), {"state": state})


_DESCRIBED = """
           a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
           coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0) AS primary_key,
           a.atthasdef OR a.attidentity <> '' AS has_default
"""

_RECORDED = f"""
    SELECT wanted, NULL::text AS revision, {_DESCRIBED}
    FROM unnest(CAST(:names AS text[])) AS wanted JOIN pg_attribute a ON a.attrelid = to_regclass(wanted)
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT NULL, version_num, NULL, NULL, NULL, NULL, NULL FROM {{}}
"""  # noqa: S608  (a quoted name is put in)

_COLUMNS = sa.text(
    f"""
    SELECT {_DESCRIBED}
    FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = CAST(CAST(:oid AS bigint) AS oid) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    """  # noqa: S608  (nothing is put in but the constant above)
)

_UNIQUE_KEYS = sa.text(
    """
    SELECT CASE WHEN i.indpred IS NULL AND i.indexprs IS NULL THEN array_agg(a.attname::text) ELSE '{}' END
    FROM pg_index i LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = CAST(CAST(:oid AS bigint) AS oid) AND i.indisunique AND NOT i.indisprimary
    GROUP BY i.indexrelid, i.indpred IS NULL, i.indexprs IS NULL
    """
)
