"""SQLite through aiosqlite."""

from __future__ import annotations

import re
import sqlite3
import time
from datetime import UTC
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import READ_ONLY, DatabaseDialect, TableDescription, TableRef
from cqrs_ddd_persistence_sqlalchemy.core.dialect.catalogues import SQLiteCatalogue
from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import may_be_bypassed
from cqrs_ddd_persistence_sqlalchemy.core.dialect.sqlite_direct import SQLiteDirect
from cqrs_ddd_persistence_sqlalchemy.core.dialect.sqlite_migrations import SQLiteMigrations
from cqrs_ddd_persistence_sqlalchemy.core.dialect.sqlite_replacing import SQLiteReplacing
from cqrs_ddd_persistence_sqlalchemy.core.dialect.sqlite_running import SQLiteRunning
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection

BUSY_TIMEOUT_MS = 60_000


class SQLite(SQLiteDirect, SQLiteMigrations, SQLiteReplacing, SQLiteRunning, DatabaseDialect):
    """What SQLite does its own way."""

    name = "sqlite"
    has_cheap_single_statements = has_writing_ctes = begins_lazily = False
    options_alone = READ_ONLY
    catalogue = SQLiteCatalogue()
    exact_decimal_digits = 15  # a NUMERIC column holds an IEEE 754 double
    # CURRENT_TIMESTAMP has whole seconds only; this is the form in which SQLAlchemy stores times.
    now: sa.ColumnElement[datetime] = sa.type_coerce(
        sa.literal_column("strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"), sa.DateTime(timezone=True)
    )

    def configure(self, engine: Engine) -> None:
        """Set the pragmas on each new connection and begin transactions by ourselves."""

        @event.listens_for(engine, "connect")
        def set_pragmas(connection: Any, _record: object) -> None:
            # The driver would begin only before the first write: what a savepoint wrote before survives a rollback.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA foreign_keys = ON")
            _switch_to_wal(cursor)
            cursor.close()

        @event.listens_for(engine, "begin")
        @may_be_bypassed
        def begin(connection: Connection) -> None:
            driver: Any = connection.connection.driver_connection
            if driver.in_transaction:
                return  # the engine was configured twice
            mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
            if mode not in {"IMMEDIATE", "DEFERRED"}:
                raise PersistenceError(f"execution option sqlite_begin={mode!r}: use 'IMMEDIATE' or 'DEFERRED'")
            connection.exec_driver_sql(f"BEGIN {mode}")

    def begin(self, connection: Connection, *, write: bool) -> None:
        """Begin by ourselves, unless the engine is configured and has.

        A transaction that reads first and writes later cannot wait for its turn: it fails with 'database is locked'.
        One that takes the write lock as it begins can.
        """
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN DEFERRED")

    def begins_by_itself(self, engine: Engine) -> bool:
        """Tell whether the engine is configured."""
        return bool(engine.dispatch.begin)

    def let_go(self, connection: Connection) -> None:
        """Roll back: closed with a statement that was not read to its end, a connection lives on and keeps its lock.

        sqlite3_close_v2() makes it a zombie until that statement is finalized, here with the task's traceback.
        """
        driver: Any = connection.connection.dbapi_connection
        driver.rollback()

    def shares_one_connection(self, engine: Engine) -> bool:
        """Return True for `:memory:`, which SQLAlchemy serves from one connection."""
        return isinstance(engine.pool, (StaticPool, SingletonThreadPool))

    def missing_table(self, error: DBAPIError) -> str | None:
        """Recognise 'no such table'; SQLite has one code for most errors."""
        found = re.match(r"no such table: (?:main\.)?(.+)", str(error.orig))
        return found[1] if found else None

    def missing_column(self, error: DBAPIError) -> str | None:
        """Recognise both of SQLite's wordings."""
        found = re.search(r"no such column: (\S+)|has no column named (\S+)", str(error.orig))
        return (found[1] or found[2]) if found else None

    def misfits(self, error: DBAPIError) -> bool:
        """Recognise unknown columns and conflict targets; types are not enforced."""
        return self.missing_column(error) is not None or "ON CONFLICT clause does not match" in str(error.orig)

    def violated_columns(self, error: DBAPIError, table: sa.Table) -> tuple[str, tuple[str, ...]] | None:
        """Read the columns from the message; the events' trigger has one of its own (revision cqrs_0001)."""
        if str(error.orig) == "events are immutable: this position, event_id or version is taken":
            return "unique", ("position", "event_id", "version")
        found = re.match(r"(UNIQUE|NOT NULL) constraint failed: (.+)", str(error.orig))
        if not found:
            return None
        columns = tuple(column.strip().removeprefix(f"{table.name}.") for column in found[2].split(","))
        return found[1].lower(), columns

    def is_deadlock(self, error: DBAPIError) -> bool:
        """Return False: with one writer at a time there is nothing to lock crosswise."""
        return False

    def skip_locked(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Leave it alone: there is one writer at a time."""
        return statement

    def insert(self, table: sa.Table) -> Any:
        """Return SQLite's INSERT."""
        return sqlite.insert(table)

    def like(self, column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
        """Use GLOB: LIKE ignores case, and the setting that changes it is the connection's."""
        return column.op("GLOB", is_comparison=True, return_type=sa.Boolean())(sa.literal(_as_glob(pattern), sa.Text()))

    def json_rows(self, parameter: str, columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
        """Use json_each; a nested object comes out as its text, which is how JSON columns are stored."""
        each = sa.func.json_each(sa.bindparam(parameter, type_=sa.Text())).table_valued("value", name="each")
        fields = [
            # The names are identifiers, so the paths can stand in the statement and need not be bound each time.
            sa.func.json_extract(each.c.value, sa.literal_column(f"'$.{column.name}'")).label(column.name)
            for column in columns
        ]
        return sa.select(*fields).subquery("rows")

    def json_time(self, value: datetime) -> str:
        """Return UTC in the form in which SQLAlchemy stores times on SQLite."""
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    async def hold_readers(self, connection: AsyncConnection, events: sa.Table) -> None:
        """Do nothing: there is one writer at a time, so positions commit in order."""

    async def readable_position(self, connection: AsyncConnection, events: sa.Table) -> None:
        """Return None: whatever is committed has all before it committed."""

    async def look(
        self, connection: AsyncConnection, revisions: TableRef, tables: Sequence[TableRef]
    ) -> tuple[frozenset[str], Mapping[str, TableDescription]]:
        """Read one after the other: the file is at hand."""
        quote = connection.dialect.identifier_preparer.quote_identifier
        prefix = f"{quote(revisions.schema)}." if revisions.schema else ""
        try:
            statement = f"SELECT version_num FROM {prefix}{quote(revisions.name)}"  # noqa: S608  (quoted)
            recorded = await connection.exec_driver_sql(statement)
        except DBAPIError as error:
            if self.missing_table(error) is None:
                raise
            return frozenset(), {}
        described = {table.name: await self.describe_table(connection, table) for table in tables}
        return frozenset(recorded.scalars()), {name: each for name, each in described.items() if each is not None}

    async def describe_table(self, connection: AsyncConnection, table: TableRef) -> TableDescription | None:
        """Read the table's pragmas."""
        schema = f"{connection.dialect.identifier_preparer.quote(table.schema)}." if table.schema else ""
        name = connection.dialect.identifier_preparer.quote_identifier(table.name)
        rows = (await connection.exec_driver_sql(f"PRAGMA {schema}table_info({name})")).mappings().all()
        if not rows:
            return None
        indexes = (await connection.exec_driver_sql(f"PRAGMA {schema}index_list({name})")).mappings().all()
        columns = tuple(
            {
                "name": row["name"],
                "type": self.catalogue.grammar_type(row["type"]),
                "nullable": not row["notnull"] and not row["pk"],
                "primary_key": row["pk"],
                "has_default": row["dflt_value"] is not None,
            }
            for row in rows
        )
        unique = [row for row in indexes if row["unique"] and row["origin"] != "pk"]
        keys = [() if row["partial"] else await self._index_columns(connection, schema, row["name"]) for row in unique]
        return TableDescription(columns, tuple(keys))

    async def _index_columns(self, connection: AsyncConnection, schema: str, index: str) -> tuple[str, ...]:
        name = connection.dialect.identifier_preparer.quote_identifier(index)
        rows = (await connection.exec_driver_sql(f"PRAGMA {schema}index_info({name})")).mappings().all()
        return () if any(row["name"] is None for row in rows) else tuple(row["name"] for row in rows)

    async def unlock_events(self, connection: AsyncConnection, events: sa.Table) -> list[str]:
        """Drop the triggers inside this transaction, which keeps all other writers out, and return their text."""
        master = sa.table(
            "sqlite_master", sa.column("name"), sa.column("sql"), sa.column("type"), sa.column("tbl_name")
        )
        found = sa.select(master.c.name, master.c.sql).where(
            master.c.type == "trigger", master.c.tbl_name == events.name
        )
        triggers = (await connection.execute(found)).all()
        for trigger in triggers:
            name = connection.dialect.identifier_preparer.quote_identifier(trigger.name)
            await connection.exec_driver_sql(f"DROP TRIGGER {name}")
        return [trigger.sql for trigger in triggers]

    async def lock_events(self, connection: AsyncConnection, events: sa.Table, state: list[str]) -> None:
        """Put the triggers back as they were."""
        for statement in state:
            # A rollback to a savepoint inside may have put them back already.
            again = re.sub(r"^CREATE TRIGGER (?!IF NOT)", "CREATE TRIGGER IF NOT EXISTS ", statement)
            await connection.exec_driver_sql(again)


def _as_glob(pattern: str) -> str:
    """Translate a LIKE pattern."""
    wild = {"%": "*", "_": "?"}
    literal = {"*": "[*]", "?": "[?]", "[": "[[]"}
    parts = re.findall(r"\\?.", pattern, re.DOTALL)
    return "".join(wild[part] if part in wild else literal.get(part[-1], part[-1]) for part in parts)


def _switch_to_wal(cursor: Any) -> None:
    """Switch the file to a write-ahead log, once in its life; the busy timeout does not cover this statement."""
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return
