"""Background jobs: what is to be done, who does it until when, and how it ended.

Revision ID: cqrs_0007
Revises: cqrs_0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "cqrs_0007"
down_revision = "cqrs_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("job_type", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("unique_key", sa.String(255), nullable=True),
        sa.Column("correlation_id", sa.String(255), nullable=True),
        sa.Column("total_items", sa.BigInteger(), nullable=False),
        sa.Column("processed_items", sa.BigInteger(), nullable=False),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("state", json, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancellation_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker_id", sa.String(255), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    pending, running = sa.text("status = 'PENDING'"), sa.text("status = 'RUNNING'")
    over = sa.text("status IN ('CANCELLED', 'COMPLETED', 'FAILED')")
    live = sa.text("status IN ('PENDING', 'RUNNING')")
    order = [sa.text("priority DESC"), "due_at", "id"]
    op.create_index(
        op.f("ix_jobs_due"), "jobs", ["job_type", "status", *order], postgresql_where=pending, sqlite_where=pending
    )
    op.create_index(
        op.f("ix_jobs_due_in_queue"),
        "jobs",
        ["job_type", "status", "queue", *order],
        postgresql_where=pending,
        sqlite_where=pending,
    )
    op.create_index(
        op.f("ix_jobs_leases"),
        "jobs",
        ["job_type", "status", "lease_until", "id"],
        postgresql_where=running,
        sqlite_where=running,
    )
    op.create_index(op.f("ix_jobs_over"), "jobs", ["job_type", "updated_at"], postgresql_where=over, sqlite_where=over)
    op.create_index(op.f("ix_jobs_type_status_created_at"), "jobs", ["job_type", "status", "created_at", "id"])
    op.create_index(
        op.f("uq_jobs_live_unique_key"),
        "jobs",
        ["job_type", "unique_key"],
        unique=True,
        postgresql_where=live,
        sqlite_where=live,
    )


def downgrade() -> None:
    op.drop_table("jobs")
