"""Rows of an application's own, for tests that need to see whether a write was kept, and no store."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NOTES = sa.table("projection_positions", sa.column("projection_name"), sa.column("position"))


class Base(DeclarativeBase):
    pass


class Note(Base):
    """An application's own ORM class; it borrows a table that is in every migrated database."""

    __tablename__ = "projection_positions"
    projection_name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]


def note(name):
    return sa.insert(NOTES).values(projection_name=name, position=1)


async def notes(engine):
    """Return what a bystander sees, who waits for nobody."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="DEFERRED")
        return list(await connection.scalars(sa.select(NOTES.c.projection_name).order_by(NOTES.c.projection_name)))
