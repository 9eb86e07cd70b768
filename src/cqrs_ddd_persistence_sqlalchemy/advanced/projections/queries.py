"""The queries of `find`, `count` and `stream`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.filters import Filter
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.ordering import next_page, order_by, read_sort
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection

T = TypeVar("T")


def select(
    collection: Collection,
    connection: AsyncConnection,
    filter_: Mapping[str, Any] | None,
    sort: Sequence[tuple[str, int]] | None,
    after: Mapping[str, Any] | None = None,
) -> sa.Select[Any]:
    """Return the documents that match, in order, behind `after`."""
    reader = Filter(collection, dialect_of(connection))
    order = read_sort(collection, sort)
    statement = sa.select(collection.table).where(*reader.where(filter_)).order_by(*order_by(collection, order))
    return statement if after is None else statement.where(next_page(reader, order, after))


def count_matching(
    collection: Collection, connection: AsyncConnection, filter_: Mapping[str, Any] | None
) -> sa.Select[Any]:
    """Count the documents that match."""
    conditions = Filter(collection, dialect_of(connection)).where(filter_)
    return sa.select(sa.func.count()).select_from(collection.table).where(*conditions)


def chunked(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut values into lists of at most `size`."""
    remaining = iter(values)
    while chunk := list(islice(remaining, size)):
        yield chunk
