"""What the person on call sees of projections, and can do about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.models import (
    projection_dead_letters,
    projection_positions,
    projection_runs,
)
from cqrs_ddd_persistence_sqlalchemy.advanced.running.leases import NO_FAILURE, UNLEASED
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named, dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.models import events, in_schema
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.table_store import TableStore

if TYPE_CHECKING:
    from datetime import datetime

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


@dataclass(frozen=True)
class ProjectionStatus:
    """How a projection is.

    Attributes:
        position: of the last event that it has passed, 0 at the beginning.
        lag_events: how many positions the newest event is ahead: at most so many events are still to come.
        lag_seconds: how long ago the oldest event behind `position` was recorded, by the database's clock; 0.0 when
            there is none.
        state: "running" while somebody holds the lease, "paused", or "stopped".
        owner: who holds the lease, or None.
        error: the last failure since the position last advanced, at `error_position`, `failures` times in a row.
        parked: how many events are parked.
        updated_at: when the position was saved, None when it never was.
    """

    name: str
    position: int
    lag_events: int
    lag_seconds: float
    state: str
    owner: str | None
    error: str | None
    error_position: int | None
    failures: int
    parked: int
    updated_at: datetime | None


class SQLAlchemyProjectionControl(TableStore):
    """Shows how projections are, stops them and lets them go on.

    Args:
        session_factory: for operations without a unit of work.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the library's tables; the connection's default when omitted.
    """

    _of: ClassVar[sa.Table] = projection_runs

    @repeated
    async def status(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> list[ProjectionStatus]:
        """Return the projections that have a position or were run, by name."""
        async with self._scope.read(uow) as connection:
            rows = (await connection.execute(_status(self._table.schema, connection.dialect.name))).mappings()
            return [ProjectionStatus(**row) for row in rows]

    @repeated
    async def pause(self, projection_name: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Stop a projection: the batch under way is rolled back, if it has not committed. False when it was paused.

        Raises:
            ValueError: no runner has ever run a projection of that name.
        """
        return await self._change(projection_name, uow, pause=True)

    @repeated
    async def resume(self, projection_name: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Let a paused projection go on where it stopped, with all its attempts. False when it was not paused.

        Raises:
            ValueError: no runner has ever run a projection of that name.
        """
        return await self._change(projection_name, uow, pause=False)

    async def _change(self, name: str, uow: SQLAlchemyUnitOfWork | None, *, pause: bool) -> bool:
        table = self._table
        is_it = table.c.projection_name == name
        async with self._scope.write(uow) as connection:
            paused = table.c.paused_at
            statement = sa.update(table).where(is_it, paused.is_(None) if pause else paused.is_not(None))
            changes = {"paused_at": dialect_of(connection).now} if pause else {"paused_at": None, **NO_FAILURE}
            if (await connection.execute(statement.values({**UNLEASED, **changes}))).rowcount:
                return True
            if await connection.scalar(sa.select(sa.literal(1)).where(is_it)) is None:
                all_names = sa.select(table.c.projection_name).order_by(table.c.projection_name)
                names = (await connection.execute(all_names)).scalars().all()
                known = f"known are {', '.join(map(repr, names))}" if names else "none was run yet"
                raise ValueError(f"no runner has run a projection {name!r}; {known}")
            return False


@lru_cache(maxsize=1024)
def _status(schema: str | None, dialect_name: str) -> sa.Select[Any]:
    dialect = dialect_named(dialect_name)
    tables = (events, projection_positions, projection_runs, projection_dead_letters)
    log, positions, runs, letters = (in_schema(table, schema) for table in tables)
    names = sa.union(sa.select(positions.c.projection_name), sa.select(runs.c.projection_name)).subquery("names")
    name = names.c.projection_name
    position = sa.func.coalesce(positions.c.position, 0)
    newest = sa.select(sa.func.coalesce(sa.func.max(log.c.position), 0)).scalar_subquery()
    waits = sa.select(log.c.recorded_at).where(log.c.position > position).order_by(log.c.position).limit(1)
    lag = newest - position
    seconds = sa.func.coalesce(dialect.seconds_since(waits.correlate(positions).scalar_subquery()), 0.0)
    parked = sa.select(sa.func.count()).where(letters.c.projection_name == name).correlate(names).scalar_subquery()
    state = sa.case(
        (runs.c.paused_at.is_not(None), "paused"), (runs.c.lease_until > dialect.now, "running"), else_="stopped"
    )
    return (
        sa.select(
            name.label("name"),
            position.label("position"),
            sa.case((lag > 0, lag), else_=0).label("lag_events"),
            sa.case((seconds > 0, seconds), else_=0.0).label("lag_seconds"),
            state.label("state"),
            sa.case((runs.c.lease_until > dialect.now, runs.c.owner)).label("owner"),
            runs.c.error,
            runs.c.error_position,
            sa.func.coalesce(runs.c.failures, 0).label("failures"),
            parked.label("parked"),
            positions.c.updated_at,
        )
        .select_from(
            names.outerjoin(positions, positions.c.projection_name == name).outerjoin(
                runs, runs.c.projection_name == name
            )
        )
        .order_by(name)
    )
