"""The library's tables as SQLAlchemy knows them. Alembic revisions create them; `alembic check` compares the two."""

from __future__ import annotations

from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

from cqrs_ddd_advanced_core import storable
from cqrs_ddd_persistence_sqlalchemy.core.dialect import BigIntegerKey, JSONDocument, UTCDateTime

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

ID_LENGTH = storable.ID_LENGTH


class Base(DeclarativeBase):
    """Root of the library's models; its metadata is what the library's revisions create."""

    metadata = sa.MetaData(naming_convention=NAMING_CONVENTION)


events = sa.Table(
    "events",
    Base.metadata,
    # Drawn from a sequence, or by AUTOINCREMENT, which alone keeps SQLite from reusing the position of a deleted row.
    sa.Column("position", BigIntegerKey, sa.Identity(), primary_key=True),
    sa.Column("event_id", sa.String(ID_LENGTH), nullable=False),
    sa.Column("aggregate_id", sa.String(ID_LENGTH), nullable=False),
    sa.Column("aggregate_type", sa.String(ID_LENGTH), nullable=False),
    sa.Column("event_type", sa.String(ID_LENGTH), nullable=False),
    sa.Column("version", sa.BigInteger(), nullable=False),
    sa.Column("payload", JSONDocument, nullable=False),
    sa.Column("metadata", JSONDocument, nullable=False),
    sa.Column("occurred_at", UTCDateTime(), nullable=False),
    sa.Column("recorded_at", UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
    sa.Column("correlation_id", sa.String(ID_LENGTH)),
    sa.Column("causation_id", sa.String(ID_LENGTH)),
    sa.Column("schema_version", sa.Integer(), nullable=False, server_default=sa.text("1")),
    sa.UniqueConstraint("event_id"),
    sa.UniqueConstraint("aggregate_id", "version"),
    sqlite_autoincrement=True,
)


@lru_cache(maxsize=1024)
def in_schema(table: sa.Table, schema: str | None) -> sa.Table:
    """Return the table as it stands in another schema, the same object each time, so that statements stay cached."""
    return table if schema is None else table.to_metadata(sa.MetaData(), schema=schema)
