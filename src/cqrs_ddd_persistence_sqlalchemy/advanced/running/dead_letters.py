"""Events that a projection went on without: kept until somebody has them replayed, or discards them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa

from cqrs_ddd_advanced_core.error_text import shortened
from cqrs_ddd_persistence_sqlalchemy.advanced.models import projection_dead_letters
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.table_store import TableStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

BEHIND = "behind another parked event of its stream"


@dataclass(frozen=True)
class DeadLetter:
    """A parked event.

    Attributes:
        event_position: of the event, which the event store has whole.
        error: what its handler raised, or that it waits behind another.
        failures: how often the handler has failed; 0 for one that waits.
        replay_requested: whether the runner is to try it again.
    """

    event_position: int
    event_id: str
    event_type: str
    aggregate_id: str
    error: str
    failures: int
    parked_at: datetime
    replay_requested: bool


class SQLAlchemyDeadLetterStore(TableStore):
    """The parked events of all projections.

    People list, replay and discard them; `has_any`, `streams`, `park` and `keep` are for the runner, which parks them.

    Args:
        session_factory: for operations without a unit of work.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the table.
    """

    _of: ClassVar[sa.Table] = projection_dead_letters

    @repeated
    async def parked(
        self,
        projection_name: str,
        *,
        limit: int = 100,
        requested: bool = False,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> list[DeadLetter]:
        """Return a projection's parked events by position; with `requested` those that are to be replayed."""
        table = self._table
        statement = sa.select(table).where(table.c.projection_name == projection_name)
        if requested:
            statement = statement.where(table.c.replay_requested_at.is_not(None))
        async with self._scope.read(uow) as connection:
            rows = (await connection.execute(statement.order_by(table.c.event_position).limit(limit))).mappings()
            return [_letter(row) for row in rows]

    @repeated
    async def request_replay(
        self, projection_name: str, positions: Sequence[int] | None = None, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> int:
        """Let the projection's runner try parked events again, in their order; return how many.

        Args:
            projection_name: of the projection.
            positions: of some; all without. Those before them in their streams are tried again, too.
            uow: joined when open.
        """
        table = self._table
        statement = sa.update(table).where(table.c.projection_name == projection_name)
        if positions is not None:
            chosen = table.alias()
            later = sa.select(sa.literal(1)).where(
                chosen.c.projection_name == projection_name,
                chosen.c.event_position.in_(list(positions)),
                chosen.c.aggregate_id == table.c.aggregate_id,
                chosen.c.event_position >= table.c.event_position,
            )
            statement = statement.where(later.exists())
        async with self._scope.write(uow) as connection:
            result = await connection.execute(statement.values(replay_requested_at=dialect_of(connection).now))
            return int(result.rowcount)

    @repeated
    async def discard(
        self, projection_name: str, positions: Sequence[int] | None = None, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> int:
        """Go on without parked events for good, some or all; return how many."""
        table = self._table
        statement = sa.delete(table).where(table.c.projection_name == projection_name)
        if positions is not None:
            statement = statement.where(table.c.event_position.in_(list(positions)))
        async with self._scope.write(uow) as connection:
            return int((await connection.execute(statement)).rowcount)

    async def has_any(self, projection_name: str) -> bool:
        """Tell whether a projection has parked events."""
        table = self._table
        statement = sa.select(sa.literal(1)).where(table.c.projection_name == projection_name).limit(1)
        async with self._scope.read(None) as connection:
            return await connection.scalar(statement) is not None

    async def streams(
        self, projection_name: str, aggregate_ids: Iterable[str], *, uow: SQLAlchemyUnitOfWork
    ) -> frozenset[str]:
        """Return which of these streams have parked events."""
        table = self._table
        statement = sa.select(table.c.aggregate_id).distinct()
        statement = statement.where(
            table.c.projection_name == projection_name, table.c.aggregate_id.in_(list(set(aggregate_ids)))
        )
        async with self._scope.read(uow) as connection:
            return frozenset((await connection.execute(statement)).scalars())

    async def park(
        self,
        projection_name: str,
        events: Sequence[StoredEvent],
        *,
        uow: SQLAlchemyUnitOfWork,
        error: str = BEHIND,
        failures: int = 0,
    ) -> None:
        """Park events that failed, or that wait behind one that did."""
        values = [
            {
                "projection_name": projection_name,
                "event_position": event.position,
                "event_id": event.event_id,
                "event_type": event.event_type,
                "aggregate_id": event.aggregate_id,
                "error": shortened(error),
                "failures": failures,
            }
            for event in events
        ]
        if not values:
            return
        async with self._scope.write(uow) as connection:
            await connection.execute(sa.insert(self._table).values(parked_at=dialect_of(connection).now), values)

    async def keep(self, projection_name: str, letter: DeadLetter, error: str, *, uow: SQLAlchemyUnitOfWork) -> None:
        """Note that a replay has failed: the whole stream goes on waiting until somebody asks again."""
        table = self._table
        failed = table.c.event_position == letter.event_position
        statement = (
            sa.update(table)
            .where(table.c.projection_name == projection_name, table.c.aggregate_id == letter.aggregate_id)
            .values(
                replay_requested_at=None,
                error=sa.case((failed, shortened(error)), else_=table.c.error),
                failures=sa.case((failed, table.c.failures + 1), else_=table.c.failures),
            )
        )
        async with self._scope.write(uow) as connection:
            await connection.execute(statement)


def _letter(row: Any) -> DeadLetter:
    fields = {name: value for name, value in row.items() if name not in {"projection_name", "replay_requested_at"}}
    return DeadLetter(**fields, replay_requested=row["replay_requested_at"] is not None)
