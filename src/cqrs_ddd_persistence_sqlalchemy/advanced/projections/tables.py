"""ProjectionSchema -> sqlalchemy.Table. Pure: no database, no statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.schema import conv

from cqrs_ddd_advanced_core.identifiers import bounded_name
from cqrs_ddd_advanced_core.projections.kinds import ColumnType, Kind
from cqrs_ddd_persistence_sqlalchemy.core.dialect import (
    ExactDecimal,
    JSONDocument,
    PortableArray,
    UTCDateTime,
    identifier,
    portable_literal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.types import TypeEngine

    from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
    from cqrs_ddd_advanced_core.projections.indexes import ProjectionIndex
    from cqrs_ddd_advanced_core.projections.predicates import Condition
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

_TYPES: dict[Kind, Callable[[ColumnType], TypeEngine[Any]]] = {
    Kind.VARCHAR: lambda type_: sa.String(type_.length),
    Kind.TEXT: lambda _: sa.Text(),
    Kind.SMALLINT: lambda _: sa.SmallInteger(),
    Kind.INTEGER: lambda _: sa.Integer(),
    Kind.BIGINT: lambda _: sa.BigInteger(),
    Kind.DECIMAL: lambda type_: ExactDecimal(type_.precision or 0, type_.scale or 0),
    Kind.DOUBLE: lambda _: sa.Double(),
    Kind.BOOLEAN: lambda _: sa.Boolean(),
    Kind.DATE: lambda _: sa.Date(),
    Kind.TIME: lambda _: sa.Time(),
    Kind.TIMESTAMP: lambda _: UTCDateTime(),
    Kind.UUID: lambda _: sa.Uuid(),
    Kind.JSON: lambda _: JSONDocument,
    Kind.BYTEA: lambda _: sa.LargeBinary(),
}


def sql_type(column_type: ColumnType) -> TypeEngine[Any]:
    """Return the SQLAlchemy type that stores such values on both databases."""
    scalar = _TYPES[column_type.stored.kind](column_type)
    return PortableArray(scalar) if column_type.array else scalar


def build_table(schema: ProjectionSchema, metadata: sa.MetaData, *, db_schema: str | None = None) -> sa.Table:
    """Return the table of a projection with its key, constraints and indexes, all named.

    Args:
        schema: checked when it was made.
        metadata: to add the table to.
        db_schema: the database schema; the connection's default when omitted.
    """
    name = schema.collection
    columns = (_column(column, numbered=schema.key == (column.name,)) for column in schema.columns)
    table = sa.Table(identifier(name), metadata, *columns, schema=db_schema)
    table.append_constraint(sa.PrimaryKeyConstraint(*schema.key, name=_name("pk", name)))
    for column in schema.columns:
        if column.unique:
            table.append_constraint(sa.UniqueConstraint(column.name, name=_name("uq", name, column.name)))
    for index in schema.indexes:
        _add_index(table, index)
    return table


def _name(*parts: str) -> Any:
    """Return a name that no naming convention is applied to again."""
    return conv(bounded_name(*parts))


def _column(spec: ColumnSpec, *, numbered: bool) -> sa.Column[Any]:
    """Return a column; `numbered` is one that SQLAlchemy would number by itself, though a document brings its key."""
    default: Any = None
    if spec.default is not None:
        if spec.default.kind == "current_timestamp":
            default = sa.text("CURRENT_TIMESTAMP")
        else:
            default = portable_literal(spec.default.value, array=spec.type.array)
    column: sa.Column[Any] = sa.Column(
        identifier(spec.name), sql_type(spec.type), nullable=spec.nullable, server_default=default
    )
    if numbered:
        column.autoincrement = False
    return column


def _add_index(table: sa.Table, index: ProjectionIndex) -> None:
    columns = [table.c[name].desc() if name in index.descending else table.c[name] for name in index.columns]
    where: dict[str, Any] = {
        f"{dialect}_where": sa.text(_predicate(index.where, dialect))
        for dialect in ("postgresql", "sqlite")
        if index.where
    }
    sa.Index(conv(index.name), *columns, unique=index.unique, **where)


def _predicate(conditions: Iterable[Condition], dialect: str) -> str:
    return " AND ".join(_condition(condition, dialect) for condition in conditions)


def _condition(condition: Condition, dialect: str) -> str:
    column = f'"{condition.column}"'
    if condition.value is None:
        return f"{column} IS {'NOT ' if condition.negated else ''}NULL"
    literal = portable_literal(condition.value).spelling(dialect).replace(":", r"\:")
    return f"{column} {'<>' if condition.negated else '='} {literal}"
