"""What a table looks like in a database, in the database's own words: compared with another there, never parsed."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import Connection, Inspector

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema


@dataclass(frozen=True)
class ColumnShape:
    """A column: its type, whether it takes NULL, and its default as the catalogue spells it, None for none."""

    type: str
    nullable: bool
    default: str | None


class UniqueKey(NamedTuple):
    """A UNIQUE constraint."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class IndexShape:
    """An index over columns; `where` is the condition of a partial one as the catalogue spells it."""

    columns: tuple[str, ...]
    unique: bool
    descending: frozenset[str]
    where: str | None


@dataclass(frozen=True)
class TableShape:
    """A table.

    Attributes:
        columns: by name.
        key: the primary key's columns in the key's order.
        unique: the columns of the UNIQUE constraints by the constraint's name.
        indexes: by name; those that no ProjectionIndex describes (expressions, INCLUDE, other methods) are left out.
    """

    columns: Mapping[str, ColumnShape]
    key: tuple[str, ...]
    unique: Mapping[str, tuple[str, ...]]
    indexes: Mapping[str, IndexShape]


def table_shape(connection: Connection, name: str, schema: str | None = None) -> TableShape | None:
    """Return what a table looks like, or None where there is none of that name in the schema of the connection."""
    inspector = sa.inspect(connection)
    if schema is None and not inspector.has_table(name):
        return None
    with warnings.catch_warnings():
        # Types and indexes that SQLAlchemy cannot describe are nobody's but the application's.
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        columns = {each["name"]: _column(each, connection) for each in inspector.get_columns(name, schema=schema)}
        unique = {
            str(each["name"]): tuple(each["column_names"]) for each in inspector.get_unique_constraints(name, schema)
        }
        key = tuple(inspector.get_pk_constraint(name, schema=schema)["constrained_columns"])
        return TableShape(columns, key, unique, dict(_indexes(inspector, connection, name, schema)))


def wanted_shape(connection: Connection, schema: ProjectionSchema) -> TableShape:
    """Return what the schema's table looks like in this database, by creating and dropping a temporary one."""
    catalogue = dialect_of(connection).catalogue
    table = build_table(schema, sa.MetaData(), db_schema=catalogue.temporary_schema)
    with _temporary(table, connection):
        shape = table_shape(connection, schema.collection, catalogue.name_of_temporary_schema(connection))
    assert shape is not None  # noqa: S101  (it was made a moment ago)
    return shape


@contextmanager
def _temporary(table: sa.Table, connection: Connection) -> Iterator[None]:
    table.create(connection, checkfirst=False)
    yield
    table.drop(connection, checkfirst=False)  # after an error, a rollback does it


def _column(found: Mapping[str, Any], connection: Connection) -> ColumnShape:
    try:
        type_ = found["type"].compile(dialect=connection.dialect)
    except sa.exc.CompileError:
        type_ = "of a type that SQLAlchemy does not know"
    return ColumnShape(type_, found["nullable"], found["default"])


def _indexes(
    inspector: Inspector, connection: Connection, table: str, schema: str | None
) -> Iterator[tuple[str, IndexShape]]:
    catalogue = dialect_of(connection).catalogue
    try:
        indexes = inspector.get_indexes(table, schema=schema)
    except sa.exc.NoSuchTableError:  # what SQLAlchemy says of a temporary table on SQLite that has none
        indexes = []
    for found in indexes:
        given = found.get("dialect_options", {}).items()
        options = {key.partition("_")[2]: str(value) for key, value in given if str(value) not in {"", "[]", "None"}}
        beyond = found.get("expressions") or None in found["column_names"] or set(options) - {"where"}
        if beyond or found.get("duplicates_constraint"):
            continue
        yield (
            str(found["name"]),
            IndexShape(
                tuple(str(name) for name in found["column_names"]),
                bool(found["unique"]),
                catalogue.descending(connection, found, schema),
                options.get("where"),
            ),
        )
