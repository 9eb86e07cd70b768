"""A collection of orders, and its revisions as `alembic revision --autogenerate` writes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.schema import verify
from tests.support.command_line import declare, fail, generate, succeed

if TYPE_CHECKING:
    from tests.support.databases import Database

KEY = ("id", "TEXT PRIMARY KEY")


def orders(*fields: tuple[str, str], indexes: tuple = ()) -> ProjectionSchema:
    """Return a schema of the collection 'orders' with these columns beside its key."""
    return ProjectionSchema("orders", [KEY, *fields], indexes)


def migrate(app, database: Database, message: str, *schemas: ProjectionSchema) -> str:
    """Write the revisions for the schemas, apply them, and return their text."""
    text = "".join(path.read_text() for path in generate(app, database, message, *schemas))
    succeed("upgrade", "head", cwd=app, url=database.url)
    return text


def refused(app, database: Database, *schemas: ProjectionSchema) -> str:
    """Return why the revision for the schemas is refused; no file is left."""
    declare(app, *schemas)
    before = set((app / "versions").glob("*.py"))
    message = fail("revision", "--autogenerate", "-m", "refused", cwd=app, url=database.url)
    assert set((app / "versions").glob("*.py")) == before
    return message


def matches(database: Database, *schemas: ProjectionSchema) -> None:
    """Make sure that an application with these schemas would start."""

    async def check() -> None:
        engine = create_async_engine(database.url)
        await verify(engine, schemas=schemas)
        await engine.dispose()

    asyncio.run(check())
