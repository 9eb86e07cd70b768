"""Work on tables in one transaction, as the only migration of its database, beside a running application."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import RebuildError
from cqrs_ddd_persistence_sqlalchemy.schema.locking import POLL_SECONDS
from cqrs_ddd_persistence_sqlalchemy.schema.tenant_schemas import enter_schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory

T = TypeVar("T")
Work: TypeAlias = "Callable[[SQLAlchemyUnitOfWork, AsyncConnection], Awaitable[T]]"


@dataclass(frozen=True)
class Patience:
    """How long a rebuild waits for others before it gives up; what it has built stays for the next run.

    Attributes:
        migration_seconds: for a migration under way.
        rebuild_seconds: for another rebuild of the projection; one that was killed loses its lease after ten seconds.
        lock_seconds: for the projection's table, each time; who comes later waits behind it for as long.
        lock_retries: how often again after that.
    """

    migration_seconds: float = 600.0
    rebuild_seconds: float = 20.0
    lock_seconds: float = 2.0
    lock_retries: int = 30


class NotYetError(Exception):
    """The work cannot be done now, but perhaps in a moment.

    Attributes:
        seconds: for how long to try.
        reason: what to say after that.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        self.seconds = seconds
        self.reason = reason
        super().__init__(seconds, reason)


async def exclusively(
    session_factory: SessionFactory, patience: Patience, work: Work[T], *, schema: str | None = None
) -> T:
    """Do the work and commit; while it cannot be done, roll back, pause and try again.

    In the work, unqualified names mean tables of the schema, or of the connection's default one. The migration lock
    ends with the transaction, so nothing is held while waiting, and no migration waits for long.

    Raises:
        RebuildError: when waiting was in vain.
    """
    loop = asyncio.get_running_loop()
    since: dict[str, float] = {}
    retries = patience.lock_retries
    while True:
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            connection = await uow.session.connection()
            dialect = dialect_of(connection)
            try:
                if not await connection.run_sync(_try_lock, schema):
                    reason = f"a migration has held this database for {patience.migration_seconds:g} seconds"
                    raise NotYetError(patience.migration_seconds, reason)  # noqa: TRY301  (the one place for both)
                limit = dialect.limit_lock_waits(patience.lock_seconds)
                if limit:
                    await connection.exec_driver_sql(limit)
                await connection.run_sync(enter_schema, schema)
                result = await work(uow, connection)
                await uow.commit()
            except NotYetError as error:
                if loop.time() - since.setdefault(error.reason, loop.time()) >= error.seconds:
                    raise RebuildError(f"{error.reason}; wait for it to end, and run the rebuild again") from None
            except DBAPIError as error:
                _refuse_forbidden(dialect.forbidden(error), error)
                if not (dialect.is_lock_timeout(error) or dialect.is_deadlock(error)):
                    raise
                if not retries:
                    raise RebuildError(
                        f"a table was in use for longer than {patience.lock_seconds:g} seconds, at each of "
                        f"{patience.lock_retries + 1} tries: look for long transactions, and run the rebuild again, "
                        "which goes on from here"
                    ) from error
                retries -= 1
            else:
                return result
            await uow.rollback()
        await asyncio.sleep(POLL_SECONDS)


def _refuse_forbidden(reason: str | None, error: DBAPIError) -> None:
    if reason is not None:
        raise RebuildError(
            f"the database's user may not do what a rebuild does: {reason}. It needs the rights of migrations: to own "
            "the table, to CREATE in its schema, and TEMPORARY tables"
        ) from error


def _try_lock(connection: Connection, schema: str | None) -> bool:
    return dialect_of(connection).try_migration_lock(connection, joined=True, schema=schema)
