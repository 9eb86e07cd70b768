"""Projection positions: how far each projection has come in the event stream.

Revision ID: cqrs_0002
Revises: cqrs_0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "cqrs_0002"
down_revision = "cqrs_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projection_positions",
        sa.Column("projection_name", sa.String(255), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("projection_name", name=op.f("pk_projection_positions")),
    )


def downgrade() -> None:
    op.drop_table("projection_positions")
