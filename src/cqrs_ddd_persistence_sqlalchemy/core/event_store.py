"""The event store: streams that only grow, and a reader by position that misses nothing."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.append_plan import AppendPlan
from cqrs_ddd_persistence_sqlalchemy.core.channels import EVENTS_CHANNEL
from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS, dialect_of, execute_kept, qualified_name
from cqrs_ddd_persistence_sqlalchemy.core.event_conflicts import raise_conflict
from cqrs_ddd_persistence_sqlalchemy.core.event_copying import CannotCopyError, copied, is_worth_copying
from cqrs_ddd_persistence_sqlalchemy.core.event_objects import restored
from cqrs_ddd_persistence_sqlalchemy.core.event_statements import append_statement, read_after, select_events
from cqrs_ddd_persistence_sqlalchemy.core.models import events as events_table
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.table_store import TableStore
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_id
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError, UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

# Each further try takes another writer that was quicker. So many are not; something else is in the way.
_TRIES = 1000


class SQLAlchemyEventStore(TableStore):
    """Appends events to streams and reads them by stream or by position. Events are never changed.

    Positions number the events of the whole table, from 1. A transaction that has appended and is still open holds
    readers by position at the place where it began to append, so that they cannot pass an event that is committed
    late: append as late in a unit of work as you can.

    Args:
        session_factory: for operations without a unit of work.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the `events` table; the connection's default when omitted.
        notify: wake the runners of projections after each commit that appended, on PostgreSQL. One short transaction
            more, after the one that appended: NOTIFY inside would make all commits of the database wait for each other.
    """

    _of: ClassVar[sa.Table] = events_table

    def __init__(
        self,
        session_factory: SessionFactory | None = None,
        *,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        schema: str | None = None,
        notify: bool = False,
    ) -> None:
        super().__init__(session_factory, uow_factory=uow_factory, schema=schema)
        self._notify = notify
        self._copies = True

    async def append(
        self,
        events: Iterable[StoredEvent],
        *,
        expected_version: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> list[StoredEvent]:
        """Append events to the ends of their streams: all of them or none.

        Args:
            events: in order; each names its `aggregate_id`. A `version` or `position` that an event brings along is
                a claim: it must turn out to be the one assigned.
            expected_version: the version of the one stream appended to, 0 for a new one. Without it the events go to
                the end of the stream, whoever else appends to it.
            uow: joined when open.

        Returns:
            The events as they are stored, in the order given.

        Raises:
            OptimisticConcurrencyError: the stream is not at `expected_version` (or before an event's own `version`),
                or an `event_id` is stored already. Nothing is written and the transaction is usable.
            ValueError: naming what cannot be stored.
        """
        plan = AppendPlan(list(events), expected_version)
        if not plan.events:
            return []
        stored = await self._carry_out(plan, uow=uow)
        if self._notify:
            await self._scope.notify_after_commit(EVENTS_CHANNEL, uow)
        return stored

    @repeated
    async def get_events(
        self,
        aggregate_id: str,
        *,
        after_version: int = 0,
        limit: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> list[StoredEvent]:
        """Return a stream's events with versions above `after_version`, oldest first, all of them without a `limit`."""
        check_id("aggregate_id", aggregate_id)
        check_count("after_version", after_version)
        table = self._table
        statement = select_events(table).where(table.c.aggregate_id == aggregate_id, table.c.version > after_version)
        statement = statement.order_by(table.c.version)
        if limit is not None:
            statement = statement.limit(check_count("limit", limit))
        async with self._scope.read(uow) as connection:
            return restored((await connection.execute(statement)).all())

    @repeated
    async def get_events_after(
        self,
        position: int,
        *,
        limit: int = 1000,
        event_types: Collection[str] | None = None,
        aggregate_types: Collection[str] | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> list[StoredEvent]:
        """Return the events of all streams with positions above `position`, ordered by position.

        An event that is not in the result and not behind a `limit` is yet to come at a higher position: going on from
        the last position returned misses nothing. Needs READ COMMITTED and the primary server on PostgreSQL.

        Raises:
            PersistenceError: under another isolation level, or on a standby.
        """
        check_count("position", position)
        check_count("limit", limit)
        async with self._scope.read(uow) as connection:
            bound = await dialect_of(connection).readable_position(connection, self._table)
            statement = read_after(
                self._table,
                bounded=bound is not None,
                types=(event_types is not None, aggregate_types is not None),
            )
            parameters = {
                "after": position,
                "bound": bound,
                "limit": limit,
                "event_types": _names("event_types", event_types),
                "aggregate_types": _names("aggregate_types", aggregate_types),
            }
            wanted = {name: value for name, value in parameters.items() if value is not None}
            return restored((await execute_kept(connection, statement, wanted)).rows)

    async def stream_after(
        self,
        position: int,
        *,
        page_size: int = 1000,
        event_types: Collection[str] | None = None,
        aggregate_types: Collection[str] | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> AsyncIterator[StoredEvent]:
        """Iterate over the events above `position` up to the newest, reading `page_size` of them at a time."""
        if check_count("page_size", page_size) == 0:
            raise ValueError("page_size is 0: read at least one event at a time")
        while True:
            page = await self.get_events_after(
                position, limit=page_size, event_types=event_types, aggregate_types=aggregate_types, uow=uow
            )
            for event in page:
                yield event
            if len(page) < page_size:
                return
            position = page[-1].position or position

    @repeated
    async def last_position(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> int:
        """Return the position up to which readers by position can go at present, 0 when there is no event."""
        table = self._table
        async with self._scope.read(uow) as connection:
            bound = await dialect_of(connection).readable_position(connection, table)
            statement = sa.select(sa.func.coalesce(sa.func.max(table.c.position), 0))
            if bound is not None:
                statement = statement.where(table.c.position <= bound)
            return int(await connection.scalar(statement) or 0)

    @asynccontextmanager
    async def allow_changes(self, *, uow: SQLAlchemyUnitOfWork) -> AsyncIterator[None]:
        """Let this unit of work UPDATE and DELETE events inside the block, for retention and erasure of personal data.

        Other transactions stay refused. Rolling back the unit of work takes back changes and permission alike.

        Raises:
            UnitOfWorkError: when the unit of work is not open.
        """
        if not uow.is_open:
            raise UnitOfWorkError("changing events needs an open unit of work: use 'async with uow:' around it")
        async with self._scope.write(uow) as connection:
            dialect = dialect_of(connection)
            state = await dialect.unlock_events(connection, self._table)

        async def lock() -> None:
            async with self._scope.write(uow) as connection:
                await dialect.lock_events(connection, self._table, state)

        # A commit inside the block must not leave the events open to everybody.
        with uow.calling_before_commit(lock):
            try:
                yield
            finally:
                # After an error of the database the transaction can only be rolled back, which takes it all back.
                if uow.is_open and not uow.has_failed:
                    await lock()

    @repeated
    async def _carry_out(self, plan: AppendPlan, *, uow: SQLAlchemyUnitOfWork | None) -> list[StoredEvent]:
        alone = not (plan.claims_positions or self._scope.joins(uow))
        deadlocks = 0
        while True:
            try:
                # One event is one statement, which holds readers until it is committed (docs/decisions/0025).
                single = alone and len(plan.events) == 1
                async with self._scope.write(uow, single=single) as connection:
                    return await self._append(connection, plan, all_or_nothing=alone)
            except _RefusedError:
                alone = False  # the second time, what is in the way is named
            except DBAPIError as error:
                # Two batches that touch the same streams in opposite order: in a transaction of its own, try again.
                if error.connection_invalidated or self._scope.joins(uow) or not _is_deadlock(error):
                    raise
                deadlocks += 1
                # All who were in it at once would meet again.
                await asyncio.sleep(random.uniform(0, min(1.0, 0.01 * 2**deadlocks)))  # noqa: S311  (no secret)

    async def _append(
        self, connection: AsyncConnection, plan: AppendPlan, *, all_or_nothing: bool
    ) -> list[StoredEvent]:
        """Insert the batch; with `all_or_nothing`, the transaction sees to that and is lost where it is refused."""
        needs_savepoint = plan.needs_savepoint and not all_or_nothing
        for _ in range(_TRIES):
            copies = self._copies and is_worth_copying(connection, plan)
            if needs_savepoint or copies:
                await dialect_of(connection).hold_readers(connection, self._table)  # a savepoint's end would end it
            try:
                async with connection.begin_nested() if needs_savepoint else nullcontext() as savepoint:
                    stored = await (copied(connection, self._table, plan) if copies else self._insert(connection, plan))
                    if stored is None and savepoint is not None:
                        await savepoint.rollback()
            except CannotCopyError:
                self._copies, stored = False, None
            if stored is not None:
                return stored
            if all_or_nothing:
                raise _RefusedError
            await raise_conflict(connection, self._table, plan)
        raise PersistenceError(
            f"the database does not let {len(plan.events)} events be appended, and neither a version nor an event_id "
            "is in the way: look for a unique index or a trigger of your own on the table"
        )

    async def _insert(self, connection: AsyncConnection, plan: AppendPlan) -> list[StoredEvent] | None:
        """Hold readers and insert what nothing is in the way of, in one statement where that can be."""
        dialect, parameters = dialect_of(connection), {"batch": plan.batch(dialect_of(connection).json_time)}
        by_itself = len(plan.events) == 1 and is_alone(connection)
        holding = by_itself or dialect.holds_nothing(connection, self._table)
        if holding:
            parameters["events"] = qualified_name(connection, self._table)
        else:
            await dialect.hold_readers(connection, self._table)
        statement = append_statement(self._table, dialect.name, holding=holding)
        rows = (await execute_kept(connection, statement, parameters)).rows
        if holding and not by_itself:
            dialect.note_held(connection, self._table, certain=bool(rows))
        return plan.stored(rows)


class _RefusedError(Exception):
    """Something is in the way of a batch, in a transaction of its own: roll back and find out what."""


def _names(name: str, values: Collection[str] | None) -> list[str] | None:
    if isinstance(values, str):
        raise ValueError(f"{name} is the text {values!r}: give a list of names")
    return None if values is None else list(values)


def _is_deadlock(error: DBAPIError) -> bool:
    return any(dialect.is_deadlock(error) for dialect in DIALECTS.values())
