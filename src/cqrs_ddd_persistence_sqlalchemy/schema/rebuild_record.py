"""What the database remembers of a rebuild under way: a row of `projection_runs`, beside that of the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.models import projection_runs
from cqrs_ddd_persistence_sqlalchemy.advanced.running.leases import NO_FAILURE, UNLEASED

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class RebuildRecord:
    """The row, which a connection finds in the schema that it works in.

    Attributes:
        name: under which the rebuild runs.
    """

    name: str

    async def fingerprint(self, connection: AsyncConnection) -> str | None:
        """Return what the rebuild is made from; None where there is none."""
        found = sa.select(projection_runs.c.source_fingerprint).where(_is(self.name))
        return await connection.scalar(found)

    async def write(self, connection: AsyncConnection, fingerprint: str) -> None:
        """Record what it is made from."""
        recorded = sa.update(projection_runs).where(_is(self.name)).values(source_fingerprint=fingerprint)
        await connection.execute(recorded)

    async def resume(self, connection: AsyncConnection) -> None:
        """Let a rebuild go on that has paused at an event."""
        await connection.execute(sa.update(projection_runs).where(_is(self.name)).values(paused_at=None))

    async def forget(self, connection: AsyncConnection) -> None:
        """Delete the row."""
        await connection.execute(sa.delete(projection_runs).where(_is(self.name)))

    async def fence_runner(self, connection: AsyncConnection, live_name: str) -> None:
        """Let the projection's runner begin anew at the position that this transaction saves; resume a paused one."""
        values = {"token": projection_runs.c.token + 1, "paused_at": None, **UNLEASED, **NO_FAILURE}
        await connection.execute(sa.update(projection_runs).where(_is(live_name)).values(values))


def _is(name: str) -> sa.ColumnElement[bool]:
    return projection_runs.c.projection_name == name
