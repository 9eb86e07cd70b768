"""The types that a projection's column may have."""

from dataclasses import dataclass, replace
from enum import StrEnum

from cqrs_ddd_advanced_core.exceptions import SchemaError

MAX_LENGTH = 10_485_760  # PostgreSQL's limit of n in CHAR(n) and VARCHAR(n)
MAX_PRECISION = 1000  # PostgreSQL's limit of p in NUMERIC(p, s)


class Kind(StrEnum):
    """A type without its arguments."""

    CHAR = "CHAR"
    VARCHAR = "VARCHAR"
    TEXT = "TEXT"
    SMALLINT = "SMALLINT"
    INTEGER = "INTEGER"
    BIGINT = "BIGINT"
    DECIMAL = "DECIMAL"
    REAL = "REAL"
    DOUBLE = "DOUBLE PRECISION"
    BOOLEAN = "BOOLEAN"
    DATE = "DATE"
    TIME = "TIME"
    TIMESTAMP = "TIMESTAMP"
    UUID = "UUID"
    JSON = "JSON"
    BYTEA = "BYTEA"


INTEGER_BITS = {Kind.SMALLINT: 15, Kind.INTEGER: 31, Kind.BIGINT: 63}  # beside the sign

# Both are stored one way only: times are always aware, documents are binary JSON where there is such a thing.
_SPELLINGS = {Kind.TIMESTAMP: "TIMESTAMP WITH TIME ZONE", Kind.JSON: "JSONB"}

# CHAR(n) pads with blanks and REAL keeps six digits on PostgreSQL: values would not come back as they went in.
_STORED_AS = {Kind.CHAR: Kind.VARCHAR, Kind.REAL: Kind.DOUBLE}


@dataclass(frozen=True)
class ColumnType:
    """A type with its arguments, complete: no VARCHAR without a length, no DECIMAL without a precision.

    Attributes:
        kind: the type's name.
        length: of CHAR and VARCHAR, in characters; None for every other kind.
        precision: of DECIMAL, all digits; None for every other kind.
        scale: of DECIMAL, the digits after the point, 0 unless given; None for every other kind.
        array: a one-dimensional list of that type.
    """

    kind: Kind
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    array: bool = False

    def __post_init__(self) -> None:
        self._check_length()
        if self.kind is Kind.DECIMAL and self.precision is not None and self.scale is None:
            object.__setattr__(self, "scale", 0)
        self._check_precision()
        if self.array and self.kind in {Kind.JSON, Kind.BYTEA}:
            raise SchemaError(f"there are no arrays of {self.kind}; use JSONB for lists of documents")

    def __str__(self) -> str:
        """Return the one spelling that stands for all the accepted ones."""
        text = _SPELLINGS.get(self.kind, self.kind.value)
        if self.length is not None:
            text += f"({self.length})"
        elif self.precision is not None:
            text += f"({self.precision}, {self.scale})"
        return f"{text}[]" if self.array else text

    @property
    def stored(self) -> "ColumnType":
        """The type of the table's column: VARCHAR for CHAR and DOUBLE PRECISION for REAL, itself for all others."""
        return replace(self, kind=_STORED_AS.get(self.kind, self.kind))

    @property
    def indexable(self) -> bool:
        """Whether one value can be compared with another as a whole, in an index or a key."""
        return not self.array and self.kind not in {Kind.JSON, Kind.BYTEA}

    @property
    def inexact(self) -> bool:
        """Whether a value may come back as its neighbour, so that equality means little."""
        return self.kind in {Kind.REAL, Kind.DOUBLE}

    def _check_length(self) -> None:
        if self.kind not in {Kind.CHAR, Kind.VARCHAR}:
            if self.length is not None:
                raise SchemaError(f"{self.kind} takes no length")
        elif self.length is None:
            raise SchemaError(f"{self.kind} needs a length, such as {self.kind}(50); use TEXT for text of any length")
        elif not 1 <= self.length <= MAX_LENGTH:
            raise SchemaError(f"the length of {self.kind} is 1 to {MAX_LENGTH}, not {self.length}")

    def _check_precision(self) -> None:
        if self.kind is not Kind.DECIMAL:
            if self.precision is not None or self.scale is not None:
                raise SchemaError(f"{self.kind} takes no precision")
            return
        if self.precision is None or self.scale is None:
            raise SchemaError("DECIMAL needs a precision, such as DECIMAL(10, 2): without one it is not portable")
        if not 1 <= self.precision <= MAX_PRECISION:
            raise SchemaError(f"the precision of DECIMAL is 1 to {MAX_PRECISION}, not {self.precision}")
        if not 0 <= self.scale <= self.precision:
            raise SchemaError(f"the scale of DECIMAL({self.precision}, s) is 0 to {self.precision}, not {self.scale}")
