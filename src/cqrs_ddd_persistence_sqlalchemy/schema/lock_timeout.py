"""A migration waits for a table only briefly: whoever comes after it would wait behind it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named, dialect_of
from cqrs_ddd_persistence_sqlalchemy.schema.locking import sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.engine import Connection

    from cqrs_ddd_persistence_sqlalchemy.schema.settings import Settings

logger = logging.getLogger("alembic.cqrs_ddd_persistence_sqlalchemy")

_LONGEST_PAUSE_SECONDS = 5.0


def with_short_locks(connection: Connection, settings: Settings, migrate: Callable[[], None]) -> None:
    """Migrate; where a lock is not to be had in time, let go of everything, pause and try again.

    Each revision that has committed stays; the others are run again. What runs outside of transactions, such as CREATE
    INDEX CONCURRENTLY, waits as long as it takes: nobody waits behind it. In a transaction of the caller's, which could
    not be tried again, nothing is limited.

    Raises:
        CommandError: when the last retry has failed too.
    """
    if connection.in_transaction():
        migrate()
        return
    dialect = dialect_of(connection)
    with _limited(connection, settings.lock_timeout_seconds):
        for retries_left in range(settings.lock_timeout_retries, -1, -1):
            try:
                migrate()
            except DBAPIError as error:
                connection.rollback()
                if not (dialect.is_lock_timeout(error) or dialect.is_deadlock(error)):
                    raise
                if not retries_left:
                    raise CommandError(
                        f"a table was in use for longer than {settings.lock_timeout_seconds:g} seconds, at each of "
                        f"{settings.lock_timeout_retries + 1} tries; the revisions before are applied. Look for long "
                        "transactions, or change lock_timeout_seconds or lock_timeout_retries in the configuration"
                    ) from error
                pause = min(settings.lock_timeout_seconds, _LONGEST_PAUSE_SECONDS)
                logger.info("A table is in use; trying again in %g seconds", pause)
                sleep(connection, pause)
            else:
                return


@contextmanager
def _limited(connection: Connection, seconds: float) -> Iterator[None]:
    statement = dialect_of(connection).limit_lock_waits(seconds)

    def limit(begun: Connection) -> None:
        if statement and begun.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            begun.exec_driver_sql(statement)

    listeners: tuple[Any, ...] = (connection, "begin", limit)
    event.listen(*listeners)
    try:
        yield
    finally:
        event.remove(*listeners)


def limit_in_script(context: MigrationContext, *, seconds: float) -> None:
    """Begin each transaction of a script with the same limit."""
    impl = context.impl
    statement = dialect_named(impl.dialect.name).limit_lock_waits(seconds)
    begin = impl.emit_begin

    def emit_begin() -> None:
        begin()
        if statement:
            impl.static_output(f"{statement};")

    impl.emit_begin = emit_begin  # type: ignore[method-assign]  # Alembic has no hook there
