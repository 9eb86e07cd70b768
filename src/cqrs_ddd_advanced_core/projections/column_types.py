"""The grammar of column definitions: "DECIMAL(10, 2) NOT NULL" becomes plain data, anything else an error.

Definitions are never passed on to a database: what is not understood here, to the last character, is refused.
"""

from dataclasses import dataclass

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_advanced_core.projections.defaults import Default, read_default
from cqrs_ddd_advanced_core.projections.kinds import ColumnType, Kind
from cqrs_ddd_advanced_core.projections.tokens import Reader

__all__ = ["ColumnSpec", "ColumnType", "Default", "Kind", "parse_column"]

_ALLOWED = (
    "allowed are CHAR(n), VARCHAR(n), TEXT, SMALLINT, INTEGER, BIGINT, DECIMAL(p, s), REAL, DOUBLE "
    "PRECISION, BOOLEAN, DATE, TIME, TIMESTAMP, UUID, JSON, BYTEA and arrays such as TEXT[], followed by "
    "PRIMARY KEY, NOT NULL, NULL, UNIQUE and DEFAULT with a literal, TRUE, FALSE, NULL or CURRENT_TIMESTAMP"
)

# The first that matches is taken, so the longer of two with a common beginning comes first.
_TYPE_NAMES: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("TIMESTAMP", "WITH", "TIME", "ZONE"), Kind.TIMESTAMP),
    (("TIMESTAMPTZ",), Kind.TIMESTAMP),
    (("TIMESTAMP",), Kind.TIMESTAMP),
    (("DOUBLE", "PRECISION"), Kind.DOUBLE),
    (("NUMERIC",), Kind.DECIMAL),
    (("INT",), Kind.INTEGER),
    (("BOOL",), Kind.BOOLEAN),
    (("JSONB",), Kind.JSON),
    (("BLOB",), Kind.BYTEA),
    *(((kind.value,), kind) for kind in Kind if kind not in {Kind.TIMESTAMP, Kind.DOUBLE}),
)
_LONGEST_ARGUMENT = 9  # digits; no legal argument has more, and Python refuses to read thousands


@dataclass(frozen=True)
class ColumnSpec:
    """One column, checked: its options agree with each other and its default fits its type.

    Attributes:
        nullable: whether rows may hold NULL; never in a key.
        primary_key: whether the column is the key or a part of it.
        unique: whether no two rows may share a value.
        default: what a new row gets, None for NULL.
    """

    name: str
    type: ColumnType
    nullable: bool = True
    primary_key: bool = False
    unique: bool = False
    default: Default | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        try:
            self._check_options()
            if self.default is not None:
                object.__setattr__(self, "default", self.default.fitted(self.type))
        except SchemaError as error:
            raise SchemaError(f"column {self.name!r}: {error}") from None

    @property
    def definition(self) -> str:
        """The definition in its canonical spelling; `parse_column` reads it back to an equal spec."""
        parts = [str(self.type)]
        if self.primary_key:
            parts.append("PRIMARY KEY")
        elif not self.nullable:
            parts.append("NOT NULL")
        if self.unique:
            parts.append("UNIQUE")
        if self.default is not None:
            parts.append(f"DEFAULT {self.default}")
        return " ".join(parts)

    def _check_options(self) -> None:
        if self.primary_key:
            self._check_comparable("PRIMARY KEY")
        if self.primary_key and self.nullable:
            raise SchemaError("a PRIMARY KEY is never NULL")
        if self.unique:
            self._check_comparable("UNIQUE")

    def _check_comparable(self, option: str) -> None:
        if not self.type.indexable:
            raise SchemaError(f"{self.type} cannot be {option}: its values are not compared as a whole")
        if self.type.inexact:
            raise SchemaError(f"{self.type} cannot be {option}: it is inexact; use DECIMAL(p, s)")


def parse_column(name: str, definition: str) -> ColumnSpec:
    """Read one column definition.

    Case and white space do not matter. Options come in any order, each at most once.

    Raises:
        SchemaError: the name is no identifier, or something in the definition is not understood, contradicts
            itself or does not fit the type; the column and the text are named.
    """
    _check_name(name)
    if not isinstance(definition, str):
        raise SchemaError(f"column {name!r}: a definition is text such as 'INTEGER NOT NULL', not {definition!r}")
    try:
        reader = Reader(definition)
        column_type = _read_type(reader)
        options = _read_options(reader, column_type)
    except SchemaError as error:
        raise SchemaError(f"column {name!r}: {error}") from None
    primary_key = "PRIMARY KEY" in options
    return ColumnSpec(
        name,
        column_type,
        nullable=not primary_key and "NOT NULL" not in options,
        primary_key=primary_key,
        unique="UNIQUE" in options,
        default=options.get("DEFAULT"),
    )


def _check_name(name: object) -> None:
    try:
        check_identifier(name, kind="column")
    except ValueError as error:
        raise SchemaError(str(error)) from None


def _unreadable(reader: Reader) -> SchemaError:
    if not reader.rest:
        return SchemaError(f"the definition {reader.text!r} ends too early; {_ALLOWED}")
    return SchemaError(f"cannot read {reader.rest!r} in {reader.text!r}; {_ALLOWED}")


def _read_type(reader: Reader) -> ColumnType:
    kind = next((kind for words, kind in _TYPE_NAMES if reader.take_words(*words)), None)
    if kind is None:
        raise _unreadable(reader)
    if kind in {Kind.CHAR, Kind.VARCHAR}:
        (length,) = _read_arguments(reader, at_most=1) or (None,)
        scalar = ColumnType(kind, length=length)
    elif kind is Kind.DECIMAL:
        precision, scale, *_ = (*_read_arguments(reader, at_most=2), None, None)
        scalar = ColumnType(kind, precision=precision, scale=scale)
    else:
        scalar = ColumnType(kind)
    if reader.take_marks("[", "]"):
        return ColumnType(kind, scalar.length, scalar.precision, scalar.scale, array=True)
    return scalar


def _read_arguments(reader: Reader, *, at_most: int) -> tuple[int, ...]:
    if not reader.take_marks("("):
        return ()
    arguments: list[int] = []
    while len(arguments) < at_most and (not arguments or reader.take_marks(",")):
        number = reader.take("number")
        if number is None or not number.isdigit() or len(number) > _LONGEST_ARGUMENT:
            raise SchemaError(f"the arguments in {reader.text!r} are not those of a type; {_ALLOWED}")
        arguments.append(int(number))
    if not reader.take_marks(")"):
        raise _unreadable(reader)
    return tuple(arguments)


def _read_options(reader: Reader, column_type: ColumnType) -> dict[str, Default | None]:
    """Return the options that are there; the value behind DEFAULT is its own, None behind all others."""
    options: dict[str, Default | None] = {}
    while reader.rest:
        for words in (("PRIMARY", "KEY"), ("NOT", "NULL"), ("NULL",), ("UNIQUE",), ("DEFAULT",)):
            if reader.take_words(*words):
                break
        else:
            raise _unreadable(reader)
        option = " ".join(words)
        if option in options:
            raise SchemaError(f"{option} is there twice in {reader.text!r}")
        options[option] = read_default(reader, column_type) if option == "DEFAULT" else None
    for other in ("PRIMARY KEY", "NOT NULL"):
        if "NULL" in options and other in options:
            raise SchemaError(f"NULL contradicts {other} in {reader.text!r}")
    return options
