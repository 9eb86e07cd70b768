"""Constants of a schema (defaults, index predicates): whether they fit their column, how they are written."""

import json
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any
from uuid import UUID

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.kinds import INTEGER_BITS, MAX_PRECISION, ColumnType, Kind
from cqrs_ddd_advanced_core.storable import unstorable

# Arithmetic that refuses to round: a digit more than any column holds is an error, not a nearby value.
_EXACT = Context(prec=2 * MAX_PRECISION, traps=[Inexact, InvalidOperation])

_SHOWN = 80  # characters of a value that a message repeats

_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?", re.ASCII)
_TIMESTAMP = re.compile(rf"{_DATE.pattern}[ T]{_TIME.pattern}(?:Z|[+-]\d\d(?::\d\d)?)", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def fit(column_type: ColumnType, value: object) -> Any:
    """Return the value in the one form that such a column's constants are kept in.

    Decimals are filled up to the column's scale, timestamps are in UTC, JSON is its canonical text (a dict
    could be changed afterwards), the empty array is (). Decimals, times and UUIDs may be given as text.

    Raises:
        SchemaError: the value is of another type, out of range, or would not be stored as it is.
    """
    try:
        return _fit_array(value) if column_type.array else _FITTERS[column_type.kind](column_type, value)
    except (ValueError, ArithmeticError) as error:  # SchemaError, or the standard library's word on a 13th month
        raise SchemaError(f"{_shown(value)} does not fit {column_type}: {error}") from None


def render(value: Any) -> str:
    """Write a fitted value as the literal that the grammar reads back to the same value."""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case Decimal():
            return format(value, "f")
        case int() | float():
            return repr(value)
        case ():
            return "'{}'"
        case _:
            return "'" + str(plain(value)).replace("'", "''") + "'"


def plain(value: Any) -> Any:
    """Return a fitted scalar as JSON can hold it, in a form that `fit` takes back."""
    match value:
        case date() | time():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case UUID():
            return str(value)
        case _:
            return value


def _shown(value: object) -> str:
    try:
        text = str(value) if isinstance(value, Decimal) else repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        text = "an enormous integer"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _fit_text(column_type: ColumnType, value: object) -> str:
    if not isinstance(value, str):
        raise SchemaError("it takes a string")
    found = unstorable(value)
    if found is not None:
        raise SchemaError(f"{found} cannot be stored")
    if column_type.length is not None and len(value) > column_type.length:
        raise SchemaError(f"it is {len(value)} characters long")
    return str.__str__(value)  # the plain text of a StrEnum member


def _fit_integer(column_type: ColumnType, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SchemaError("it takes an integer")
    limit = 2 ** INTEGER_BITS[column_type.kind]
    if not -limit <= value < limit:
        raise SchemaError(f"it takes {-limit} to {limit - 1}")
    return int(value)  # the plain number of an IntEnum member


def _fit_decimal(column_type: ColumnType, value: object) -> Decimal:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise SchemaError("it takes an exact number (an integer or a finite Decimal)")
    precision, scale = int(column_type.precision or 0), int(column_type.scale or 0)
    try:
        filled = Decimal(value).quantize(Decimal((0, (1,), -scale)), context=_EXACT)
    except DecimalException:
        raise SchemaError("it has too many digits") from None
    if len(filled.as_tuple().digits) > precision:
        raise SchemaError("it has too many digits")
    return filled or filled.copy_abs()  # no minus zero


def _fit_float(column_type: ColumnType, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SchemaError("it takes a number")
    try:
        number = float(value)
        stored = struct.unpack("<f", struct.pack("<f", number))[0] if column_type.kind is Kind.REAL else number
    except OverflowError:
        raise SchemaError("it is out of range") from None
    if not math.isfinite(stored) or (number and not stored):
        raise SchemaError("it is out of range")
    return number + 0.0  # minus zero becomes zero, which it equals


def _fit_boolean(_: ColumnType, value: object) -> bool:
    if not isinstance(value, bool):
        raise SchemaError("it takes TRUE or FALSE")
    return value


def _fit_date(_: ColumnType, value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    return date.fromisoformat(_iso(value, _DATE, "a date such as 2024-12-31"))


def _fit_time(_: ColumnType, value: object) -> time:
    if isinstance(value, time) and value.tzinfo is None:
        return value
    return time.fromisoformat(_iso(value, _TIME, "a time of day without a zone such as 23:59:59"))


def _fit_timestamp(_: ColumnType, value: object) -> datetime:
    if not isinstance(value, datetime):
        text = _iso(value, _TIMESTAMP, "a time with its offset such as 2024-12-31 23:59:59+00:00")
        value = datetime.fromisoformat(text)
    if value.utcoffset() is None:
        raise SchemaError("it takes a timezone-aware datetime")
    return value.astimezone(UTC)


def _fit_uuid(_: ColumnType, value: object) -> UUID:
    return value if isinstance(value, UUID) else UUID(_iso(value, _UUID, "a UUID with its four hyphens"))


def _iso(value: object, pattern: re.Pattern[str], wanted: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise SchemaError(f"it takes {wanted}")
    return value


def _fit_json(_: ColumnType, value: object) -> str:
    if not isinstance(value, str):
        raise SchemaError("it takes JSON text")
    try:
        document = json.loads(value, parse_float=_exact_float, parse_constant=_exact_float)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        raise SchemaError("it takes JSON text without NaN, lone surrogates or numbers beyond a double") from None
    if _ESCAPED_NUL.search(text):
        raise SchemaError("NUL characters cannot be stored")
    return text


def _exact_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise ValueError(text)
    return number


def _fit_array(value: object) -> tuple[()]:
    if value not in ("{}", (), []):
        raise SchemaError("the only constant array is the empty one, '{}'")
    return ()


def _refuse(_: ColumnType, __: object) -> Any:
    raise SchemaError("it takes no constants but NULL")


_FITTERS: dict[Kind, Callable[[ColumnType, object], Any]] = {
    Kind.CHAR: _fit_text,
    Kind.VARCHAR: _fit_text,
    Kind.TEXT: _fit_text,
    Kind.SMALLINT: _fit_integer,
    Kind.INTEGER: _fit_integer,
    Kind.BIGINT: _fit_integer,
    Kind.DECIMAL: _fit_decimal,
    Kind.REAL: _fit_float,
    Kind.DOUBLE: _fit_float,
    Kind.BOOLEAN: _fit_boolean,
    Kind.DATE: _fit_date,
    Kind.TIME: _fit_time,
    Kind.TIMESTAMP: _fit_timestamp,
    Kind.UUID: _fit_uuid,
    Kind.JSON: _fit_json,
    Kind.BYTEA: _refuse,
}
