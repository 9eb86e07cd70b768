"""How SQLite is migrated."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError

from cqrs_ddd_persistence_sqlalchemy.core.dialect.migrating import MigratingDialect
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL, Connection, Engine

    from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import TableRef


class SQLiteMigrations(MigratingDialect):
    """What SQLite does its own way."""

    has_schemas = False

    def existing_table(self, error: DBAPIError) -> str | None:
        """Recognise 'table already exists'."""
        found = re.match(r'table "?(.+?)"? already exists', str(error.orig))
        return found[1] if found else None

    def forbidden(self, error: DBAPIError) -> str | None:
        """Recognise a file that may only be read."""
        return str(error.orig) if "readonly database" in str(error.orig) else None

    def does_not_fit(self, error: DBAPIError) -> bool:
        """Return False: SQLite takes any value, and the stores check them instead."""
        return False

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        """Return False: the migration has the whole file, and waits for nothing once it has begun."""
        return False

    def limit_lock_waits(self, seconds: float) -> None:
        """Return nothing, for the same reason."""

    def prepare_for_migrations(self, engine: Engine) -> None:
        """Switch the driver's own transaction handling off; the journal mode is the application's to choose.

        Foreign keys stay off, as they are by default: rebuilding a table would delete rows that refer to it.
        """

        @event.listens_for(engine, "connect")
        def set_up(connection: Any, _record: object) -> None:
            connection.isolation_level = None

    def schema_exists(self, connection: Connection, schema: str) -> bool:
        """Return False: there are attached files, which are no schemas."""
        return False

    def set_search_path(self, connection: Connection, path: str, *, local: bool) -> str:
        """Refuse; whoever comes here has not looked at `has_schemas`."""
        raise PersistenceError("SQLite has no search path")

    def default_schema(self, connection: Connection) -> str | None:
        """Return None: there are no schemas."""
        return None

    def try_migration_lock(self, connection: Connection, *, joined: bool, schema: str | None = None) -> bool:
        """Begin the transaction of the whole run with the write lock, which keeps every other writer out.

        A caller's transaction on a stock engine has not begun in the database yet: DDL in it would survive a rollback.
        """
        try:
            if not joined:
                self._suspend_foreign_keys(connection)
                connection.begin()
            self.begin(connection, write=True)
        except OperationalError as error:
            if not joined:
                connection.rollback()
            if "locked" in str(error.orig):
                return False
            raise
        return True

    def release_migration_lock(self, connection: Connection, *, schema: str | None = None) -> None:
        """Roll back what a failed run has left; a successful one has committed."""
        if not connection.invalidated:
            connection.rollback()
            if connection.info.pop("foreign_keys_suspended", False):
                _pragma(connection, "foreign_keys = ON")

    def _suspend_foreign_keys(self, connection: Connection) -> None:
        """Rebuilding a table drops it, which would delete rows that refer to it; in a transaction it is too late."""
        if _pragma(connection, "foreign_keys"):
            connection.info["foreign_keys_suspended"] = True
            _pragma(connection, "foreign_keys = OFF")

    def lock_table(self, connection: Connection, table: TableRef) -> None:
        """Do nothing: the transaction of a migration has the whole file."""

    def triggers(self, connection: Connection, table: str) -> Mapping[str, str]:
        """Read sqlite_master."""
        found = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :name COLLATE NOCASE"
        return {row.name: row.sql for row in connection.execute(sa.text(found), {"name": table})}

    def rows_deleted_with(self, connection: Connection, table: str) -> list[str]:
        """Look for foreign keys, if they are enforced: DROP TABLE deletes the rows first, and so obeys them."""
        if not connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
            return []
        children = sa.text(
            "SELECT DISTINCT child.name FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS parent "
            "WHERE child.type = 'table' AND parent.\"table\" = :name COLLATE NOCASE AND child.name <> :name ORDER BY 1"
        )
        return list(connection.scalars(children, {"name": table}))

    @property
    def migrates_in_one_transaction(self) -> bool:
        """Return True: committing after each revision would let another migration in between."""
        return True

    def is_proxied(self, connection: Connection) -> bool:
        """Return False: a file has no proxy."""
        return False

    def probe(self, url: URL) -> None:
        """Open the file and close it again: a connection that fails leaves a thread behind to the event loop."""
        path = url.database or ":memory:"
        if path != ":memory:" and not path.startswith("file:"):
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA schema_version")

    def connect_error(self, error: BaseException) -> str | None:
        """Recognise a file that cannot be opened or is no database."""
        reason = error.orig if isinstance(error, DBAPIError) else error
        known = re.match(r"unable to open database file|file is not a database", str(reason))
        return str(reason) if known and isinstance(reason, sqlite3.Error) else None


def _pragma(connection: Connection, pragma: str) -> Any:
    """Run a pragma without beginning a transaction, and return its value, if it has one."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {pragma}")
        row = cursor.fetchone()
    finally:
        cursor.close()
    return row[0] if row else None
