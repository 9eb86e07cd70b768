"""Sagas that are due: those at work, by when their lease or their pause ends.

Revision ID: cqrs_0005
Revises: cqrs_0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "cqrs_0005"
down_revision = "cqrs_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        op.f("ix_sagas_due"),
        "sagas",
        ["saga_type", "lease_until"],
        postgresql_where=sa.text("status IN ('RUNNING', 'COMPENSATING')"),
        sqlite_where=sa.text("status IN ('RUNNING', 'COMPENSATING')"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_sagas_due"), table_name="sagas")
