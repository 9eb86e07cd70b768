"""How PostgreSQL is migrated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect.migrating import MigratingDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import TableRef

# First half of the migration lock's key; the schema's name is the second.
_MIGRATION_LOCK = 0x63717273


class PostgreSQLMigrations(MigratingDialect):
    """What PostgreSQL does its own way."""

    has_schemas = True

    def existing_table(self, error: DBAPIError) -> str | None:
        """Recognise duplicate_table."""
        found = re.search(r'"(.+?)"', str(error.orig))
        return found[1] if found and getattr(error.orig, "sqlstate", None) == "42P07" else None

    def forbidden(self, error: DBAPIError) -> str | None:
        """Recognise insufficient_privilege."""
        cause = getattr(error.orig, "__cause__", None) or error.orig
        return str(cause) if getattr(error.orig, "sqlstate", None) == "42501" else None

    def does_not_fit(self, error: DBAPIError) -> bool:
        """Recognise the class of data exceptions."""
        return str(getattr(error.orig, "sqlstate", None)).startswith("22")

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        """Recognise lock_not_available."""
        return getattr(error.orig, "sqlstate", None) == "55P03"

    def limit_lock_waits(self, seconds: float) -> str:
        """Set lock_timeout until the transaction ends."""
        return f"SET LOCAL lock_timeout = '{round(seconds * 1000)}ms'"

    def prepare_for_migrations(self, engine: Engine) -> None:
        """Do nothing: DDL is transactional."""

    def schema_exists(self, connection: Connection, schema: str) -> bool:
        """Ask pg_namespace."""
        found = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
        return connection.scalar(found, {"schema": schema}) is not None

    def set_search_path(self, connection: Connection, path: str, *, local: bool) -> str:
        """Call set_config()."""
        was = connection.scalar(sa.text("SELECT current_setting('search_path')"))
        values = {"path": path, "local": local}
        connection.execute(sa.text("SELECT set_config('search_path', :path, :local)"), values)
        return str(was)

    def default_schema(self, connection: Connection) -> str | None:
        """Call current_schema(); '' where the search path names no schema that is there."""
        return str(connection.scalar(sa.select(_default_schema())))

    def try_migration_lock(self, connection: Connection, *, joined: bool, schema: str | None = None) -> bool:
        """Poll an advisory lock of this database and schema.

        Waiting inside pg_advisory_lock() would be a transaction that CREATE INDEX CONCURRENTLY waits for, while its
        migration holds the lock: a deadlock.
        """
        function = sa.func.pg_try_advisory_xact_lock if joined else sa.func.pg_try_advisory_lock
        taken = connection.scalar(sa.select(function(*_lock_key(schema))))
        if not joined:
            connection.commit()
        return bool(taken)

    def release_migration_lock(self, connection: Connection, *, schema: str | None = None) -> None:
        """Unlock; a connection that broke has lost its lock already."""
        if connection.invalidated:
            return
        connection.rollback()
        connection.execute(sa.select(sa.func.pg_advisory_unlock(*_lock_key(schema))))
        connection.commit()

    def lock_table(self, connection: Connection, table: TableRef) -> None:
        """Take the lock that DROP TABLE would take."""
        connection.exec_driver_sql(f"LOCK TABLE {qualified(connection, table)} IN ACCESS EXCLUSIVE MODE")

    def triggers(self, connection: Connection, table: str) -> Mapping[str, str]:
        """Return nothing: tables are changed in place."""
        return {}

    def rows_deleted_with(self, connection: Connection, table: str) -> list[str]:
        """Return nothing: tables are changed in place."""
        return []

    @property
    def migrates_in_one_transaction(self) -> bool:
        """Return False: the lock is the session's, and each revision commits by itself."""
        return False

    def is_proxied(self, connection: Connection) -> bool:
        """Compare the process id of the handshake, which a proxy makes up, with the server's own.

        Of other drivers than asyncpg, as an environment of the application's may have, it is not known.
        """
        driver: Any = connection.connection.driver_connection
        if not isinstance(driver, asyncpg.Connection):
            return False
        return bool(driver.get_server_pid() != connection.scalar(sa.select(sa.func.pg_backend_pid())))

    def probe(self, url: URL) -> None:
        """Do nothing: only the server knows."""

    def connect_error(self, error: BaseException) -> str | None:
        """Recognise what asyncpg and the network raise before there is a connection, wrapped or not.

        A port or an option in the URL that makes no sense comes as Python's own error.
        """
        if isinstance(error, DBAPIError):
            return str(error.orig.__cause__ or error.orig) if error.orig else str(error)
        configuration = OverflowError, TypeError, ValueError
        expected = OSError, asyncpg.PostgresError, asyncpg.InterfaceError, *configuration
        return f"{type(error).__name__}: {error}" if isinstance(error, expected) else None


def _default_schema() -> sa.ColumnElement[str]:
    return sa.func.coalesce(sa.func.current_schema(), "")


def _lock_key(schema: str | None) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
    name = _default_schema() if schema is None else sa.literal(schema, sa.Text)
    return sa.literal(_MIGRATION_LOCK, sa.Integer), sa.func.hashtext(name)


def qualified(connection: Connection | AsyncConnection, table: TableRef) -> str:
    """Return a table's name as statements and to_regclass() read it."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    return f"{quote(table.schema)}.{quote(table.name)}" if table.schema else quote(table.name)
