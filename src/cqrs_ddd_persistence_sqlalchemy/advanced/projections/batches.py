"""Many documents on their way into their rows: neighbours with the same columns together, each value checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.projections.kinds import Kind
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import VERSION, Collection
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.documents import complete
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.values import INTEGER_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from cqrs_ddd_advanced_core.projections.kinds import ColumnType

_SMALLEST_EXPONENT = 300  # somewhat below it, floats have fewer digits


@dataclass(slots=True)
class Batch:
    """Rows with the same columns, key columns first."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def batches(
    collection: Collection, docs: Iterable[Mapping[str, Any] | BaseModel], exact_digits: int | None
) -> Iterator[Batch]:
    """Convert documents; the order stays, as one document may make way for the next.

    Raises:
        ValueError: as `complete`.
    """
    batch: Batch | None = None
    for doc in docs:
        plain = _plain(collection, tuple(doc), exact_digits) if type(doc) is dict else None
        row = None if plain is None else plain.row(doc)  # type: ignore[arg-type]
        if plain is not None and row is not None:
            columns = plain.columns
        else:  # slower, or refused by name
            values = complete(collection, None, doc, exact_digits)
            columns, row = tuple(values), tuple(values.values())
        if batch is None or batch.columns != columns:
            if batch is not None:
                yield batch
            batch = Batch(columns, [])
        batch.rows.append(row)
    if batch is not None:
        yield batch


class _PlainDocuments:
    """Converts the documents with certain columns whose values need no conversion, which is nearly all of them."""

    def __init__(self, collection: Collection, names: Sequence[str], exact_digits: int | None) -> None:
        self.columns = (*collection.key, *(name for name in names if name not in collection.key))
        self._checks = [(name, _check(collection.types[name], exact_digits)) for name in self.columns]
        nullable = {name for name in self.columns if name not in collection.not_null and name not in collection.key}
        self._nullable = frozenset(nullable - {VERSION})

    def row(self, doc: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the values in the order of the columns, or None where one of them is to be looked at closely."""
        row = []
        for name, check in self._checks:
            value = doc[name]
            if not (name in self._nullable if value is None else check(value)):
                return None
            row.append(value)
        return tuple(row)


@lru_cache(maxsize=1024)
def _plain(collection: Collection, names: tuple[str, ...], exact_digits: int | None) -> _PlainDocuments | None:
    known = all(type(name) is str and name in collection.types for name in names)
    if not known or not set(collection.key).issubset(names):
        return None
    return _PlainDocuments(collection, names, exact_digits)


def _check(type_: ColumnType | None, exact_digits: int | None) -> Callable[[Any], bool]:
    """Return what tells whether a value is stored as it is; False only means that `to_column` has to decide."""
    kind = None if type_ is None or type_.array else type_.kind
    if type_ is None or kind is None:
        check: Callable[[Any], bool] = _never
    elif kind in {Kind.CHAR, Kind.VARCHAR, Kind.TEXT}:
        check = _check_text(1 << 62 if type_.length is None else type_.length)
    elif kind in INTEGER_BITS:
        check = _check_integer(1 << INTEGER_BITS[kind])
    elif kind is Kind.DECIMAL:
        check = _check_decimal(type_.precision or 0, type_.scale or 0, exact_digits)
    else:
        check = _OTHER_CHECKS.get(kind, _never)
    return check


def _never(_: Any) -> bool:
    return False


_OTHER_CHECKS: dict[Kind, Callable[[Any], bool]] = {
    Kind.BOOLEAN: lambda value: value is True or value is False,
    Kind.TIMESTAMP: lambda value: type(value) is datetime and value.tzinfo is UTC,
}


def _check_text(length: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and len(value) <= length and value.isascii() and "\0" not in value


def _check_integer(limit: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and -limit <= value < limit


def _check_decimal(precision: int, scale: int, exact_digits: int | None) -> Callable[[Any], bool]:
    most = precision if exact_digits is None else exact_digits
    least = -scale if exact_digits is None else max(-scale, -_SMALLEST_EXPONENT)

    def check(value: Any) -> bool:
        if type(value) is not Decimal:
            return False
        _, digits, exponent = value.as_tuple()
        return (
            type(exponent) is int
            and least <= exponent <= 0
            and len(digits) <= most
            and len(digits) + exponent <= precision - scale
        )

    return check
