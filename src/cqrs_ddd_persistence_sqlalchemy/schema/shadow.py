"""The table beside a projection's table in which a rebuild grows, and how the one takes the other's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, beside, dialect_of
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    CollectionNotFoundError,
    RebuildError,
    SchemaOutOfDateError,
)
from cqrs_ddd_persistence_sqlalchemy.schema.comparison import Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection


@dataclass(frozen=True)
class Shadow:
    """Both tables of a rebuild, on one database.

    Attributes:
        schema: of the projection.
    """

    schema: ProjectionSchema

    @property
    def name(self) -> str:
        """The shadow's name."""
        return beside(self.schema.collection)

    @property
    def own_schema(self) -> ProjectionSchema:
        """The projection's schema under the shadow's name, for those who write into it."""
        data = self.schema.to_dict()
        indexes = [{**index, "name": beside(index["name"])} for index in data["indexes"]]
        return ProjectionSchema.from_dict({**data, "collection": self.name, "indexes": indexes})

    def check(self, connection: Connection) -> None:
        """Make sure that replacing the projection's table would lose nothing.

        Raises:
            CollectionNotFoundError: there is no such table.
            SchemaOutOfDateError: it is not as the schema says.
            RebuildError: something is attached to it.
        """
        collection = self.schema.collection
        if not sa.inspect(connection).has_table(collection):
            raise CollectionNotFoundError(collection)
        differences = list(_differences(Comparison(connection, self.schema, None)))
        if differences:
            raise SchemaOutOfDateError(
                f"the table of {collection!r} is not as its schema says: {', '.join(differences)}. A rebuild puts a "
                "table made from the schema in its place; write the revision first (alembic revision --autogenerate) "
                "and run: alembic upgrade head"
            )
        attached = dialect_of(connection).attached(connection, self._table())
        if attached:
            raise RebuildError(
                f"the table of {collection!r} cannot be replaced, as these belong to it or depend on it: "
                f"{', '.join(attached)}. Drop them first, and create them again afterwards"
            )

    def exists(self, connection: Connection) -> bool:
        """Tell whether there is a table of the shadow's name."""
        return sa.inspect(connection).has_table(self.name)

    def create(self, connection: Connection) -> None:
        """Create the shadow."""
        self._shadow(connection).create(connection, checkfirst=False)

    def drop(self, connection: Connection) -> None:
        """Drop the shadow, if it is there."""
        self._shadow(connection).drop(connection, checkfirst=True)

    def analyze(self, connection: Connection) -> None:
        """Let the planner know the shadow before queries meet it."""
        dialect_of(connection).analyze(connection, self._shadow(connection))

    def lock(self, connection: Connection) -> None:
        """Let nobody but this transaction use the projection's table.

        Not readers either: a weaker lock would have to become this one in the end, while those who wait to write have
        read before and keep it from that.
        """
        dialect_of(connection).lock_table(connection, TableRef(self.schema.collection))

    def copy_settings(self, connection: Connection) -> None:
        """Give the shadow what the projection's table has and no schema says."""
        dialect_of(connection).copy_settings(connection, self._table(), self._shadow(connection))

    def take_place(self, connection: Connection) -> None:
        """Drop the projection's table and give its name to the shadow, in the transaction of the connection."""
        self.copy_settings(connection)
        dialect_of(connection).replace(connection, self._table(), self._shadow(connection))

    def _table(self) -> sa.Table:
        return build_table(self.schema, sa.MetaData())

    def _shadow(self, connection: Connection) -> sa.Table:
        return dialect_of(connection).shadow(self._table())


def _differences(comparison: Comparison) -> Iterator[str]:
    if comparison.key != comparison.wanted_key:
        yield "its key is another one"
    yield from (f"column {column.name} is missing" for column in comparison.added_columns())
    yield from (f"column {name} is not in the schema" for name in comparison.removed_names())
    yield from (f"column {change.new.name} is different" for change in comparison.changed_columns())
    unique = [*comparison.added_unique(), *comparison.removed_unique()]
    yield from (f"UNIQUE ({', '.join(each.columns)}) differs" for each in unique)
    indexes = {str(index.name) for index in [*comparison.added_indexes(), *comparison.removed_indexes()]}
    yield from (f"index {name} differs" for name in sorted(indexes))
