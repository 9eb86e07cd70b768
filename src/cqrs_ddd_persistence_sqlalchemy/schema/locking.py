"""One migration at a time for a database, however many processes start one."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic.util import CommandError
from sqlalchemy.util import await_only

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

logger = logging.getLogger("alembic.cqrs_ddd_persistence_sqlalchemy")

POLL_SECONDS = 0.2
DEFAULT_LOCK_WAIT_SECONDS = 600


@contextmanager
def migration_lock(
    connection: Connection,
    *,
    wait_seconds: float = DEFAULT_LOCK_WAIT_SECONDS,
    allow_proxy: bool = False,
    schema: str | None = None,
) -> Iterator[None]:
    """Hold the migration lock of the connection's database, and commit what was done under it.

    A connection that is in a transaction already keeps it: the lock ends with it, and committing is the caller's.

    Args:
        connection: to the server itself.
        wait_seconds: how long to wait for another migration.
        allow_proxy: whether a pooling proxy may be between; one that pools by session does no harm.
        schema: which is migrated; the connection's default one unless given. Each has a lock of its own.

    Raises:
        CommandError: when another migration keeps the lock for longer than that, or a proxy stands in the way, through
            which two clients can hold one lock.
    """
    dialect = dialect_of(connection)
    joined = connection.in_transaction()
    if not joined:
        _refuse_proxy(connection, allowed=allow_proxy)
    if schema is None:  # now: a revision may change the search path, and the lock must be found again to release it
        schema = dialect.default_schema(connection)
        if not joined:
            connection.rollback()
    give_up = time.monotonic() + wait_seconds
    waits = False
    while not dialect.try_migration_lock(connection, joined=joined, schema=schema):
        if time.monotonic() >= give_up:
            raise CommandError(
                f"another migration has held this database for {wait_seconds:g} seconds: wait for it "
                "to end, or look for what blocks it (lock_wait_seconds in the configuration changes the limit)"
            )
        if not waits:
            logger.info("Another migration is running; waiting for it to end")
            waits = True
        sleep(connection, POLL_SECONDS)
    try:
        yield
        if not joined and connection.in_transaction():
            connection.commit()
    finally:
        if not joined:
            dialect.release_migration_lock(connection, schema=schema)


def _refuse_proxy(connection: Connection, *, allowed: bool) -> None:
    if allowed:
        return
    proxied = dialect_of(connection).is_proxied(connection)
    connection.rollback()
    if proxied:
        raise CommandError(
            "the connection goes through a pooling proxy, where two migrations could hold one lock: connect to the "
            "server itself. If the proxy pools by session, say so with -x allow-proxy=yes"
        )


def sleep(connection: Connection, seconds: float) -> None:
    """Sleep without holding up the event loop, which may be the one that runs the other migration."""
    if connection.dialect.is_async:
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
