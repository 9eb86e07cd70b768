"""What the store knows of one collection: its table, its key, and the types of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import BaseModel

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table, sql_type
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.values import to_column
from cqrs_ddd_persistence_sqlalchemy.core.dialect import identifier

if TYPE_CHECKING:
    from cqrs_ddd_advanced_core.projections.kinds import ColumnType
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableDescription

VERSION = "_version"
LAST_EVENT_ID = "_last_event_id"
LAST_EVENT_POSITION = "_last_event_position"


@dataclass(frozen=True, eq=False)
class Collection:
    """A collection's table as the store reads and writes it.

    Attributes:
        table: with the columns and the primary key, no more.
        key: the columns that identify a document.
        types: of the columns; None for a type outside the projection grammar.
        required: the columns that a new row must be given: NOT NULL without a default. A schema that is behind its
            table may lack some of them; then no new row can be written.
        not_null: the columns that never hold NULL.
        has_unique: whether rows may clash in other columns than the primary key's.
    """

    table: sa.Table
    key: tuple[str, ...]
    types: Mapping[str, ColumnType | None]
    required: frozenset[str]
    not_null: frozenset[str]
    has_unique: bool

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.table.name

    def key_values(self, doc_id: object, *, exact_digits: int | None) -> dict[str, Any]:
        """Return the values of the key's columns.

        Args:
            doc_id: a scalar, or a mapping for composite keys.
            exact_digits: as for `to_column`.

        Raises:
            ValueError: when it is of another shape, or a part is missing or does not fit.
        """
        if isinstance(doc_id, Mapping):
            given = {str(name): value for name, value in doc_id.items()}
        elif len(self.key) == 1:
            given = {self.key[0]: doc_id}
        else:
            raise ValueError(
                f"the key of {self.name!r} has the columns {', '.join(self.key)}: give doc_id as a dict of them"
            )
        if set(given) != set(self.key):
            raise ValueError(f"doc_id has {sorted(given)}, the key of {self.name!r} is {list(self.key)}")
        return {name: self._key_value(name, given[name], exact_digits) for name in self.key}

    def values(self, doc: Mapping[str, Any] | BaseModel, *, exact_digits: int | None) -> dict[str, Any]:
        """Return a document's values ready to be bound.

        Raises:
            UnknownColumnError: for a column that the table lacks.
            ValueError: for a value that the column cannot hold.
        """
        items = doc.model_dump(by_alias=True) if isinstance(doc, BaseModel) else doc
        if not isinstance(items, Mapping):
            raise ValueError(f"a document is a dict or a pydantic model, not {type(doc).__name__}")
        return {name: self._value(name, value, exact_digits) for name, value in items.items()}

    def column(self, name: object) -> sa.Column[Any]:
        """Return a column of the table.

        Raises:
            UnknownColumnError: when there is none of that name.
            ValueError: when no column can be called so.
        """
        if not isinstance(name, str) or name not in self.types:
            raise UnknownColumnError(check_identifier(name, kind="column"), self)
        return self.table.c[name]

    def _value(self, name: str, value: Any, exact_digits: int | None) -> Any:
        self.column(name)
        if value is None and name in self.not_null:
            raise ValueError(f"column {name!r} of {self.name!r} is NOT NULL, the document gives None")
        return to_column(name, self.types[name], value, exact_digits=exact_digits)

    def _key_value(self, name: str, value: Any, exact_digits: int | None) -> Any:
        if value is None:
            raise ValueError(f"column {name!r} is part of the key of {self.name!r} and cannot be None")
        return to_column(name, self.types[name], value, exact_digits=exact_digits)


class UnknownColumnError(ValueError):
    """A document, filter or sort names a column that the collection has not.

    Attributes:
        column: the name.
    """

    def __init__(self, name: object, collection: Collection) -> None:
        self.column = name
        super().__init__(
            f"collection {collection.name!r} has no column {name!r}; its columns: {', '.join(collection.types)}"
        )


def from_schema(schema: ProjectionSchema, *, db_schema: str | None, id_column: str | None) -> Collection:
    """Describe a collection by its schema."""
    table = build_table(schema, sa.MetaData(), db_schema=db_schema)
    unique: list[tuple[str, ...]] = [(column.name,) for column in schema.columns if column.unique]
    unique += [() if index.where else index.columns for index in schema.indexes if index.unique]
    return Collection(
        table=table,
        key=_key(schema.collection, id_column, schema.key, unique, [column.name for column in schema.columns]),
        types={column.name: column.type for column in schema.columns},
        required=frozenset(c.name for c in schema.columns if not c.nullable and c.default is None),
        not_null=frozenset(c.name for c in schema.columns if not c.nullable),
        has_unique=bool(unique),
    )


def from_description(
    name: str,
    description: TableDescription,
    *,
    db_schema: str | None,
    id_column: str | None,
    declared: Collection | None = None,
) -> Collection:
    """Describe a collection by what the database says of its table.

    Args:
        name: of the collection.
        description: of its table.
        db_schema: of its table.
        id_column: the column that identifies documents, where it is not the primary key.
        declared: what a schema says of it: the columns to go by, as far as they are there, and their types, as far as
            they are still the table's.
    """
    types: dict[str, ColumnType | None] = {}
    for column in description.columns:
        try:
            types[column["name"]] = parse_column(column["name"], column["type"]).type
        except SchemaError:
            types[column["name"]] = None
    primary = sorted((c for c in description.columns if c["primary_key"]), key=lambda c: c["primary_key"])
    key = tuple(column["name"] for column in primary)
    if declared is not None:
        types = {
            column: _declared_type(declared.types.get(column), found)
            for column, found in types.items()
            if column in declared.types or column in (*key, id_column)
        }
    columns = [
        sa.Column(
            identifier(name),
            sql_type(column_type) if column_type else sa.types.NullType(),
            autoincrement=False,
        )
        for name, column_type in types.items()
    ]
    return Collection(
        table=sa.Table(identifier(name), sa.MetaData(), *columns, schema=db_schema),
        key=_key(name, id_column, key, description.unique_keys, types),
        types=types,
        required=frozenset(c["name"] for c in description.columns if not c["nullable"] and not c["has_default"]),
        not_null=frozenset(c["name"] for c in description.columns if not c["nullable"]),
        has_unique=bool(description.unique_keys),
    )


def _declared_type(declared: ColumnType | None, found: ColumnType | None) -> ColumnType | None:
    """Return the type that a schema gives a column, unless the table's is another one by now."""
    return declared if declared is not None and declared.stored == found else found


def _key(name: str, id_column: str | None, primary: tuple[str, ...], unique: Any, columns: Any) -> tuple[str, ...]:
    """Return the columns that identify a document: the store's id column, or the primary key."""
    if id_column is None or (id_column,) == primary:
        if not primary:
            raise ValueError(f"table {name!r} has no primary key: name a unique column with default_id_column=")
        return primary
    if id_column not in columns:
        raise ValueError(f"collection {name!r} has no column {id_column!r} to identify documents by")
    if (id_column,) not in unique:
        raise ValueError(
            f"column {id_column!r} of {name!r} does not identify documents: it is neither the key nor unique"
        )
    return (id_column,)
