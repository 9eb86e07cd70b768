"""Python values into columns: unchanged, or refused with the column's name. Both databases refuse alike."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cqrs_ddd_advanced_core.projections.kinds import ColumnType, Kind
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import check_text, jsonable

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGER_BITS = {Kind.SMALLINT: 15, Kind.INTEGER: 31, Kind.BIGINT: 63}


def to_column(name: str, column_type: ColumnType | None, value: Any, *, exact_digits: int | None = None) -> Any:
    """Return what to bind for a value.

    Args:
        name: of the column, for errors.
        column_type: None for a type outside the grammar, whose values are left to the driver.
        value: None is passed on.
        exact_digits: of decimals that the database holds without loss; None for all that the type declares.

    Raises:
        ValueError: naming the column, when the value would not come back as it is.
    """
    if value is None or column_type is None:
        return value
    try:
        if column_type.array:
            return _array(column_type, value)
        if column_type.kind is Kind.DECIMAL:
            return _decimal(column_type, value, exact_digits)
        return _CONVERTERS[column_type.kind](column_type, value)
    except _RefusedError as refused:
        raise ValueError(f"column {name!r}: {_shown(value)} does not fit {column_type}: {refused}") from None


class _RefusedError(Exception):
    """Why a value does not fit."""


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


def _array(column_type: ColumnType, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _RefusedError("it takes a list")
    item = ColumnType(column_type.kind, column_type.length, column_type.precision, column_type.scale)
    return [None if each is None else _CONVERTERS[item.kind](item, each) for each in value]


def _text(column_type: ColumnType, value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise _RefusedError("it takes text")
    if column_type.length is not None and len(value) > column_type.length:
        raise _RefusedError(f"it has {len(value)} characters")
    try:
        return check_text(str(value), "it")
    except ValueError as error:
        raise _RefusedError(str(error)) from None


def _integer(column_type: ColumnType, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError("it takes a whole number (int)")
    limit = 1 << _INTEGER_BITS[column_type.kind]
    if not -limit <= value < limit:
        raise _RefusedError(f"it takes {-limit} to {limit - 1}")
    return int(value)


def _decimal(column_type: ColumnType, value: Any, exact_digits: int | None = None) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _RefusedError("it takes a number")
    try:
        # A float stands for the shortest decimal that prints like it: 99.99 is meant, not 99.9899999999999948840923.
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, ValueError):
        raise _RefusedError("it has too many digits") from None
    if not number.is_finite():
        raise _RefusedError("it takes finite numbers")
    precision, scale = column_type.precision or 0, column_type.scale or 0
    before, after, significant = _count_digits(number)
    if after > scale or before > precision - scale:
        raise _RefusedError(f"it has {before} digits before and {after} after the point")
    if exact_digits is not None and significant > exact_digits:
        raise _RefusedError(f"this database holds {exact_digits} digits exactly, it has {significant}")
    return number


def _count_digits(number: Decimal) -> tuple[int, int, int]:
    """Return how many digits stand before the point, after it, and from the first to the last that is not 0."""
    _, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    places = -(int(exponent) + len(text) - len(stripped))
    if not stripped:
        return 0, 0, 0
    return max(len(stripped) - places, 0), max(places, 0), len(stripped)


def _double(_type: ColumnType, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _RefusedError("it takes a float")
    try:
        number = float(value)
    except OverflowError:
        raise _RefusedError("it is too large") from None
    if not math.isfinite(number):
        raise _RefusedError("it takes finite numbers")
    if number != value:
        raise _RefusedError("a float cannot hold it exactly")
    return number


def _boolean(_type: ColumnType, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _RefusedError("it takes True or False")
    return value


def _date(_type: ColumnType, value: Any) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise _RefusedError("it takes a date")
    return value


def _time(_type: ColumnType, value: Any) -> time:
    if not isinstance(value, time) or value.tzinfo is not None:
        raise _RefusedError("it takes a time of day without a time zone")
    return value


def _timestamp(_type: ColumnType, value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _RefusedError("it takes a datetime")
    if value.utcoffset() is None:
        raise _RefusedError("it is naive; give it a time zone, for example datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise _RefusedError("it is outside the years 1 to 9999 in UTC") from None


def _uuid(_type: ColumnType, value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise _RefusedError("it takes a UUID") from None


def _json(_type: ColumnType, value: Any) -> Any:
    try:
        return jsonable(value, "it")
    except ValueError as error:
        raise _RefusedError(str(error)) from None


def _bytes(_type: ColumnType, value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise _RefusedError("it takes bytes")
    return bytes(value)


_CONVERTERS: dict[Kind, Callable[[ColumnType, Any], Any]] = {
    Kind.CHAR: _text,
    Kind.VARCHAR: _text,
    Kind.TEXT: _text,
    Kind.SMALLINT: _integer,
    Kind.INTEGER: _integer,
    Kind.BIGINT: _integer,
    Kind.DECIMAL: _decimal,
    Kind.REAL: _double,
    Kind.DOUBLE: _double,
    Kind.BOOLEAN: _boolean,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.TIMESTAMP: _timestamp,
    Kind.UUID: _uuid,
    Kind.JSON: _json,
    Kind.BYTEA: _bytes,
}
