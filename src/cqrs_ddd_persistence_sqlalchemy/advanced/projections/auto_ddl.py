"""The development helper: the only code in this package that creates tables at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema


async def create_collection(connection: AsyncConnection, schema: ProjectionSchema, *, db_schema: str | None) -> None:
    """Create the table that the schema's revision would create, unless it is there."""
    table = build_table(schema, sa.MetaData(), db_schema=db_schema)
    await connection.run_sync(table.create, checkfirst=True)
