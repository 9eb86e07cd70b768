"""Projection runs: who runs each projection and what stands in its way, and the events that were parked.

Revision ID: cqrs_0003
Revises: cqrs_0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "cqrs_0003"
down_revision = "cqrs_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projection_runs",
        sa.Column("projection_name", sa.String(255), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_position", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("source_fingerprint", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("projection_name", name=op.f("pk_projection_runs")),
    )
    op.create_table(
        "projection_dead_letters",
        sa.Column("projection_name", sa.String(255), nullable=False),
        sa.Column("event_position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("aggregate_id", sa.String(255), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column(
            "parked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("replay_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("projection_name", "event_position", name=op.f("pk_projection_dead_letters")),
    )
    op.create_index(
        op.f("ix_projection_dead_letters_stream"),
        "projection_dead_letters",
        ["projection_name", "aggregate_id", "event_position"],
    )


def downgrade() -> None:
    op.drop_table("projection_dead_letters")
    op.drop_table("projection_runs")
