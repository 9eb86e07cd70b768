"""Rebuild: a projection made anew from all events beside the one that is in use, which it then replaces at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.storable import ID_LENGTH
from cqrs_ddd_persistence_sqlalchemy.advanced.positions import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.store import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.running.applying import Applier, EventFailedError
from cqrs_ddd_persistence_sqlalchemy.advanced.running.dead_letters import SQLAlchemyDeadLetterStore
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import is_passing
from cqrs_ddd_persistence_sqlalchemy.advanced.running.runner import REBUILD_SUFFIX, ProjectionRunner
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.event_store import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    CollectionNotFoundError,
    PersistenceError,
    ProjectionPausedError,
    RebuildError,
)
from cqrs_ddd_persistence_sqlalchemy.schema.exclusive import NotYetError, Patience, exclusively
from cqrs_ddd_persistence_sqlalchemy.schema.locking import POLL_SECONDS
from cqrs_ddd_persistence_sqlalchemy.schema.rebuild_record import RebuildRecord
from cqrs_ddd_persistence_sqlalchemy.schema.shadow import Shadow
from cqrs_ddd_persistence_sqlalchemy.schema.tenant_schemas import enter_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.projection import Projection
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.schema.exclusive import Work

T = TypeVar("T")

_LEASE = timedelta(seconds=10)
DEFAULT_PATIENCE = Patience()


async def rebuild(
    projection: Projection,
    session_factory: SessionFactory,
    *,
    positions: SQLAlchemyProjectionPositionStore | None = None,
    restart: bool = False,
    batch_size: int = 1000,
    progress: Callable[[int, int], object] | None = None,
    patience: Patience = DEFAULT_PATIENCE,
    schema: str | None = None,
) -> int:
    """Make a projection's table anew from all events, without anybody seeing it unfinished.

    The handlers fill a table beside the projection's, with `event.replay` True, while that one stays in use and up to
    date. Once the new one has caught up, it takes the old one's name, in one transaction with the position; runners go
    on from there. Parked events are forgotten, since the new table has them all; a paused projection is resumed.

    Run again after an interruption it goes on where it was, unless the schema or the source files of the handlers have
    changed.

    Args:
        projection: with the handlers of this release; its table must be as its schema says.
        session_factory: of the database, with the rights of migrations.
        positions: where the projection's position is kept; `projection_positions` unless given.
        restart: begin anew in any case.
        batch_size: events a transaction, at most.
        progress: called with the position reached and the one to reach, at the beginning and after each batch.
        patience: with migrations and users of the table.
        schema: of all tables, events included; the connection's default one unless given.

    Returns:
        The position up to which the new table goes.

    Raises:
        CollectionNotFoundError, SchemaOutOfDateError: the table is missing, or not as the schema says.
        RebuildError: views, foreign keys or others depend on the table, another rebuild is under way, or a handler has
            failed.
    """
    work = _Rebuild(projection, session_factory, positions, patience, batch_size, schema)
    return await work.run(restart=restart, progress=progress)


async def abandon_rebuild(
    projection: Projection,
    session_factory: SessionFactory,
    *,
    positions: SQLAlchemyProjectionPositionStore | None = None,
    patience: Patience = DEFAULT_PATIENCE,
    schema: str | None = None,
) -> bool:
    """Drop what an interrupted rebuild has left; False when there was nothing.

    Raises:
        RebuildError: the rebuild is under way.
    """
    return await _Rebuild(projection, session_factory, positions, patience, 1, schema).abandon()


class _Rebuild:
    def __init__(
        self,
        projection: Projection,
        session_factory: SessionFactory,
        positions: SQLAlchemyProjectionPositionStore | None,
        patience: Patience,
        batch_size: int,
        schema: str | None,
    ) -> None:
        self._schema = check_schema(schema)
        self._session_factory = session_factory
        self._patience = patience
        self._shadow = Shadow(projection.schema)
        self._live = projection
        self._built = projection.renamed(_name(projection.name), self._shadow.own_schema)
        self._record = RebuildRecord(self._built.name)
        self._events = SQLAlchemyEventStore(session_factory, schema=schema)
        self._positions = positions or SQLAlchemyProjectionPositionStore(session_factory, schema=schema)
        self._letters = SQLAlchemyDeadLetterStore(session_factory, schema=schema)
        self._runner = ProjectionRunner(
            self._events,
            self._built,
            self._uow,
            positions=self._positions,
            batch_size=batch_size,
            max_attempts=1,
            replay=True,
            lease=_LEASE,
            schema=schema,
        )
        self._batch_size = batch_size

    async def run(self, *, restart: bool, progress: Callable[[int, int], object] | None) -> int:
        await self._exclusively(lambda uow, connection: self._prepare(uow, connection, restart=restart))
        await self._catch_up(progress)
        await self._analyze()
        while True:
            await self._catch_up(progress)
            position = await self._exclusively(self._swap)
            if position is not None:
                return position

    async def abandon(self) -> bool:
        async def work(uow: SQLAlchemyUnitOfWork, connection: AsyncConnection) -> bool:
            await self._take_lease(uow, connection)
            known = await self._record.fingerprint(connection) is not None
            if known:
                await self._clear(uow, connection)
            await self._record.forget(connection)
            return known

        return await self._exclusively(work)

    async def _catch_up(self, progress: Callable[[int, int], object] | None) -> None:
        """Let the runner apply what there is; wait out deadlocks and a server that restarts, as run() would."""
        retries = self._patience.lock_retries
        while True:
            try:
                await self._runner.catch_up(progress)
            except ProjectionPausedError as failure:
                raise RebuildError(
                    f"a handler of projection {self._live.name!r} failed at event {failure.position}: {failure.error}. "
                    "Readers have the table as it was; mend the handler and run the rebuild again (--abandon drops "
                    "what it has left)"
                ) from failure
            except CollectionNotFoundError as error:
                if error.collection != self._shadow.name:
                    raise
                await self._exclusively(lambda _uow, connection: self._record.forget(connection))
                raise RebuildError(f"another process has ended the rebuild of {self._live.name!r} meanwhile") from error
            except PersistenceError:
                raise  # a table that is missing is not waited for
            except Exception as error:
                if not retries or not is_passing(error):
                    raise
                retries -= 1
                await asyncio.sleep(POLL_SECONDS)
            else:
                return

    async def _prepare(self, uow: SQLAlchemyUnitOfWork, connection: AsyncConnection, *, restart: bool) -> None:
        """Create the shadow, or find the one that an earlier run of the same rebuild has begun."""
        await connection.run_sync(self._shadow.check)
        fingerprint, found = self._live.source_fingerprint, await self._record.fingerprint(connection)
        await self._take_lease(uow, connection)
        exists = await connection.run_sync(self._shadow.exists)
        if exists and found is None:
            raise RebuildError(
                f"the rebuild needs the name {self._shadow.name!r} for its table, and there is a table of that name "
                "that no rebuild has made"
            )
        if exists and found == fingerprint and not restart:
            return
        await self._clear(uow, connection)
        await connection.run_sync(self._shadow.create)
        await connection.run_sync(self._shadow.copy_settings)  # to learn at the beginning that something is forbidden
        await self._record.write(connection, fingerprint)

    async def _swap(self, uow: SQLAlchemyUnitOfWork, connection: AsyncConnection) -> int | None:
        """Catch up for the last time while the projection's table is locked, and put the shadow in its place.

        Returns:
            The position reached; None where the runner has to go first, since so much has come that readers would wait
            too long, or the events cannot be applied all at once.
        """
        await connection.run_sync(self._shadow.check)
        await self._take_lease(uow, connection)
        if await self._record.fingerprint(connection) != self._live.source_fingerprint:
            raise RebuildError(f"another process has taken over the rebuild of {self._live.name!r}")
        await connection.run_sync(self._shadow.lock)
        await self._record.fence_runner(connection, self._live.name)
        position = await self._positions.get_position(self._built.name, uow=uow) or 0
        target = await self._events.last_position(uow=uow)
        if target - position > self._batch_size:
            await uow.rollback()
            return None
        applier = Applier(self._built, self._store(), replay=True)
        while position < target:
            page = await self._events.get_events_after(
                position,
                limit=self._batch_size,
                event_types=self._built.event_types,
                aggregate_types=self._built.aggregate_types,
                uow=uow,
            )
            try:
                await applier.apply(page, uow)
            except EventFailedError as error:
                # The runner takes the page apart, and knows whether an event is to blame.
                dialect, cause = dialect_of(connection), error.cause
                await uow.rollback()
                if isinstance(cause, DBAPIError) and (dialect.is_lock_timeout(cause) or dialect.is_deadlock(cause)):
                    raise cause from None  # exclusively() tries again
                return None
            # A page may go beyond the target: what it holds is applied, whenever it was committed.
            last = page[-1].position or 0 if page else 0
            position = last if len(page) == self._batch_size else max(target, last)
        await self._letters.discard(self._live.name, uow=uow)
        await connection.run_sync(self._shadow.take_place)
        if position:
            await self._positions.save_position(self._live.name, position, uow=uow)
        await self._record.forget(connection)
        await self._positions.reset_position(self._built.name, uow=uow)
        return position

    async def _analyze(self) -> None:
        async with self._uow() as uow:
            connection = await uow.session.connection()
            await connection.run_sync(enter_schema, self._schema)
            await connection.run_sync(self._shadow.analyze)

    async def _take_lease(self, uow: SQLAlchemyUnitOfWork, connection: AsyncConnection) -> None:
        """Take the shadow's lease in this transaction: of two rebuilds one goes on."""
        await self._record.resume(connection)
        if not await self._runner.take_lease(uow):
            reason = f"projection {self._live.name!r} is being rebuilt by another process"
            raise NotYetError(self._patience.rebuild_seconds, reason)

    async def _clear(self, uow: SQLAlchemyUnitOfWork, connection: AsyncConnection) -> None:
        await connection.run_sync(self._shadow.drop)
        await self._positions.reset_position(self._built.name, uow=uow)

    async def _exclusively(self, work: Work[T]) -> T:
        return await exclusively(self._session_factory, self._patience, work, schema=self._schema)

    def _store(self) -> SQLAlchemyProjectionStore:
        return SQLAlchemyProjectionStore(schemas=[self._built.schema], schema=self._schema)

    def _uow(self) -> SQLAlchemyUnitOfWork:
        return SQLAlchemyUnitOfWork(self._session_factory)


def _name(projection_name: str) -> str:
    return f"{projection_name[: ID_LENGTH - len(REBUILD_SUFFIX)]}{REBUILD_SUFFIX}"
