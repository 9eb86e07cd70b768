"""Work inside one schema of a database: a tenant's, whose tables revisions name without saying where they are."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named, dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Dialect

_RESERVED = ("pg_", "information_schema")


def checked_schema(name: str, option: str) -> str:
    """Return a schema's name as an option gives it.

    Raises:
        CommandError: naming the option, for what is no identifier or is the server's own.
    """
    try:
        check_schema(name)
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None
    if name.startswith(_RESERVED):
        raise CommandError(f"{option}{name}: names that begin with {' or '.join(_RESERVED)} are PostgreSQL's own")
    return name


@contextmanager
def inside_schema(connection: Connection, schema: str | None) -> Iterator[None]:
    """Let unqualified names mean tables of a schema, and of no other, while the block runs.

    A connection in a transaction stays so until that ends or the block does; otherwise the session is changed, and put
    back: for connections that no transaction-pooling proxy shares out.

    Raises:
        CommandError: the database has no schemas.
    """
    if schema is None:
        yield
        return
    dialect = dialect_of(connection)
    _refuse_without_schemas(connection.dialect, schema)
    local = connection.in_transaction()
    was = dialect.set_search_path(connection, _path(connection.dialect, schema), local=local)
    if not local:
        connection.commit()
    try:
        yield
    finally:
        if local:
            with suppress(DBAPIError):  # a failed transaction takes it back when it ends
                dialect.set_search_path(connection, was, local=True)
        elif not connection.invalidated:
            connection.rollback()
            dialect.set_search_path(connection, was, local=False)
            connection.commit()


def enter_schema(connection: Connection, schema: str | None) -> None:
    """Let unqualified names mean tables of a schema until the transaction of the connection ends.

    Raises:
        CommandError: the database has no schemas.
    """
    if schema is not None:
        _refuse_without_schemas(connection.dialect, schema)
        dialect_of(connection).set_search_path(connection, _path(connection.dialect, schema), local=True)


def create_schema(connection: Connection, schema: str | None) -> None:
    """Create a schema that is missing, under the migration lock; on a connection in no transaction, commit it.

    One that is there needs no right to create any.
    """
    if schema is None:
        return
    joined = connection.in_transaction()
    if not dialect_of(connection).schema_exists(connection, schema):
        connection.exec_driver_sql(_create(connection.dialect, schema))
    if not joined:
        connection.commit()


def refuse_missing_schema(connection: Connection, schema: str | None) -> None:
    """Stop where there is nothing to look at.

    Raises:
        CommandError: the database has no schema of that name.
    """
    if schema is not None and not dialect_of(connection).schema_exists(connection, schema):
        raise CommandError(
            f"there is no schema {schema!r} in the database; run: alembic -x schema={schema} upgrade head, which "
            "creates it"
        )


def script_begin(dialect: Dialect, schema: str | None, *, create: bool) -> str:
    """Return how a script begins that works inside a schema; nothing without one.

    Raises:
        CommandError: the database has no schemas.
    """
    if schema is None:
        return ""
    _refuse_without_schemas(dialect, schema)
    creation = f"{_create(dialect, schema)};\n\n" if create else ""
    return f"{creation}SET search_path = {_path(dialect, schema)};\n\n"


def script_end(schema: str | None) -> str:
    """Return how such a script ends."""
    return "" if schema is None else "RESET search_path;\n\n"


def _path(dialect: Dialect, schema: str) -> str:
    return dialect.identifier_preparer.quote_identifier(schema)


def _create(dialect: Dialect, schema: str) -> str:
    return f"CREATE SCHEMA IF NOT EXISTS {_path(dialect, schema)}"


def _refuse_without_schemas(dialect: Dialect, schema: str) -> None:
    if not dialect_named(dialect.name).has_schemas:
        raise CommandError(
            f"SQLite has no schema {schema!r}, nor any other: give each tenant a file of its own, with -x url= or "
            "DATABASE_URL"
        )
