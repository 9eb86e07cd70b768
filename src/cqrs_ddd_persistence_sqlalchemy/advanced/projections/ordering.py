"""sort= and after= -> ORDER BY, and the condition of the next page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.filters import Condition, Filter

Order = list[tuple[str, int]]


def read_sort(collection: Collection, sort: Sequence[tuple[str, int]] | None) -> Order:
    """Return the columns and directions of a result: as asked, ties by the key; without `sort` by the key alone.

    Raises:
        ValueError: naming an unknown column, one without an order, or a direction that is neither 1 nor -1.
    """
    shape = 'sort is a list of (column, direction) pairs such as [("created_at", -1)]'
    if sort is None:
        sort = ()
    if isinstance(sort, str | Mapping) or not isinstance(sort, Sequence):
        raise ValueError(f"{shape}, not {sort!r}")
    order: Order = []
    for entry in sort:
        if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 2:  # noqa: PLR2004
            raise ValueError(f"{shape}, not {entry!r}")
        name, direction = entry
        collection.column(name)
        column_type = collection.types[name]
        if column_type is not None and not column_type.indexable:
            raise ValueError(f"column {name!r} is {column_type}, which has no order")
        if not isinstance(direction, int) or isinstance(direction, bool) or direction not in {1, -1}:
            raise ValueError(f"sort direction of {name!r} is 1 (ascending) or -1 (descending), not {direction!r}")
        order.append((name, direction))
    named = {name for name, _ in order}
    return order + [(name, 1) for name in collection.key if name not in named]


def order_by(collection: Collection, order: Order) -> list[sa.ColumnElement[Any]]:
    """Return the ORDER BY: NULLs first in both directions; the key has none."""
    columns: list[sa.ColumnElement[Any]] = []
    for name, direction in order:
        column = collection.table.c[name]
        directed = column.asc() if direction == 1 else column.desc()
        columns.append(directed if name in collection.not_null else directed.nulls_first())
    return columns


def next_page(filter_: Filter, order: Order, after: Mapping[str, Any]) -> Condition:
    """Return the condition of the rows behind a document in this order.

    Args:
        filter_: reads the document's values.
        order: of the pages.
        after: the last document of the page before, or a part of it with the columns of the order.

    Raises:
        ValueError: when it lacks one of them.
    """
    if not isinstance(after, Mapping):
        raise ValueError(f"after is the last document of the page before, not {type(after).__name__}")
    missing = [name for name, _ in order if name not in after]
    if missing:
        raise ValueError(f"after has no {', '.join(missing)}, by which these pages are ordered")
    columns = filter_.collection.table.c
    behind: list[Condition] = []
    equal: list[Condition] = []
    for name, direction in order:
        column, value = columns[name], after[name]
        if value is None:
            behind.append(sa.and_(*equal, column.is_not(None)))
            equal.append(column.is_(None))
        else:
            bound = filter_.bound(name, value)
            behind.append(sa.and_(*equal, column > bound if direction == 1 else column < bound))
            equal.append(column == bound)
    return sa.or_(*behind)
