"""What was in the way of a batch of events, told after the statement that writes has found that something was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.append_plan import AppendPlan


async def raise_conflict(connection: AsyncConnection, table: sa.Table, plan: AppendPlan) -> None:
    """Name what was in the way, or return when that was another's append that has ended: then try again."""
    versions = sa.select(table.c.aggregate_id, sa.func.max(table.c.version)).group_by(table.c.aggregate_id)
    for ids in _chunks(list(plan.streams)):
        rows = await connection.execute(versions.where(table.c.aggregate_id.in_(ids)))
        found = {row[0]: row[1] for row in rows}
        plan.check_versions({aggregate_id: found.get(aggregate_id, 0) for aggregate_id in ids})
    for ids in _chunks([event.event_id for event in plan.events]):
        repeated = await connection.scalar(sa.select(table.c.event_id).where(table.c.event_id.in_(ids)).limit(1))
        if repeated is not None:
            raise OptimisticConcurrencyError(
                "event",
                repeated,
                expected=None,
                actual=None,
                reason="an event with this event_id is stored already",
            )
    plan.check_positions()


def _chunks(values: list[str], size: int = 1000) -> Iterable[list[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
