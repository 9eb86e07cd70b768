"""Defaults of columns: values in the column's type, and what is no literal or does not fit."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pytest

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec, ColumnType, Default, Kind, parse_column
from tests.domain.refusals import total_refused

DEFAULTS = [
    ("SMALLINT DEFAULT -32768", -32768, "-32768"),
    ("INTEGER DEFAULT +007", 7, "7"),
    ("INTEGER DEFAULT -2147483648", -(2**31), "-2147483648"),
    ("BIGINT DEFAULT -9223372036854775808", -(2**63), "-9223372036854775808"),
    ("BIGINT DEFAULT 9223372036854775807", 2**63 - 1, "9223372036854775807"),
    ("DECIMAL(4, 2) DEFAULT 5", Decimal("5.00"), "5.00"),
    ("DECIMAL(4, 2) DEFAULT -99.99", Decimal("-99.99"), "-99.99"),
    ("DECIMAL(4, 2) DEFAULT 1.50000", Decimal("1.50"), "1.50"),
    ("DECIMAL(4, 2) DEFAULT -0", Decimal("0.00"), "0.00"),
    ("DECIMAL(20, 10) DEFAULT 0.0000000001", Decimal("1E-10"), "0.0000000001"),
    ("DECIMAL(2, 2) DEFAULT 0.99", Decimal("0.99"), "0.99"),
    (
        "DECIMAL(30, 10) DEFAULT 12345678901234567890.0123456789",
        Decimal("12345678901234567890.0123456789"),
        "12345678901234567890.0123456789",
    ),
    (
        "DECIMAL(1000, 500) DEFAULT " + "9" * 500 + "." + "9" * 500,
        Decimal("9" * 500 + "." + "9" * 500),
        "9" * 500 + "." + "9" * 500,
    ),
    ("REAL DEFAULT 0.5", 0.5, "0.5"),
    ("DOUBLE PRECISION DEFAULT 1e-7", 1e-07, "1e-07"),
    ("DOUBLE PRECISION DEFAULT -2E+300", -2e300, "-2e+300"),
    ("DOUBLE PRECISION DEFAULT -0.0", 0.0, "0.0"),
    ("DOUBLE PRECISION DEFAULT 0e9", 0.0, "0.0"),
    ("DOUBLE PRECISION DEFAULT 0E9", 0.0, "0.0"),
    ("BOOLEAN DEFAULT true", True, "TRUE"),
    ("BOOLEAN DEFAULT False", False, "FALSE"),
    ("TEXT DEFAULT ''", "", "''"),
    ("TEXT DEFAULT 'it''s; -- NOT NULL /* fine */'", "it's; -- NOT NULL /* fine */", None),
    ("TEXT DEFAULT ''''", "'", "''''"),
    ("TEXT DEFAULT 'a\\nb\n%s :x {y}'", "a\\nb\n%s :x {y}", None),
    ("VARCHAR(2) DEFAULT '🙂é'", "🙂é", "'🙂é'"),
    ("CHAR(2) DEFAULT 'ab'", "ab", "'ab'"),
    ("DATE DEFAULT '2024-02-29'", date(2024, 2, 29), "'2024-02-29'"),
    ("TIME DEFAULT '23:59'", time(23, 59), "'23:59:00'"),
    ("TIME DEFAULT '23:59:58.5'", time(23, 59, 58, 500_000), "'23:59:58.500000'"),
    (
        "TIMESTAMP DEFAULT '2024-05-01 12:00+02:00'",
        datetime(2024, 5, 1, 10, tzinfo=UTC),
        "'2024-05-01T10:00:00+00:00'",
    ),
    ("TIMESTAMPTZ DEFAULT '2024-05-01T10:00:00Z'", datetime(2024, 5, 1, 10, tzinfo=UTC), None),
    (
        "UUID DEFAULT '6F9619FF-8B86-D011-B42D-00C04FC964FF'",
        UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        "'6f9619ff-8b86-d011-b42d-00c04fc964ff'",
    ),
    ('JSON DEFAULT \'{"b": [1.50, null], "a": "it\'\'s"}\'', '{"a":"it\'s","b":[1.5,null]}', None),
    ("JSONB DEFAULT '[]'", "[]", "'[]'"),
    ("JSONB DEFAULT '\"\\\\u0000\"'", '"\\\\u0000"', None),
    ("TEXT[] DEFAULT '{}'", (), "'{}'"),
    ("DECIMAL(5, 2)[] DEFAULT '{}' NOT NULL", (), "'{}'"),
]

BAD_DEFAULTS = [
    ("INTEGER DEFAULT", ""),
    ("INTEGER DEFAULT now()", "now()"),
    ("INTEGER DEFAULT (1)", "(1)"),
    ("INTEGER DEFAULT nextval('s')", "nextval('s')"),
    ("INTEGER DEFAULT NOT NULL", "NOT NULL"),
    ("INTEGER DEFAULT 1x", "1x"),
    ("INTEGER DEFAULT 1.", "1."),
    ("INTEGER DEFAULT .5", ".5"),
    ("INTEGER DEFAULT 0x10", "0x10"),
    ("INTEGER DEFAULT 1_000", "1_000"),
    ("INTEGER DEFAULT - 1", "- 1"),
    ("INTEGER DEFAULT --1", "--1"),
    ("INTEGER DEFAULT \u0661", "\u0661"),
    ("DOUBLE PRECISION DEFAULT NaN", "NaN"),
    ("DOUBLE PRECISION DEFAULT Infinity", "Infinity"),
    ("TEXT DEFAULT 'a", "'a"),
    ("TEXT DEFAULT 'a''", "'a''"),
    ('TEXT DEFAULT "a"', '"a"'),
    ("TEXT DEFAULT E'a'", "E'a'"),
    ("TEXT DEFAULT $$a$$", "$$a$$"),
    ("DATE DEFAULT CURRENT_DATE", "CURRENT_DATE"),
    ("DATE DEFAULT DATE '2024-01-01'", "DATE '2024-01-01'"),
    ("TEXT DEFAULT (SELECT 1)", "(SELECT 1)"),
]

MISFITS = [
    ("SMALLINT DEFAULT 32768", "it takes -32768 to 32767"),
    ("INTEGER DEFAULT -2147483649", "it takes -2147483648 to 2147483647"),
    ("BIGINT DEFAULT 9223372036854775808", "it takes -9223372036854775808 to 9223372036854775807"),
    ("BIGINT DEFAULT " + "9" * 5000, "it takes an integer"),
    ("INTEGER DEFAULT 1.0", "it takes an integer"),
    ("INTEGER DEFAULT 1e3", "write it without an exponent"),
    ("INTEGER DEFAULT TRUE", "it takes an integer"),
    ("INTEGER DEFAULT '1'", "it takes an integer"),
    ("DECIMAL(4, 2) DEFAULT 100", "it has too many digits"),
    ("DECIMAL(4, 2) DEFAULT 1.005", "it has too many digits"),
    ("DECIMAL(4, 2) DEFAULT " + "9" * 5000, "it has too many digits"),
    ("DECIMAL(4, 2) DEFAULT 1e1", "write it without an exponent"),
    ("DECIMAL(4, 2) DEFAULT '1'", "write the number without quotes"),
    ("DECIMAL(4, 2) DEFAULT FALSE", "it takes an exact number"),
    ("REAL DEFAULT 1e39", "it is out of range"),
    ("REAL DEFAULT 1e-50", "it is out of range"),
    ("DOUBLE PRECISION DEFAULT 1e400", "it is out of range"),
    ("DOUBLE PRECISION DEFAULT -1e-400", "it is out of range"),
    ("REAL DEFAULT '1'", "it takes a number"),
    ("REAL DEFAULT TRUE", "it takes a number"),
    ("BOOLEAN DEFAULT 1", "it takes TRUE or FALSE"),
    ("BOOLEAN DEFAULT 'true'", "it takes TRUE or FALSE"),
    ("TEXT DEFAULT 1", "it takes a string"),
    ("TEXT DEFAULT TRUE", "it takes a string"),
    ("TEXT DEFAULT 'a\0'", "NUL characters cannot be stored"),
    ("TEXT DEFAULT '\ud800'", "lone surrogates cannot be stored"),
    ("VARCHAR(2) DEFAULT 'abc'", "it is 3 characters long"),
    ("CHAR(2) DEFAULT 'abc'", "it is 3 characters long"),
    ("DATE DEFAULT '2023-02-29'", "day"),
    ("DATE DEFAULT '20230201'", "it takes a date such as 2024-12-31"),
    ("DATE DEFAULT '2024-W01-1'", "it takes a date such as 2024-12-31"),
    ("DATE DEFAULT '٢٠٢٤-01-01'", "it takes a date such as 2024-12-31"),
    ("DATE DEFAULT '2024-01-01\n'", "it takes a date such as 2024-12-31"),
    ("DATE DEFAULT 20240101", "it takes a date such as 2024-12-31"),
    ("DATE DEFAULT CURRENT_TIMESTAMP", "DEFAULT CURRENT_TIMESTAMP is for TIMESTAMP columns, not for DATE"),
    ("TEXT DEFAULT CURRENT_TIMESTAMP", "DEFAULT CURRENT_TIMESTAMP is for TIMESTAMP columns, not for TEXT"),
    ("TIMESTAMP[] DEFAULT CURRENT_TIMESTAMP", "not for TIMESTAMP WITH TIME ZONE[]"),
    ("TIME DEFAULT '25:00'", "hour must be in 0..23"),
    ("TIME DEFAULT '12:00Z'", "it takes a time of day without a zone such as 23:59:59"),
    ("TIME DEFAULT '12:00:00.1234567'", "it takes a time of day without a zone such as 23:59:59"),
    ("TIMESTAMP DEFAULT '2024-05-01 12:00'", "it takes a time with its offset"),
    ("TIMESTAMP DEFAULT '2024-05-01'", "it takes a time with its offset"),
    ("TIMESTAMP DEFAULT 'now'", "it takes a time with its offset"),
    ("TIMESTAMP DEFAULT '0001-01-01 00:00+14:00'", "date value out of range"),
    ("UUID DEFAULT '6f9619ff8b86d011b42d00c04fc964ff'", "it takes a UUID with its four hyphens"),
    ("UUID DEFAULT '{6f9619ff-8b86-d011-b42d-00c04fc964ff}'", "it takes a UUID with its four hyphens"),
    ("JSON DEFAULT '{'", "it takes JSON text"),
    ("JSON DEFAULT ''", "it takes JSON text"),
    ("JSON DEFAULT 'NaN'", "it takes JSON text"),
    ("JSON DEFAULT '[1e400]'", "it takes JSON text"),
    ("JSON DEFAULT '[0.10000000000000000001]'", "it takes JSON text"),
    ("JSON DEFAULT '\"\\ud800\"'", "it takes JSON text"),
    ("JSON DEFAULT '\"\\u0000\"'", "NUL characters cannot be stored"),
    ("JSON DEFAULT '\"\\\\\\u0000\"'", "NUL characters cannot be stored"),
    ("JSON DEFAULT '" + "[" * 100_000 + "'", "it takes JSON text"),
    ("JSON DEFAULT 1", "it takes JSON text"),
    ("BYTEA DEFAULT 'a'", "it takes no constants but NULL"),
    ("TEXT[] DEFAULT '{a}'", "the only constant array is the empty one, '{}'"),
    ("TEXT[] DEFAULT '[]'", "the only constant array is the empty one, '{}'"),
    ("DECIMAL(4, 2)[] DEFAULT 1", "the only constant array is the empty one, '{}'"),
]


@pytest.mark.parametrize(("definition", "value", "rendered"), DEFAULTS)
def test_a_default_is_kept_as_a_python_value(definition, value, rendered):
    """A literal becomes the value that the column would return, and is rendered canonically."""
    spec = parse_column("total", definition)
    assert spec.default == Default("literal", value)
    assert type(spec.default.value) is type(value)
    assert rendered is None or str(spec.default) == rendered
    assert parse_column("total", spec.definition) == spec


def test_times_of_defaults_are_in_utc():
    """A timestamp's offset is resolved when it is read."""
    spec = parse_column("total", "TIMESTAMP DEFAULT '2024-05-01 12:00:00-05:30'")
    assert spec.default.value.isoformat() == "2024-05-01T17:30:00+00:00"


def test_the_current_time_is_a_default_of_timestamps():
    """CURRENT_TIMESTAMP is no literal, and only a TIMESTAMP takes it."""
    spec = parse_column("total", "TIMESTAMP default current_timestamp NOT NULL")
    assert spec.default == Default("current_timestamp", None)
    assert spec.definition == "TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP"


@pytest.mark.parametrize(("definition", "rest"), BAD_DEFAULTS)
def test_a_default_is_a_literal(definition, rest):
    """Expressions, other literals and nothing at all are refused as defaults."""
    message = f"column 'total': cannot read {rest!r} in {definition!r}"
    with pytest.raises(SchemaError, match=r"\A" + re.escape(message)):
        parse_column("total", definition)


@pytest.mark.parametrize(("definition", "reason"), MISFITS)
def test_a_default_fits_its_column(definition, reason):
    """A default of another type, out of range, or that would be stored changed is refused with the reason."""
    with total_refused(reason) as caught:
        parse_column("total", definition)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"primary_key": True}, "column 'total': a PRIMARY KEY is never NULL"),
        ({"default": Default("literal", "5")}, "column 'total': DEFAULT '5' does not fit INTEGER"),
        (
            {"default": Default("literal", 10**5000)},
            "column 'total': DEFAULT an enormous integer does not fit",
        ),
        (
            {"default": Default("current_timestamp")},
            "column 'total': DEFAULT CURRENT_TIMESTAMP is for TIMESTAMP",
        ),
    ],
)
def test_a_contradicting_spec_cannot_be_made(options, message):
    """A ColumnSpec made by hand obeys the rules of the grammar."""
    with pytest.raises(SchemaError, match=r"\A" + re.escape(message)):
        ColumnSpec("total", ColumnType(Kind.INTEGER), **options)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.TIMESTAMP, datetime(2024, 5, 1)),  # noqa: DTZ001  naive on purpose
        (Kind.TIMESTAMP, date(2024, 5, 1)),
        (Kind.DATE, datetime(2024, 5, 1, tzinfo=UTC)),
        (Kind.TIME, time(12, tzinfo=UTC)),
        (Kind.DOUBLE, math.nan),
        (Kind.DOUBLE, -math.inf),
        (Kind.DOUBLE, 10**400),
        (Kind.REAL, Decimal(1)),
        (Kind.INTEGER, 1.0),
        (Kind.JSON, {"a": 1}),
    ],
)
def test_a_python_value_that_does_not_fit_is_refused(kind, value):
    """A Default made by hand takes no naive times, no infinities and no neighbouring types."""
    with pytest.raises(
        SchemaError, match=rf"\Acolumn 'total': DEFAULT .* does not fit {re.escape(str(ColumnType(kind)))}: "
    ):
        ColumnSpec("total", ColumnType(kind), default=Default("literal", value))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Decimal("NaN"), "it takes an exact number (an integer or a finite Decimal)"),
        (Decimal("sNaN"), "it takes an exact number (an integer or a finite Decimal)"),
        (Decimal("-Infinity"), "it takes an exact number (an integer or a finite Decimal)"),
        (1.5, "it takes an exact number (an integer or a finite Decimal)"),
        ("1e3", "it takes an exact number (an integer or a finite Decimal)"),
        (Decimal("1E+900"), "it has too many digits"),
        (Decimal("1E+999999"), "it has too many digits"),
        (Decimal("1E-999999"), "it has too many digits"),
        pytest.param(10**5000, "it has too many digits", id="enormous"),
    ],
)
def test_a_decimal_default_is_exact_and_finite(value, reason):
    """Floats, NaN, infinities and numbers beyond the precision are refused for DECIMAL."""
    with total_refused(f" does not fit DECIMAL(10, 2): {reason}"):
        ColumnSpec("total", ColumnType(Kind.DECIMAL, precision=10, scale=2), default=Default("literal", value))
