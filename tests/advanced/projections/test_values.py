"""Values in columns: unchanged or refused, on both databases alike."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

from cqrs_ddd_advanced_core.projections.kinds import ColumnType, Kind
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.values import to_column


class Colour(Enum):
    RED = "red"


UID = UUID("12345678-1234-5678-1234-567812345678")
MOMENT = datetime(2026, 5, 1, 8, 0, 0, 123456, tzinfo=UTC)

ROUND_TRIPS = [
    ("char", "ab", "ab"),
    ("char", "ab   ", "ab   "),
    ("varchar", "grüße", "grüße"),
    ("varchar", "", ""),
    ("varchar", Colour.RED, "red"),
    ("text", "line\nand 😀 \\ ' \" % :x", "line\nand 😀 \\ ' \" % :x"),
    ("small", -(2**15), -(2**15)),
    ("whole", 2**31 - 1, 2**31 - 1),
    ("big", -(2**63), -(2**63)),
    ("decimal", 99.99, Decimal("99.9900")),
    ("decimal", 5, Decimal("5.0000")),
    ("decimal", Decimal("1E+3"), Decimal("1000.0000")),
    ("decimal", Decimal("-12345678901.2345"), Decimal("-12345678901.2345")),
    ("decimal", Decimal("0.0001"), Decimal("0.0001")),
    ("decimal", Decimal("-0"), Decimal("0.0000")),
    ("real", 0.1, 0.1),
    ("double", 1e308, 1e308),
    ("double", 3, 3.0),
    ("yes", True, True),
    ("yes", False, False),
    ("day", date(1, 1, 1), date(1, 1, 1)),
    ("clock", time(23, 59, 59, 999999), time(23, 59, 59, 999999)),
    ("moment", MOMENT, MOMENT),
    (
        "moment",
        datetime(2026, 5, 1, 13, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        MOMENT.replace(microsecond=0),
    ),
    ("moment", datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    ("uid", UID, UID),
    ("uid", str(UID), UID),
    ("doc", {"a": [1, 2.5, None, True, {"ü": "😀"}]}, {"a": [1, 2.5, None, True, {"ü": "😀"}]}),
    ("doc", [], []),
    ("doc", "text", "text"),
    ("doc", 5, 5),
    ("doc", False, False),
    ("bytes", b"\x00\xff", b"\x00\xff"),
    ("tags", ["a", "b,c", '"', ""], ["a", "b,c", '"', ""]),
    ("tags", [], []),
]


async def test_values_come_back_unchanged(store):
    """What a column can hold comes back equal and of the column's type, times in UTC."""
    altered = []
    for number, (column, given, stored) in enumerate(ROUND_TRIPS):
        await store.upsert("everything", number, {column: given})
        value = (await store.find_one("everything", number))[column]
        if (
            value != stored
            or not isinstance(value, type(stored))
            or isinstance(value, bool) != isinstance(stored, bool)
        ):
            altered.append((column, given, value))
        if isinstance(value, datetime) and value.utcoffset() != timedelta(0):
            altered.append((column, given, value))
    assert altered == []


REFUSED = [
    ("char", "abcdef", "it has 6 characters"),
    ("varchar", "a\x00", "NUL"),
    ("text", "\ud800", "lone surrogate"),
    ("text", 5, "it takes text"),
    ("text", b"x", "it takes text"),
    ("small", 2**15, "it takes -32768 to 32767"),
    ("whole", 1.5, "it takes a whole number"),
    ("whole", 1.0, "it takes a whole number"),
    ("whole", True, "it takes a whole number"),
    ("whole", "1", "it takes a whole number"),
    ("whole", 2**31, "it takes -2147483648"),
    ("big", 2**63, "it takes -9223372036854775808"),
    ("big", 10**5000, "it takes -9223372036854775808"),
    ("decimal", Decimal("NaN"), "finite"),
    ("decimal", float("inf"), "finite"),
    ("decimal", "1", "it takes a number"),
    ("decimal", True, "it takes a number"),
    ("decimal", Decimal("0.00001"), "0 digits before and 5 after the point"),
    ("decimal", 10**11, "12 digits before"),
    ("decimal", Decimal(10) ** 30, "31 digits before"),
    ("double", float("nan"), "finite"),
    ("double", 2**53 + 1, "cannot hold it exactly"),
    ("double", "1.0", "it takes a float"),
    ("yes", 1, "it takes True or False"),
    ("day", MOMENT, "it takes a date"),
    ("clock", time(1, tzinfo=UTC), "without a time zone"),
    ("moment", datetime(2026, 5, 1), "naive"),  # noqa: DTZ001
    ("moment", "2026-05-01", "it takes a datetime"),
    ("moment", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "outside the years"),
    ("uid", "1234", "it takes a UUID"),
    ("doc", {1: 2}, "keys of JSON objects are strings"),
    ("doc", {"a": float("nan")}, "JSON cannot hold"),
    ("doc", {"a": "\x00"}, "NUL"),
    ("bytes", "text", "it takes bytes"),
]


async def test_what_would_be_altered_is_refused(session_factory, store):
    """Each error names the column and the transaction goes on, before anything has reached the database."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for column, value, message in REFUSED:
            with pytest.raises(ValueError, match=rf"column '{column}'.*{message}"):
                await store.upsert("everything", 1, {column: value}, uow=uow)
        await store.upsert("everything", 2, {}, uow=uow)
    assert [row["id"] for row in await store.find("everything")] == [2]


async def test_digits_that_sqlite_would_round_are_refused_there(store, engine, session_factory):
    """SQLite keeps fifteen digits of a decimal exactly and refuses more; PostgreSQL keeps all."""
    wide = ProjectionSchema(collection="wide", fields=[("id", "INTEGER PRIMARY KEY"), ("amount", "DECIMAL(20, 4)")])
    maker = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await maker.ensure_collection("wide", schema=wide)
    sixteen = Decimal("123456789012.3456")
    if engine.dialect.name == "sqlite":
        with pytest.raises(ValueError, match="column 'amount': .* holds 15 digits exactly, it has 16"):
            await store.upsert("wide", 1, {"amount": sixteen})
    else:
        await store.upsert("wide", 1, {"amount": sixteen})
        assert (await store.find_one("wide", 1))["amount"] == sixteen
    await store.upsert("wide", 2, {"amount": Decimal("12345678901.2345")})
    assert (await store.find_one("wide", 2))["amount"] == Decimal("12345678901.2345")


async def test_arrays_take_lists_of_their_elements(session_factory, made):
    """Elements of every kind come back as they were, on SQLite too, where the array is JSON."""
    kinds = {
        "texts": ("TEXT[]", ["a", "b,c", '"', None]),
        "numbers": ("BIGINT[]", [1, -(2**63)]),
        "amounts": ("DECIMAL(10, 2)[]", [Decimal("1.50"), Decimal("-3.25")]),
        "uids": ("UUID[]", [UID]),
        "moments": ("TIMESTAMP[]", [MOMENT]),
        "days": ("DATE[]", [date(2026, 5, 1)]),
        "flags": ("BOOLEAN[]", [True, False]),
    }
    schema = ProjectionSchema(
        collection="arrays",
        fields=[("id", "INTEGER PRIMARY KEY"), *((name, kind) for name, (kind, _) in kinds.items())],
    )
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[schema])
    await store.ensure_collection("arrays", schema=schema)
    doc = {name: value for name, (_, value) in kinds.items()}
    await store.upsert("arrays", 1, doc)
    assert await store.find_one("arrays", 1) == {"id": 1} | doc
    for value in ("abc", {"a"}, [1]):
        with pytest.raises(ValueError, match="column 'texts'"):
            await store.upsert("arrays", 1, {"texts": value})


async def test_a_naive_time_in_a_filter_is_refused(store):
    """A filter is held to the same types as a document."""
    with pytest.raises(ValueError, match="column 'moment': .* naive"):
        await store.find("everything", {"moment": datetime(2026, 5, 1)})  # noqa: DTZ001


@pytest.mark.parametrize("text", ["9" * 500 + "." + "9" * 500, "0." + "0" * 499 + "1", "12345678901234567890.1"])
def test_a_long_decimal_in_a_list_keeps_every_digit(text):
    """The places of the column are filled up without rounding, however many digits a decimal has."""
    column_type = ColumnType(Kind.DECIMAL, precision=1000, scale=500, array=True)
    (value,) = to_column("amounts", column_type, [Decimal(text)])
    assert value == Decimal(text)
    assert value.as_tuple().exponent == -500
