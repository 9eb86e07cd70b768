"""Events: streams of versions, one order of positions, nothing changed once written.

Revision ID: cqrs_0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "cqrs_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("event_id", sa.String(255), nullable=False),
        sa.Column("aggregate_id", sa.String(255), nullable=False),
        sa.Column("aggregate_type", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("payload", json, nullable=False),
        sa.Column("metadata", json, nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("correlation_id", sa.String(255), nullable=True),
        sa.Column("causation_id", sa.String(255), nullable=True),
        sa.Column("schema_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("event_id", name=op.f("uq_events_event_id")),
        sa.UniqueConstraint("aggregate_id", "version", name=op.f("uq_events_aggregate_id_version")),
        sqlite_autoincrement=True,
    )
    if op.get_context().dialect.name == "postgresql":
        _protect_on_postgresql()
    else:
        _protect_on_sqlite()


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP TRIGGER events_are_immutable ON events")
    op.drop_table("events")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION cqrs_ddd_refuse_event_change()")


def _protect_on_postgresql() -> None:
    # The setting is one of the transaction: SQLAlchemyEventStore.allow_changes makes it, and nothing else needs to.
    op.execute(
        """
        CREATE FUNCTION cqrs_ddd_refuse_event_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('cqrs_ddd.unlock_events', true) = 'on' THEN
                RETURN NULL;
            END IF;
            RAISE EXCEPTION 'events are immutable: % is refused', TG_OP
                USING ERRCODE = 'restrict_violation',
                      HINT = 'For retention and erasure use SQLAlchemyEventStore.allow_changes().';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER events_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION cqrs_ddd_refuse_event_change()
        """
    )


def _protect_on_sqlite() -> None:
    for operation in ("UPDATE", "DELETE"):
        op.execute(
            f"""
            CREATE TRIGGER events_refuse_{operation.lower()} BEFORE {operation} ON events
            BEGIN
                SELECT RAISE(ABORT, 'events are immutable: {operation} is refused');
            END
            """
        )
    # INSERT OR REPLACE deletes the row in its way without firing delete triggers.
    op.execute(
        """
        CREATE TRIGGER events_refuse_replace BEFORE INSERT ON events
        WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position)
            OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id)
            OR EXISTS (SELECT 1 FROM events WHERE aggregate_id = NEW.aggregate_id AND version = NEW.version)
        BEGIN
            SELECT RAISE(ABORT, 'events are immutable: this position, event_id or version is taken');
        END
        """
    )
