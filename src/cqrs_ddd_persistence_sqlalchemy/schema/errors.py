"""What goes wrong with the database in a migration, in one line each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, IntegrityError

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

_ADOPT = (
    "If it is a projection's that ensure_collection made, adopt it with: alembic stamp <revision> (docs/adopting.md)"
)


@contextmanager
def connection_errors_in_one_line(engine: AsyncEngine) -> Iterator[None]:
    """Say what keeps a migration from its database.

    Raises:
        CommandError: naming the database, without its password.
    """
    try:
        yield
    except Exception as error:
        reason = dialect_of(engine).connect_error(error)
        if reason is None:
            raise
        raise CommandError(
            f"cannot connect to {engine.url.render_as_string(hide_password=True)}: {reason}; "
            "check -x url=, DATABASE_URL or sqlalchemy.url, and that the server is up"
        ) from error


@contextmanager
def schema_errors_in_one_line(connection: Connection, *, existing: str = _ADOPT) -> Iterator[None]:
    """Say what keeps the database from doing what a revision wants.

    Args:
        connection: of the migration.
        existing: what to do about a table that is there already.

    Raises:
        CommandError: with what to do; errors of other kinds pass through.
    """
    dialect = dialect_of(connection)
    try:
        yield
    except DBAPIError as error:
        if isinstance(error, IntegrityError) or dialect.does_not_fit(error):
            reason = " ".join(str(getattr(error.orig, "__cause__", None) or error.orig).split())
            raise CommandError(
                f"the rows that are there do not allow this change: {reason}. Its revision is not applied; "
                "mend the rows and run it again"
            ) from error
        forbidden = dialect.forbidden(error)
        if forbidden is not None:
            raise CommandError(
                f"the database's user may not do this: {forbidden}; migrate as the schema's owner, or grant the right"
            ) from error
        table = dialect.existing_table(error)
        if table is None:
            raise
        raise CommandError(
            f"table {table!r} is in the database already (or an index of that name), but no revision made it. "
            f"{existing}"
        ) from error
