"""ProjectionIndex: an index as plain data, with a predicate that cannot carry SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.identifiers import RULE, bounded_name, check_identifier
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
from cqrs_ddd_advanced_core.projections.predicates import Condition, read_where, write_where

_MAX_COLUMNS = 32  # PostgreSQL's limit for one index


@dataclass(frozen=True, init=False)
class ProjectionIndex:
    """An index over columns of a projection.

    Attributes:
        columns: names in the index's order.
        unique: whether no two (matching) rows may agree in all columns.
        descending: those of the columns that are sorted from the highest down.
        where: conditions that all hold for the rows in the index, by column; empty for all rows.
        name: the index's name in the database; '' until a schema has derived one.
    """

    columns: tuple[str, ...]
    unique: bool
    descending: tuple[str, ...]
    where: tuple[Condition, ...]
    name: str

    def __init__(
        self,
        columns: str | Iterable[str],
        *,
        unique: bool = False,
        descending: str | Iterable[str] = (),
        where: Mapping[str, Any] | tuple[Condition, ...] | None = None,
        name: str | None = None,
    ) -> None:
        """Check what can be checked without the columns' types.

        Args:
            columns: one name, or several in the index's order.
            unique: refuse rows that agree in all columns.
            descending: which of the columns are sorted downwards.
            where: {column: value}, {column: None} for IS NULL, {column: {"$ne": value}} and
                {column: {"$ne": None}}; all must hold. Conditions of another index are taken too.
            name: derived from collection and columns when left out.

        Raises:
            SchemaError: no columns, a bad or repeated name, or a predicate of another shape.
        """
        names = _names(columns, "columns")
        if not 1 <= len(names) <= _MAX_COLUMNS:
            raise SchemaError(f"an index has 1 to {_MAX_COLUMNS} columns, not {len(names)}")
        downwards = _names(descending, "descending")
        try:
            if unknown := [column for column in downwards if column not in names]:
                raise SchemaError(f"descending names {unknown[0]!r}, which is not one of its columns")  # noqa: TRY301  the prefix is added below
            if not isinstance(unique, bool):
                raise SchemaError(f"unique is True or False, not {unique!r}")  # noqa: TRY301  the same
            conditions = read_where(where)
        except SchemaError as error:
            raise SchemaError(f"index on {names}: {error}") from None
        object.__setattr__(self, "columns", names)
        object.__setattr__(self, "unique", unique)
        object.__setattr__(self, "descending", tuple(column for column in names if column in downwards))
        object.__setattr__(self, "where", conditions)
        object.__setattr__(self, "name", "" if name is None or name == "" else _index_name(name))

    def to_dict(self) -> dict[str, Any]:
        """Return the index as data that JSON can hold."""
        return {
            "columns": list(self.columns),
            "unique": self.unique,
            "descending": list(self.descending),
            "where": write_where(self.where),
            "name": self.name or None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the index that `to_dict` described.

        Raises:
            SchemaError: a key is missing or unknown, or a value is refused.
        """
        if not isinstance(data, Mapping):
            raise SchemaError(f"an index is a mapping with columns and so on, not {data!r}")
        unknown = set(data) - {"columns", "unique", "descending", "where", "name"}
        if unknown or "columns" not in data:
            keys = sorted(map(str, data))
            raise SchemaError(f"an index has columns, and maybe unique, descending, where and name, not {keys}")
        return cls(**data)


def resolve_indexes(collection: str, columns: Sequence[ColumnSpec], indexes: object) -> tuple[ProjectionIndex, ...]:
    """Check indexes against their columns, name the nameless, bring predicates into the columns' types.

    Args:
        collection: the table's name, a part of derived names.
        columns: the table's columns.
        indexes: names, sequences of names, ProjectionIndex objects, or dicts from `ProjectionIndex.to_dict`.

    Raises:
        SchemaError: an unknown column, one that no index can hold, or an index or a name that is there twice.
    """
    if isinstance(indexes, str | Mapping | ProjectionIndex) or not isinstance(indexes, Iterable):
        raise SchemaError(f"indexes is a list of columns, tuples of them or ProjectionIndex, not {indexes!r}")
    by_name = {column.name: column for column in columns}
    resolved: list[ProjectionIndex] = []
    taken = {collection.lower(): "the table"}
    shapes: set[ProjectionIndex] = set()
    for given in indexes:
        index = _resolved(collection, by_name, _as_index(given))
        shape = replace(index, name="")
        if shape in shapes:
            raise SchemaError(f"index on {index.columns} is there twice")
        if other := taken.get(index.name.lower()):
            raise SchemaError(f"index on {index.columns} would be called {index.name!r} like {other}; pass name=...")
        taken[index.name.lower()] = f"the index on {index.columns}"
        shapes.add(shape)
        resolved.append(index)
    return tuple(resolved)


def _as_index(given: object) -> ProjectionIndex:
    if isinstance(given, ProjectionIndex):
        return given
    if isinstance(given, Mapping):
        return ProjectionIndex.from_dict(given)
    if isinstance(given, Iterable):
        return ProjectionIndex(given)
    raise SchemaError(f"an index is a column name, a tuple of them or a ProjectionIndex, not {given!r}")


def _resolved(collection: str, columns: Mapping[str, ColumnSpec], index: ProjectionIndex) -> ProjectionIndex:
    try:
        for name in (*index.columns, *(condition.column for condition in index.where)):
            if name not in columns:
                raise SchemaError(f"unknown column {name!r}; there are {', '.join(columns)}")  # noqa: TRY301  the prefix is added below
        for name in index.columns:
            _check_indexable(columns[name], unique=index.unique)
        where = tuple(condition.fitted(columns[condition.column]) for condition in index.where)
    except SchemaError as error:
        raise SchemaError(f"index on {index.columns}: {error}") from None
    return replace(
        index, where=where, name=index.name or bounded_name("ux" if index.unique else "ix", collection, *index.columns)
    )


def _check_indexable(column: ColumnSpec, *, unique: bool) -> None:
    if not column.type.indexable:
        raise SchemaError(f"column {column.name!r} is {column.type}, which cannot be indexed")
    if unique and column.type.inexact:
        raise SchemaError(f"column {column.name!r} is {column.type}, too inexact to be unique")


def _names(names: object, what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        names = (names,)
    if not isinstance(names, Iterable):
        raise SchemaError(f"{what} of an index are column names, not {names!r}")
    try:
        checked = tuple(check_identifier(name, kind="column") for name in names)
    except ValueError as error:
        raise SchemaError(f"{error} in an index; {RULE}") from None
    if len(set(checked)) < len(checked):
        raise SchemaError(f"{what} of an index name a column twice: {checked}")
    return checked


def _index_name(name: object) -> str:
    try:
        checked = check_identifier(name, kind="index")
    except ValueError as error:
        raise SchemaError(f"{error}; {RULE}") from None
    if checked.lower().startswith("sqlite_"):
        raise SchemaError(f"Invalid SQL index name: {name!r}; SQLite keeps the prefix sqlite_ for itself")
    return checked
