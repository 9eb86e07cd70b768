"""filter= and sort= as pymongo users write them -> WHERE and ORDER BY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection

_DIRECTIONS = {1, -1}


def where(
    collection: Collection, filter_: Mapping[str, Any] | None, *, exact_digits: int | None
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter: each column equal to its value, None matching NULL.

    Raises:
        ValueError: naming an unknown column or operator, or a value that the column cannot hold.
    """
    if filter_ is None:
        return []
    if not isinstance(filter_, Mapping):
        raise ValueError(f"filter is a dict of columns and values, not {type(filter_).__name__}")
    return [_equals(collection, name, value, exact_digits) for name, value in filter_.items()]


def order_by(collection: Collection, sort: Sequence[tuple[str, int]] | None) -> list[sa.ColumnElement[Any]]:
    """Return the order of a result: as asked, NULLs first, ties by the key; without `sort` by the key alone.

    Raises:
        ValueError: naming an unknown column or a direction that is neither 1 nor -1.
    """
    order: list[sa.ColumnElement[Any]] = []
    if isinstance(sort, str | Mapping):
        raise ValueError(f'sort is a list of (column, direction) pairs such as [("created_at", -1)], not {sort!r}')
    named = set()
    for entry in sort or ():
        if isinstance(entry, str) or len(entry) != 2:  # noqa: PLR2004
            raise ValueError(f'sort is a list of (column, direction) pairs such as [("created_at", -1)], not {entry!r}')
        name, direction = entry
        column = collection.column(name)
        if direction not in _DIRECTIONS or isinstance(direction, bool):
            raise ValueError(f"sort direction of {name!r} is 1 (ascending) or -1 (descending), not {direction!r}")
        order.append((column.asc() if direction == 1 else column.desc()).nulls_first())
        named.add(name)
    return order + [collection.table.c[name].asc() for name in collection.key if name not in named]


def _equals(collection: Collection, name: str, value: Any, exact_digits: int | None) -> sa.ColumnElement[bool]:
    if isinstance(name, str) and name.startswith("$"):
        raise ValueError(f"filter of {collection.name!r}: unknown operator {name!r}; columns are compared with values")
    column = collection.column(name)
    if value is None:
        return column.is_(None)
    if isinstance(value, Mapping):
        raise ValueError(
            f"filter of {collection.name!r}: unknown operator {next(iter(value), '')!r} for column {name!r}"
        )
    bound = collection.values({name: value}, exact_digits=exact_digits)[name]
    return column == sa.literal(bound, column.type)
