"""Column types that behave alike on both databases."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import quoted_name

from cqrs_ddd_advanced_core.projections.kinds import MAX_PRECISION

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect


#: Reserved by PostgreSQL or SQLite but not known to SQLAlchemy, which quotes the others by itself.
UNKNOWN_RESERVED_WORDS = frozenset({"collation", "concurrently", "lateral", "nothing", "returning", "tablesample"})


def identifier(name: str) -> quoted_name:
    """Return a checked name as one that SQLAlchemy quotes whenever a database needs it to."""
    return quoted_name(name, quote=True if name.lower() in UNKNOWN_RESERVED_WORDS else None)


def prepare_for_reflection(dialect: Dialect) -> None:
    """Let a dialect quote the reserved words in tables that it reflects, and recognise the types of our arrays."""
    preparer = dialect.identifier_preparer
    preparer.reserved_words = preparer.reserved_words | UNKNOWN_RESERVED_WORDS
    if dialect.name == "sqlite":
        arrays = {f"{name}{ARRAY_SUFFIX}": _reflected_array(name) for name in _SQLITE_ELEMENTS}
        known: Any = dialect
        known.ischema_names = {**known.ischema_names, **arrays}


# The default context ends at 28 digits.
ALL_DIGITS = Context(prec=MAX_PRECISION)


class ExactDecimal(sa.TypeDecorator[Decimal]):
    """A decimal that comes back as the Decimal it went in as, with the column's scale.

    SQLite has no decimals and keeps a float, which holds 15 digits exactly; the caller refuses longer ones.
    """

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, precision: int, scale: int) -> None:
        self.precision = precision
        self.scale = scale
        super().__init__(precision, scale)

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Bind and fetch floats where there are no decimals."""
        # Not dialect.supports_native_decimal: SQLAlchemy leaves that False for asyncpg, whose decimals are exact.
        if dialect.name == "postgresql":
            return sa.Numeric(self.precision, self.scale)
        return sa.Numeric(self.precision, self.scale, asdecimal=False)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Convert to what the driver takes."""
        return value if value is None or dialect.name == "postgresql" else float(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Give a number its decimal places: a float has none, asyncpg reads 10**14 as 1.00E+14.

        More places than declared are kept: a migration may have added some since the store looked.
        """
        if value is None:
            return None
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        declared = number.quantize(Decimal(1).scaleb(-self.scale), context=ALL_DIGITS)
        return declared if declared == number else number


_SQLITE = sqlite.dialect()

JSONDocument = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


class JSONText(sa.TypeDecorator[str]):
    """JSON that is text already, on its way into a `JSONDocument` column.

    The engine's serializer is left out: it may spell numbers in ways that JSONB takes for other ones.
    """

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Use the column's type."""
        return postgresql.JSONB() if dialect.name == "postgresql" else sa.JSON()

    def bind_processor(self, dialect: Dialect) -> None:
        """Pass the text on as it is."""


# SQLite gives automatic numbers to a column spelled INTEGER only.
BigIntegerKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


#: What SQLite's name for a type ends with, before its arguments, where a column holds a list of such values.
ARRAY_SUFFIX = "_ARRAY"

# The names, without arguments, of the types whose arrays a projection can have.
_SQLITE_ELEMENTS = (
    *("VARCHAR", "TEXT", "SMALLINT", "INTEGER", "BIGINT", "NUMERIC", "DOUBLE", "BOOLEAN"),
    *("DATE", "TIME", "DATETIME", "CHAR"),
)


class JSONArray(sa.JSON):
    """A JSON list in a column whose declared type says what the elements are, such as NUMERIC_ARRAY(10, 2).

    The text begins with a bracket, so that no type affinity changes it.

    Attributes:
        declared: the name of the type.
    """

    def __init__(self, declared: str) -> None:
        self.declared = declared
        super().__init__(none_as_null=True)


@compiles(JSONArray)
def _compile_json_array(type_: JSONArray, _compiler: Any, **_: Any) -> str:
    return type_.declared


def _reflected_array(element: str) -> Callable[..., JSONArray]:
    def with_arguments(*arguments: int) -> JSONArray:
        listed = f"({', '.join(map(str, arguments))})" if arguments else ""
        return JSONArray(f"{element}{ARRAY_SUFFIX}{listed}")

    return with_arguments


class PortableArray(sa.TypeDecorator[list[Any]]):
    """A one-dimensional array on PostgreSQL, a JSON list of the same values on SQLite.

    Attributes:
        item: the type of the elements.
    """

    impl = sa.JSON
    cache_ok = True

    def __init__(self, item: sa.types.TypeEngine[Any]) -> None:
        self.item = item
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Use arrays where the database has them."""
        if dialect.name == "postgresql":
            return postgresql.ARRAY(self.item)
        return JSONArray(self.declared_on_sqlite)

    @staticmethod
    def can_be_compared(dialect: Dialect) -> bool:
        """Tell whether the type of a column that is there can be told from another array's."""
        return dialect.name == "postgresql"

    @property
    def declared_on_sqlite(self) -> str:
        """The name of the column's type there."""
        base, bracket, arguments = self.item.compile(dialect=_SQLITE).partition("(")
        return f"{base}{ARRAY_SUFFIX}{bracket}{arguments}"

    def process_bind_param(self, value: list[Any] | None, dialect: Dialect) -> list[Any] | None:
        """Write elements that JSON has no form for as text."""
        if value is None or dialect.name == "postgresql":
            return value
        return [to_jsonable_python(each) for each in value]

    def process_result_value(self, value: list[Any] | None, dialect: Dialect) -> list[Any] | None:
        """Read such elements back from their text."""
        if value is None or dialect.name == "postgresql":
            return value
        plain = self.item.impl if isinstance(self.item, sa.TypeDecorator) else self.item
        python_type: Any = plain.python_type
        read = _FROM_TEXT.get(python_type)
        return value if read is None else [None if each is None else read(each) for each in value]


_FROM_TEXT: dict[type, Callable[[str], Any]] = {
    **{each: TypeAdapter(each).validate_python for each in (Decimal, UUID, date, time)},
    datetime: lambda text: datetime.fromisoformat(text).astimezone(UTC),
}


class PortableLiteral(sa.ColumnElement[Any]):
    """A constant in DDL that the databases spell differently, such as a UUID or an empty array.

    Attributes:
        postgresql: its spelling for PostgreSQL, quotes included.
        sqlite: its spelling for SQLite.
    """

    inherit_cache = False

    def __init__(self, postgresql: str, sqlite: str) -> None:
        self.postgresql = postgresql
        self.sqlite = sqlite

    def spelling(self, dialect_name: str) -> str:
        """Return the constant as one database reads it."""
        return self.sqlite if dialect_name == "sqlite" else self.postgresql


@compiles(PortableLiteral)
def _compile_portable_literal(element: PortableLiteral, compiler: Any, **_: Any) -> str:
    return element.spelling(compiler.dialect.name)


def portable_literal(value: Any, *, array: bool = False) -> PortableLiteral:
    """Return a constant of a projection schema as each database stores such values.

    Args:
        value: str (also JSON text), bool, int, float, Decimal, date, time, datetime in UTC or UUID; () for an
            empty array.
        array: whether the column is an array.
    """
    if array:
        return PortableLiteral("'{}'", "'[]'")
    match value:
        case bool():
            text = "TRUE" if value else "FALSE"
        case int() | float():
            text = repr(value)
        case Decimal():
            text = format(value, "f")
        case UUID():
            return PortableLiteral(f"'{value}'", f"'{value.hex}'")
        case datetime():
            wall = value.replace(tzinfo=None).isoformat(" ", "microseconds")
            return PortableLiteral(f"'{wall}+00:00'", f"'{wall}'")
        case time():
            text = f"'{value.isoformat('microseconds')}'"
        case _:
            text = "'" + str(value).replace("'", "''") + "'"
    return PortableLiteral(text, text)
