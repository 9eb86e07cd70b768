"""DEFAULT clauses: a literal that fits its column, or the current time."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.kinds import INTEGER_BITS, ColumnType, Kind
from cqrs_ddd_advanced_core.projections.literals import fit, render
from cqrs_ddd_advanced_core.projections.tokens import Reader

_LONGEST_INTEGER = 20  # characters of -2**63, the widest that any column takes
_FLOATS = frozenset({Kind.REAL, Kind.DOUBLE})


@dataclass(frozen=True)
class Default:
    """What a new row gets in a column that nobody gave a value.

    Attributes:
        kind: "literal" for a value that never changes, "current_timestamp" for the time of the statement.
        value: of a literal, as Python has it: int, Decimal, float, bool, str, date, time, datetime in UTC or
            UUID; canonical JSON text for JSON columns, () for the empty array. None for the current time.
    """

    kind: Literal["literal", "current_timestamp"]
    value: Any = None

    def __str__(self) -> str:
        """Return what stands behind DEFAULT in a definition."""
        return "CURRENT_TIMESTAMP" if self.kind == "current_timestamp" else render(self.value)

    def fitted(self, column_type: ColumnType) -> "Default":
        """Return the default with its value in the form that such a column keeps.

        Raises:
            SchemaError: a column of that type cannot have this default.
        """
        if self.kind == "literal":
            try:
                return Default("literal", fit(column_type, self.value))
            except SchemaError as error:
                raise SchemaError(f"DEFAULT {error}") from None
        if column_type != ColumnType(Kind.TIMESTAMP):
            raise SchemaError(f"DEFAULT CURRENT_TIMESTAMP is for TIMESTAMP columns, not for {column_type}")
        return Default("current_timestamp")


def read_default(reader: Reader, column_type: ColumnType) -> Default | None:
    """Take what follows the word DEFAULT; None stands for DEFAULT NULL, which is no default.

    Raises:
        SchemaError: it is no literal, or one that does not fit the column; the rest of the text is named.
    """
    if reader.take_words("NULL"):
        return None
    if reader.take_words("CURRENT_TIMESTAMP"):
        return Default("current_timestamp").fitted(column_type)
    if reader.take_words("TRUE"):
        return Default("literal", value=True).fitted(column_type)
    if reader.take_words("FALSE"):
        return Default("literal", value=False).fitted(column_type)
    if (number := reader.take("number")) is not None:
        return Default("literal", _number(number, column_type)).fitted(column_type)
    if (string := reader.take("string")) is not None:
        return _of_string(string, column_type)
    raise SchemaError(
        f"cannot read {reader.rest!r} in {reader.text!r} as a default; "
        "write a number, 'text' in single quotes, TRUE, FALSE, NULL or CURRENT_TIMESTAMP"
    )


def _of_string(text: str, column_type: ColumnType) -> Default:
    if column_type.kind is Kind.DECIMAL and not column_type.array:
        raise SchemaError(f"DEFAULT {text} does not fit {column_type}: write the number without quotes")
    return Default("literal", text[1:-1].replace("''", "'")).fitted(column_type)


def _number(text: str, column_type: ColumnType) -> int | float | Decimal:
    if column_type.kind in _FLOATS:
        return _float(text, column_type)
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text):
        raise SchemaError(f"DEFAULT {text} does not fit {column_type}: write it without an exponent")
    if column_type.kind in INTEGER_BITS and "." not in text and len(text) <= _LONGEST_INTEGER:
        return int(text)
    return Decimal(text)


def _float(text: str, column_type: ColumnType) -> float:
    number = float(text)
    if number == 0 and re.search("[1-9]", text.lower().partition("e")[0]):
        raise SchemaError(f"DEFAULT {text} does not fit {column_type}: it is out of range")
    return number
