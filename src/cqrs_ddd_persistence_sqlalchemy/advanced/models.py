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

#: One row a projection that a runner has worked on: who runs it, until when, and what stands in its way.
projection_runs = sa.Table(
    "projection_runs",
    Base.metadata,
    sa.Column("projection_name", sa.String(ID_LENGTH), primary_key=True),
    # Counts the owners: what an earlier one writes later is refused.
    sa.Column("token", sa.BigInteger(), nullable=False),
    sa.Column("owner", sa.String(ID_LENGTH)),
    sa.Column("lease_until", UTCDateTime()),
    sa.Column("paused_at", UTCDateTime()),
    # The last failure, at this position so many times in a row.
    sa.Column("error", sa.Text()),
    sa.Column("error_position", sa.BigInteger()),
    sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
    # What a rebuild is made from, which goes on only with the same.
    sa.Column("source_fingerprint", sa.String(64)),
)

#: The events that a projection could not handle and went on without, and those behind them in the same streams.
projection_dead_letters = sa.Table(
    "projection_dead_letters",
    Base.metadata,
    sa.Column("projection_name", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("event_position", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("event_id", sa.String(ID_LENGTH), nullable=False),
    sa.Column("event_type", sa.String(ID_LENGTH), nullable=False),
    sa.Column("aggregate_id", sa.String(ID_LENGTH), nullable=False),
    sa.Column("error", sa.Text(), nullable=False),
    sa.Column("failures", sa.Integer(), nullable=False),
    sa.Column("parked_at", UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
    sa.Column("replay_requested_at", UTCDateTime()),
    sa.Index("ix_projection_dead_letters_stream", "projection_name", "aggregate_id", "event_position"),
)
