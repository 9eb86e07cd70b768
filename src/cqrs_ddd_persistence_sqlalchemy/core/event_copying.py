"""Large batches of events, copied into the table where the database can (docs/decisions/0024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.append_plan import COPIED
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_persistence_sqlalchemy.core.append_plan import AppendPlan


class CannotCopyError(Exception):
    """The database refuses to copy what it might insert; the transaction is spoilt up to the savepoint around it."""


def is_worth_copying(connection: AsyncConnection, plan: AppendPlan) -> bool:
    """Tell whether a batch is large enough. A claimed position is left to the statement that draws them."""
    dialect = dialect_of(connection)
    return len(plan.events) >= dialect.min_events_to_copy and not plan.claims_positions and dialect.can_copy(connection)


async def copied(connection: AsyncConnection, table: sa.Table, plan: AppendPlan) -> list[StoredEvent] | None:
    """Copy a batch in one piece and return its events as stored; None where something is in the way.

    Readers are held by then. What the versions are is read, for the rows to have them; whether they still are is
    decided by the table's UNIQUE constraints as the rows arrive.

    Raises:
        CannotCopyError: insert the batch instead.
    """
    dialect = dialect_of(connection)
    try:
        versions = await dialect.stream_versions(connection, table, list(plan.streams))
        if not plan.fits(versions):
            return None
        events, values = plan.to_copy(versions, await dialect.draw_positions(connection, table, len(plan.events)))
        await dialect.copy_events(connection, table, COPIED, values)
    except DBAPIError as error:
        if dialect.cannot_copy(error):
            raise CannotCopyError from error
        violated = dialect.violated_columns(error, table)
        if violated is None or violated[0] != "unique":
            raise
        return None
    return events
