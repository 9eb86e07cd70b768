"""Python values into columns: unchanged, or refused with the column's name. Both databases refuse alike."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cqrs_ddd_advanced_core.projections.kinds import INTEGER_BITS, ColumnType, Kind
from cqrs_ddd_persistence_sqlalchemy.core.dialect import ALL_DIGITS
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import check_text, jsonable

if TYPE_CHECKING:
    from collections.abc import Callable

_UUID = re.compile(r"[0-9a-f]{8}(-?)(?:[0-9a-f]{4}\1){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_INT64 = 1 << 63
_FIRST_WITH_EXPONENT = 1e16  # from here on Python writes floats as 1e+16


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
    except (ValueError, RecursionError):  # Python prints no integers of thousands of digits, and no deep nests of lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


def _array(column_type: ColumnType, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _RefusedError("it takes a list")
    item = replace(column_type, array=False)
    convert = _filled_decimal if item.kind is Kind.DECIMAL else _CONVERTERS[item.kind]
    return [None if each is None else convert(item, each) for each in value]


def _text(column_type: ColumnType, value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise _RefusedError("it takes text")
    if column_type.length is not None and len(value) > column_type.length:
        raise _RefusedError(f"it has {len(value)} characters")
    try:
        return check_text(str.__str__(value), "it")
    except ValueError as error:
        raise _RefusedError(str(error)) from None


def _integer(column_type: ColumnType, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError("it takes a whole number (int)")
    limit = 1 << INTEGER_BITS[column_type.kind]
    if not -limit <= value < limit:
        raise _RefusedError(f"it takes {-limit} to {limit - 1}")
    return int(value)


def _decimal(column_type: ColumnType, value: Any, exact_digits: int | None = None) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _RefusedError("it takes a number")
    try:
        # A float stands for the shortest decimal that prints like it: 99.99 is meant, not 99.9899999999999948840923.
        number = Decimal(float.__repr__(value)) if isinstance(value, float) else Decimal(value)
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
    if exact_digits is not None and Decimal(repr(float(number))) != number:
        raise _RefusedError("it is beyond what this database holds exactly")
    return number


def _filled_decimal(column_type: ColumnType, value: Any) -> Decimal:
    """Return a decimal with all places of its column, which JSON lists do not add as columns do; no minus zero."""
    filled = _decimal(column_type, value).quantize(Decimal(1).scaleb(-(column_type.scale or 0)), context=ALL_DIGITS)
    return filled or filled.copy_abs()


def _count_digits(number: Decimal) -> tuple[int, int, int]:
    """Return how many digits stand before the point, after it, and from the first to the last that is not 0."""
    _, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
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
    return number + 0.0  # minus zero becomes zero, which it equals: SQLite does not keep its sign


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
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise _RefusedError("it takes a UUID")
    return UUID(str.__str__(value))


def _json(_type: ColumnType, value: Any) -> Any:
    try:
        document = jsonable(value, "it")
        _check_numbers(document)
    except ValueError as error:
        raise _RefusedError(str(error)) from None
    except RecursionError:
        raise _RefusedError("it is nested too deeply, or contains itself") from None
    # SQLite takes the text of a number for a number: 5.0 would come back as 5, 2**64 as a float.
    if isinstance(document, float):
        raise _RefusedError("a float by itself is no JSON document; put it into a list or an object")
    if isinstance(document, int) and not -_INT64 <= document < _INT64:
        raise _RefusedError("a whole number by itself has at most 64 bits; put it into a list or an object")
    return document


def _check_numbers(value: Any) -> None:
    """Refuse the floats that JSONB changes: it keeps decimals, which have no minus zero and no exponents."""
    match value:
        case float() if value == 0 and math.copysign(1, value) < 0:
            raise ValueError("JSON holds no minus zero")
        case float() if abs(value) >= _FIRST_WITH_EXPONENT:
            raise ValueError(f"JSON holds {value!r} as a whole number; write it as int or text")
        case dict():
            for each in value.values():
                _check_numbers(each)
        case list():
            for each in value:
                _check_numbers(each)


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
