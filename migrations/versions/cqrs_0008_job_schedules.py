"""Schedules of periodic jobs: up to which tick they have been enqueued.

Revision ID: cqrs_0008
Revises: cqrs_0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "cqrs_0008"
down_revision = "cqrs_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_schedules",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("last_tick_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_schedules")),
    )


def downgrade() -> None:
    op.drop_table("job_schedules")
