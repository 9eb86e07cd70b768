"""Which collections a store knows: from the schemas it was given, or read from the database once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import (
    Collection,
    from_description,
    from_schema,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, dialect_of
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema


class Catalogue:
    """Finds collections by name.

    Args:
        schemas: the collections that need not be read from the database.
        db_schema: the database schema of the tables.
        id_column: the column that identifies documents, where it is not the primary key.
    """

    def __init__(self, schemas: Iterable[ProjectionSchema], *, db_schema: str | None, id_column: str | None) -> None:
        self.db_schema = db_schema
        self.id_column = id_column
        self._declared = {
            schema.collection: from_schema(schema, db_schema=db_schema, id_column=id_column) for schema in schemas
        }
        self._read: dict[tuple[str, str | None], Collection] = {}

    async def find(self, connection: AsyncConnection, name: str, *, id_column: str | None = None) -> Collection:
        """Return a collection, read from the database if it is neither declared nor known.

        Raises:
            ValueError: when the name is no identifier.
            CollectionNotFoundError: when there is no such table.
        """
        check_identifier(name, kind="table")
        id_column = id_column or self.id_column
        declared = self._declared.get(name)
        if declared is not None and (id_column is None or declared.key == (id_column,)):
            return declared
        known = self._read.get((name, id_column))
        if known is not None:
            return known
        description = await dialect_of(connection).describe_table(connection, TableRef(name, self.db_schema))
        if description is None:
            raise CollectionNotFoundError(name)
        found = from_description(name, description, db_schema=self.db_schema, id_column=id_column)
        self._read[name, id_column] = found
        return found

    def forget(self, name: str) -> bool:
        """Drop what was read of a collection, after a sign that it has changed; False when nothing was read."""
        stale = [key for key in self._read if key[0] == name]
        for key in stale:
            del self._read[key]
        return bool(stale)
