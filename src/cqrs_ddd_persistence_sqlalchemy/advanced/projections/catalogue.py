"""Which collections a store knows: from the schemas it was given, or read from the database."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import (
    Collection,
    from_description,
    from_schema,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableDescription, TableRef, dialect_of
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

# Most changes of a table show at once, in an error or a refused value. A new column that only others write does not,
# nor does a decimal column with fewer places.
TRUSTED_FOR_SECONDS = 60


class _Entry(NamedTuple):
    description: TableDescription
    collection: Collection
    read_at: float


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
        self._left_behind: set[str] = set()
        self._read: dict[tuple[str, str | None], _Entry] = {}

    def known(self, name: str, *, id_column: str | None = None) -> Collection | None:
        """Return a collection that need not be read, or need not yet be read again."""
        name = check_identifier(name, kind="table")
        id_column = self.id_column if id_column is None else check_identifier(id_column, kind="column")
        declared = self._declared.get(name)
        if (
            declared is not None
            and name not in self._left_behind
            and (id_column is None or declared.key == (id_column,))
        ):
            return declared
        entry = self._read.get((name, id_column))
        fresh = entry is not None and time.monotonic() - entry.read_at < TRUSTED_FOR_SECONDS
        return entry.collection if entry is not None and fresh else None

    async def read(self, connection: AsyncConnection, name: str, *, id_column: str | None = None) -> Collection:
        """Read a collection from the database; the very same object as before when nothing has changed.

        Raises:
            CollectionNotFoundError: when there is no such table.
        """
        name = check_identifier(name, kind="table")
        id_column = self.id_column if id_column is None else check_identifier(id_column, kind="column")
        description = await dialect_of(connection).describe_table(connection, TableRef(name, self.db_schema))
        if description is None:
            raise CollectionNotFoundError(name, self.db_schema)
        before = self._read.get((name, id_column))
        if before is not None and before.description == description:
            found = before.collection
        else:
            found = from_description(
                name,
                description,
                db_schema=self.db_schema,
                id_column=id_column,
                declared=self._declared.get(name),
            )
        self._read[name, id_column] = _Entry(description, found, time.monotonic())
        return found

    def goes_by_schema(self, collection: Collection) -> bool:
        """Tell whether a schema says what there is to know of a collection."""
        return self._declared.get(collection.name) is collection

    def doubt(self, name: str) -> None:
        """Read a collection again before it is used next: its table is not as a schema or the last look had it."""
        if name in self._declared:
            self._left_behind.add(name)
        for key, entry in self._read.items():
            if key[0] == name:
                self._read[key] = entry._replace(read_at=-math.inf)
