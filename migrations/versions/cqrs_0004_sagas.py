"""Sagas: the state and the history of long-running processes.

Revision ID: cqrs_0004
Revises: cqrs_0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "cqrs_0004"
down_revision = "cqrs_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "sagas",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("saga_type", sa.String(255), nullable=False),
        sa.Column("correlation_id", sa.String(255), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("state", json, nullable=False),
        sa.Column("events", json, nullable=False),
        sa.Column("timeout_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sagas")),
        sa.UniqueConstraint("saga_type", "correlation_id", name=op.f("uq_sagas_saga_type_correlation_id")),
    )
    op.create_index(op.f("ix_sagas_type_status_updated_at"), "sagas", ["saga_type", "status", "updated_at"])
    op.create_index(
        op.f("ix_sagas_deadlines"),
        "sagas",
        ["saga_type", "timeout_at"],
        postgresql_where=sa.text("status = 'SUSPENDED' AND timeout_at IS NOT NULL"),
        sqlite_where=sa.text("status = 'SUSPENDED' AND timeout_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("sagas")
