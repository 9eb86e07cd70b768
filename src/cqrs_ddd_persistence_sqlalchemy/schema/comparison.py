"""What has to change for a table to become what its schema says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.schema import conv

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table, sql_type
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of, identifier
from cqrs_ddd_persistence_sqlalchemy.schema.inspection import TableShape, UniqueKey, table_shape, wanted_shape
from cqrs_ddd_persistence_sqlalchemy.schema.rendering import colons_escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.engine import Connection

    from cqrs_ddd_advanced_core.projections.kinds import ColumnType
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema


class PresentTable:
    """A table as it is, in words that both databases understand.

    Where the database has what a schema makes of it there, the schema says what that is: each database spells types,
    defaults and conditions its own way.

    Args:
        connection: to the database, which has the table.
        name: of the table.
        known: the schema that the revisions record, or the one that is wanted, as the best guess; None for no guess.
    """

    def __init__(self, connection: Connection, name: str, known: ProjectionSchema | None) -> None:
        shape = table_shape(connection, name)
        assert shape is not None  # noqa: S101  (the caller has looked)
        self.name = name
        self.shape: TableShape = shape
        self._known = known
        self._known_shape = TableShape({}, (), {}, {}) if known is None else wanted_shape(connection, known)
        self._known_table = None if known is None else build_table(known, sa.MetaData())
        self._dialect = dialect_of(connection)

    def column(self, name: str) -> sa.Column[Any]:
        """Return a column, attached to another table or to none."""
        found = self.shape.columns[name]
        if self._known_table is not None and self._known_shape.columns.get(name) == found:
            return self._known_table.c[name]
        type_ = self.type(name)
        if type_ is None:
            raise CommandError(
                f"column {name!r} of {self.name!r} is {found.type} in the database, a type that no projection has: "
                "change it by a revision written by hand"
            )
        default = None if found.default is None else _text(self._dialect.catalogue.portable_default(found.default))
        return sa.Column(identifier(name), sql_type(type_), nullable=found.nullable, server_default=default)

    def type(self, name: str) -> ColumnType | None:
        """Return a column's type, None for one that the grammar of projections has no word for."""
        found = self.shape.columns[name].type
        known = self._known_shape.columns.get(name)
        if self._known is not None and known is not None and known.type == found:
            return self._known.column(name).type
        try:
            return parse_column(name, self._dialect.catalogue.grammar_type(found)).type
        except SchemaError:
            return None

    def unique(self) -> list[UniqueKey]:
        """Return the UNIQUE constraints."""
        return [UniqueKey(name, columns) for name, columns in sorted(self.shape.unique.items())]

    def indexes(self) -> dict[str, sa.Index]:
        """Return the indexes by name."""
        known = {} if self._known_table is None else {str(index.name): index for index in self._known_table.indexes}
        found: dict[str, sa.Index] = {}
        for name, shape in sorted(self.shape.indexes.items()):
            if self._known_shape.indexes.get(name) == shape:
                found[name] = known[name]
                continue
            table = sa.Table(identifier(self.name), sa.MetaData(), *(sa.Column(identifier(c)) for c in shape.columns))
            parts = [table.c[each].desc() if each in shape.descending else table.c[each] for each in shape.columns]
            where = None if shape.where is None else _text(shape.where)
            wheres: dict[str, Any] = {} if where is None else {"postgresql_where": where, "sqlite_where": where}
            found[name] = sa.Index(conv(name), *parts, unique=shape.unique, **wheres)
        return found

    def table(self) -> sa.Table:
        """Return the table, without its indexes."""
        if self._known_table is not None and self.shape == self._known_shape:
            return self._known_table
        columns = [self._free(self.column(name)) for name in self.shape.columns]
        key = sa.PrimaryKeyConstraint(*self.shape.key, name=conv(f"pk_{self.name}"))
        unique = [sa.UniqueConstraint(*each.columns, name=conv(each.name)) for each in self.unique()]
        return sa.Table(identifier(self.name), sa.MetaData(), *columns, key, *unique)

    def _free(self, column: sa.Column[Any]) -> sa.Column[Any]:
        """Return an equal column that is part of no table."""
        default = None if column.server_default is None else column.server_default.arg  # type: ignore[attr-defined]
        free: sa.Column[Any] = sa.Column(column.name, column.type, nullable=column.nullable, server_default=default)
        if self.shape.key == (column.name,):
            free.autoincrement = False
        return free


@dataclass(frozen=True)
class ColumnChange:
    """A column that stays, and what is different about it.

    Attributes:
        old: the column as it is.
        new: as it shall be.
        old_type: in the words of the grammar, None where it has none for it.
        new_type: what the schema says.
        type: whether the type changes; `default` and `nullable` likewise.
    """

    old: sa.Column[Any]
    new: sa.Column[Any]
    old_type: ColumnType | None
    new_type: ColumnType
    type: bool
    default: bool
    nullable: bool


class Comparison:
    """A table beside the schema that it shall follow.

    Args:
        connection: to the database, which has the table.
        schema: what is wanted.
        recorded: what the revisions made of the table; None where they do not say.

    Attributes:
        present: the table as it is.
        wanted: the table as it shall be.
        key: the primary key as it is, and `wanted_key` as it shall be.
    """

    def __init__(self, connection: Connection, schema: ProjectionSchema, recorded: ProjectionSchema | None) -> None:
        self.present = PresentTable(connection, schema.collection, recorded or schema)
        self.wanted = build_table(schema, sa.MetaData())
        self.key = self.present.shape.key
        self.wanted_key = schema.key
        self._schema = schema
        self._shape = wanted_shape(connection, schema)

    def added_columns(self) -> list[sa.Column[Any]]:
        """Return the columns that are missing."""
        return [column for column in self.wanted.columns if column.name not in self.present.shape.columns]

    def removed_columns(self) -> list[sa.Column[Any]]:
        """Return the columns that the schema does not have."""
        return [self.present.column(name) for name in self.removed_names()]

    def changed_columns(self) -> Iterator[ColumnChange]:
        """Yield the columns that stay and become different."""
        for spec in self._schema.columns:
            found, wanted = self.present.shape.columns.get(spec.name), self._shape.columns[spec.name]
            if found is None:
                continue
            old_type = self.present.type(spec.name)
            type_ = found.type != wanted.type or (old_type is not None and old_type.stored != spec.type.stored)
            default, nullable = found.default != wanted.default, found.nullable != wanted.nullable
            if type_ or default or nullable:
                old, new = self.present.column(spec.name), self.wanted.c[spec.name]
                yield ColumnChange(old, new, old_type, spec.type, type_, default, nullable)

    def removed_unique(self) -> list[UniqueKey]:
        """Return the UNIQUE constraints that the schema does not have."""
        wanted = set(self._shape.unique.values())
        return [each for each in self.present.unique() if each.columns not in wanted]

    def added_unique(self) -> list[UniqueKey]:
        """Return the UNIQUE constraints that are missing."""
        found = set(self.present.shape.unique.values())
        wanted = [UniqueKey(name, columns) for name, columns in sorted(self._shape.unique.items())]
        return [each for each in wanted if each.columns not in found]

    def removed_indexes(self) -> list[sa.Index]:
        """Return the indexes that go before the columns change."""
        return [index for name, index in self.present.indexes().items() if self._goes(name)]

    def kept_indexes(self) -> list[sa.Index]:
        """Return the indexes, as they are, that stay meanwhile; different ones of their names may come afterwards."""
        return [index for name, index in self.present.indexes().items() if not self._goes(name)]

    def added_indexes(self) -> list[sa.Index]:
        """Return the indexes that are missing or different."""
        found = self.present.shape.indexes
        return _by_name(
            index for index in self.wanted.indexes if found.get(str(index.name)) != self._shape.indexes[str(index.name)]
        )

    def _goes(self, name: str) -> bool:
        """Tell whether the schema has no such index, or has another and the present one needs a column that goes."""
        if name not in self._shape.indexes:
            return True
        present = self.present.shape.indexes[name]
        needed = any(gone in present.columns or gone in (present.where or "") for gone in self.removed_names())
        return needed and present != self._shape.indexes[name]

    def removed_names(self) -> list[str]:
        """Return the names of the columns that the schema does not have."""
        return [name for name in self.present.shape.columns if name not in self._shape.columns]


def _text(sql: str) -> sa.TextClause:
    return sa.text(colons_escaped(sql))


def _by_name(named: Iterable[Any]) -> list[Any]:
    return sorted(named, key=lambda each: str(each.name))
