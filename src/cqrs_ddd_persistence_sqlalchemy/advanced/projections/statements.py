"""The statements that write documents, built once for each set of columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import (
    LAST_EVENT_ID,
    LAST_EVENT_POSITION,
    VERSION,
    Collection,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect import PortableArray, dialect_named
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Guards:
    """What must hold of a stored row for a write to change it; None: nothing.

    The statement that writes decides by its WHERE; `judge` then only names what it decided.
    """

    expected_version: int | None = None
    event_id: str | None = None
    event_position: int | None = None

    @property
    def names(self) -> frozenset[str]:
        """Which guards are set, by the column they look at."""
        guards = {
            VERSION: self.expected_version,
            LAST_EVENT_ID: self.event_id,
            LAST_EVENT_POSITION: self.event_position,
        }
        return frozenset(name for name, value in guards.items() if value is not None)

    def parameters(self) -> dict[str, Any]:
        """Return what to bind for the guards that are set."""
        guards = {
            "1_version": self.expected_version,
            "1_event_id": self.event_id,
            "1_position": self.event_position,
        }
        return {name: value for name, value in guards.items() if value is not None}

    def judge(self, collection: Collection, key: Mapping[str, Any], stored: Mapping[Any, Any] | None) -> bool:
        """Tell why a row was not written.

        Returns:
            False for an event that is no news to the row; True when nothing stands in the way (any more).

        Raises:
            OptimisticConcurrencyError: the row has another version than expected, or is not there.
        """
        if stored is not None:
            if self.event_id is not None and stored[LAST_EVENT_ID] == self.event_id:
                return False
            last = stored.get(LAST_EVENT_POSITION)
            if self.event_position is not None and last is not None and last >= self.event_position:
                return False
        if self.expected_version is None:
            return True
        version = None if stored is None else stored[VERSION]
        if (version or 0) != self.expected_version:
            doc_id = next(iter(key.values())) if len(key) == 1 else dict(key)
            raise OptimisticConcurrencyError(collection.name, doc_id, expected=self.expected_version, actual=version)
        return True


def parameter(column: str) -> str:
    """Return the name under which a column's value is bound.

    One that no column can have, as it begins with a digit: SQLAlchemy keeps columns' own names for itself.
    """
    return f"0_{column}"


@lru_cache(maxsize=4096)
def upsert(collection: Collection, dialect_name: str, columns: tuple[str, ...], guards: frozenset[str]) -> Any:
    """Insert a row with these columns, or change them in the row that is there if the guards allow it."""
    table = collection.table
    insert = dialect_named(dialect_name).insert(table)
    insert = insert.values({name: sa.bindparam(parameter(name), type_=table.c[name].type) for name in columns})
    return _on_conflict(collection, insert, columns, *_conditions(table, guards))


def _on_conflict(
    collection: Collection, insert: Any, columns: tuple[str, ...], *conditions: sa.ColumnElement[bool]
) -> Any:
    changes = {name: insert.excluded[name] for name in columns if name not in collection.key}
    changes |= _counted_version(collection, columns)
    elements = [collection.table.c[name] for name in collection.key]
    if not changes:
        return insert.on_conflict_do_nothing(index_elements=elements)
    return insert.on_conflict_do_update(
        index_elements=elements, set_=changes, where=sa.and_(*conditions) if conditions else None
    )


@lru_cache(maxsize=1024)
def merge(collection: Collection, dialect_name: str, columns: tuple[str, ...], source: sa.FromClause) -> Any:
    """Insert the rows of a table with these columns, or change them in the rows that are there."""
    insert = dialect_named(dialect_name).insert(collection.table)
    insert = insert.from_select(columns, sa.select(*(source.c[name] for name in columns)))
    return _on_conflict(collection, insert, columns)


@lru_cache(maxsize=4096)
def upsert_lists(collection: Collection, dialect_name: str, columns: tuple[str, ...]) -> Any:
    """Do what `upsert` does for rows given column by column, each a list; None where the database has no such thing."""
    if any(isinstance(collection.table.c[name].type, PortableArray) for name in columns):
        return None  # a list of lists is no list of rows
    source = dialect_named(dialect_name).key_rows([collection.table.c[name] for name in columns])
    return None if source is None else merge(collection, dialect_name, columns, source)


@lru_cache(maxsize=4096)
def update(collection: Collection, columns: tuple[str, ...], guards: frozenset[str]) -> Any:
    """Change these columns of a row that is there, if the guards allow it."""
    table = collection.table
    changes: dict[str, Any] = {
        name: sa.bindparam(parameter(name), type_=table.c[name].type) for name in columns if name not in collection.key
    }
    changes |= _counted_version(collection, columns)
    if not changes:  # nothing to change, but the guards are to be checked
        first = collection.key[0]
        changes = {first: table.c[first]}
    statement = sa.update(table).values(changes)
    return statement.where(*_is_row(collection), *_conditions(table, guards))


@lru_cache(maxsize=1024)
def read_guards(collection: Collection) -> Any:
    """Read what the guards look at."""
    names = [name for name in (VERSION, LAST_EVENT_ID, LAST_EVENT_POSITION) if name in collection.types]
    columns = [collection.table.c[name] for name in (names or collection.key)]
    return sa.select(*columns).where(*_is_row(collection))


@lru_cache(maxsize=1024)
def find_one(collection: Collection) -> Any:
    """Read one row by its key."""
    return sa.select(collection.table).where(*_is_row(collection))


@lru_cache(maxsize=1024)
def find_many(collection: Collection, dialect_name: str) -> tuple[Any, bool]:
    """Read the rows with any of some keys, given column by column, or (False) as the list `keys`."""
    columns = [collection.table.c[name] for name in collection.key]
    wanted = dialect_named(dialect_name).key_rows(columns)
    if wanted is not None:
        has_key = sa.and_(*(column == wanted.c[column.name] for column in columns))
        return sa.select(collection.table).select_from(wanted.join(collection.table, has_key)), True
    keys: sa.BindParameter[Any] = sa.bindparam("keys", expanding=True)
    among = columns[0].in_(keys) if len(columns) == 1 else sa.tuple_(*columns).in_(keys)
    return sa.select(collection.table).where(among), False


@lru_cache(maxsize=1024)
def delete(collection: Collection, guards: frozenset[str]) -> Any:
    """Delete a row if the guards allow it."""
    return sa.delete(collection.table).where(*_is_row(collection), *_conditions(collection.table, guards))


def _is_row(collection: Collection) -> list[sa.ColumnElement[bool]]:
    table = collection.table
    return [table.c[name] == sa.bindparam(parameter(name), type_=table.c[name].type) for name in collection.key]


def _counted_version(collection: Collection, columns: tuple[str, ...]) -> dict[str, Any]:
    if VERSION not in collection.types or VERSION in columns:
        return {}
    return {VERSION: sa.func.coalesce(collection.table.c[VERSION], 0) + 1}


def _conditions(table: sa.Table, guards: frozenset[str]) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if VERSION in guards:
        conditions.append(sa.func.coalesce(table.c[VERSION], 0) == sa.bindparam("1_version", type_=sa.BigInteger()))
    if LAST_EVENT_ID in guards:
        column = table.c[LAST_EVENT_ID]
        conditions.append(column.is_distinct_from(sa.bindparam("1_event_id", type_=sa.Text())))
    if LAST_EVENT_POSITION in guards:
        column = table.c[LAST_EVENT_POSITION]
        newer = column < sa.bindparam("1_position", type_=sa.BigInteger())
        conditions.append(sa.or_(column.is_(None), newer))
    return conditions
