"""The tables of the advanced stores, as SQLAlchemy knows them."""

from __future__ import annotations

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import UTCDateTime
from cqrs_ddd_persistence_sqlalchemy.core.models import ID_LENGTH, Base


def positions_table(name: str, metadata: sa.MetaData) -> sa.Table:
    """Return a table of projection positions, the library's own or an application's with another name."""
    return sa.Table(
        name,
        metadata,
        sa.Column("projection_name", sa.String(ID_LENGTH), primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
    )


projection_positions = positions_table("projection_positions", Base.metadata)
