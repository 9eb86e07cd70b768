"""Awkward but legal values: whichever way they are written and read, they come back equal and of the same type."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

import pytest

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Loud(str):
    """Text that shows itself as something else."""

    __slots__ = ()

    def __str__(self):
        return "LOUD"


class Odd(float):
    """A number that shows itself as something else."""

    def __repr__(self):
        return "odd"


SAME = object()
UID = UUID("00000000-0000-0000-0000-000000000000")
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def at(hours, minutes=0, seconds=0, microseconds=0):
    """Return a time zone with that offset."""
    return timezone(timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds))


VALUES = ProjectionSchema(
    collection="kept",
    fields=[
        ("id", "INTEGER PRIMARY KEY"),
        ("char", "CHAR(5)"),
        ("varchar", "VARCHAR(5)"),
        ("digits", "VARCHAR(32)"),  # as long as a UUID without hyphens
        ("text", "TEXT"),
        ("small", "SMALLINT"),
        ("whole", "INTEGER"),
        ("big", "BIGINT"),
        ("amount", "DECIMAL(10, 2)"),
        ("units", "DECIMAL(15)"),
        ("share", "DECIMAL(15, 15)"),
        ("rate", "DECIMAL(15, 4)"),
        ("real", "REAL"),
        ("double", "DOUBLE PRECISION"),
        ("yes", "BOOLEAN"),
        ("day", "DATE"),
        ("clock", "TIME"),
        ("moment", "TIMESTAMP"),
        ("uid", "UUID"),
        ("doc", "JSON"),
        ("bytes", "BYTEA"),
        ("texts", "TEXT[]"),
        ("numbers", "BIGINT[]"),
        ("flags", "BOOLEAN[]"),
        ("floats", "DOUBLE PRECISION[]"),
    ],
)

KEPT = [
    ("char", "", SAME),
    ("char", "     ", SAME),
    ("char", "ab   ", SAME),
    ("varchar", "😀😀😀😀😀", SAME),
    ("varchar", "e\u0301e\u0301e", SAME),
    ("varchar", "\u00e9", SAME),  # not made one with the letter and its accent
    ("varchar", Colour.RED, "red"),
    ("varchar", Loud("quiet"), "quiet"),
    ("digits", "12345678123456781234567812345678", SAME),
    ("digits", "0012", SAME),
    ("digits", "1e5", SAME),
    ("digits", " 7 ", SAME),
    ("digits", "NULL", SAME),
    ("text", "", SAME),
    ("text", "12345678901234567890.10", SAME),
    ("text", "\x01\t\r\n\x1f\x7f\x85\u2028\ufeff", SAME),
    ("text", "\\x00 \\u0000 \\0 ''' \"\"\" % _ ? :a $1 {} -- /*", SAME),
    ("text", "\ufffe\uffff\U0010ffff", SAME),
    ("text", "\u202eright to left\u202c \u0646\u0635", SAME),
    ("text", "x" * 300_000, SAME),
    ("small", -(2**15), SAME),
    ("small", 2**15 - 1, SAME),
    ("small", Level.LOW, 1),
    ("whole", -(2**31), SAME),
    ("whole", 2**31 - 1, SAME),
    ("whole", 0, SAME),
    ("big", -(2**63), SAME),
    ("big", 2**63 - 1, SAME),
    ("big", 2**53 + 1, SAME),
    ("amount", Decimal("99.90"), SAME),
    ("amount", Decimal("99.9"), Decimal("99.90")),
    ("amount", Decimal("-0.01"), SAME),
    ("amount", Decimal("1E+7"), Decimal("10000000.00")),
    ("amount", Decimal("12345678.900"), Decimal("12345678.90")),
    ("amount", 99.99, Decimal("99.99")),
    ("amount", Odd(0.1), Decimal("0.10")),
    ("amount", 7, Decimal("7.00")),
    ("amount", Decimal("-0.00"), Decimal("0.00")),
    ("amount", Decimal("0E-30"), Decimal("0.00")),
    ("amount", Decimal("0E+30"), Decimal("0.00")),
    ("amount", Decimal("1.50000000000000000000"), Decimal("1.50")),
    ("units", Decimal(999999999999999), SAME),
    ("units", -(10**14), Decimal(-(10**14))),
    ("share", Decimal("0.123456789012345"), SAME),
    ("share", Decimal("-0.999999999999999"), SAME),
    ("share", Decimal("1E-15"), SAME),
    ("rate", Decimal("99999999999.9999"), SAME),
    ("rate", Decimal("0.3000"), SAME),
    ("real", 0.1, SAME),
    ("real", 16777217.0, SAME),
    ("double", 0.1 + 0.2, SAME),
    ("double", 5e-324, SAME),
    ("double", -1.7976931348623157e308, SAME),
    ("double", 1e22, SAME),
    ("double", 2.0**53, SAME),
    ("double", 3, 3.0),
    ("double", -0.0, 0.0),  # which it equals; SQLite does not keep the sign
    ("yes", True, SAME),
    ("yes", False, SAME),
    ("day", date.min, SAME),
    ("day", date.max, SAME),
    ("day", date(4, 2, 29), SAME),
    ("day", date(1582, 10, 10), SAME),  # a day that the Gregorian calendar skipped when it began
    ("clock", time.min, SAME),
    ("clock", time.max, SAME),
    ("clock", time(0, 0, 0, 1), SAME),
    ("clock", time(2, 30, fold=1), time(2, 30)),
    ("moment", FIRST, SAME),
    ("moment", LAST, SAME),
    ("moment", datetime(2026, 5, 1, 8, 0, 0, 1, tzinfo=UTC), SAME),
    ("moment", datetime(2026, 5, 1, 23, 59, tzinfo=at(14)), datetime(2026, 5, 1, 9, 59, tzinfo=UTC)),
    ("moment", datetime(2026, 5, 1, tzinfo=at(-12)), datetime(2026, 5, 1, 12, tzinfo=UTC)),
    ("moment", datetime(2026, 5, 1, tzinfo=at(5, 53, 28)), datetime(2026, 4, 30, 18, 6, 32, tzinfo=UTC)),
    ("moment", datetime(2026, 5, 1, tzinfo=at(0, 0, 0, 1)), datetime(2026, 4, 30, 23, 59, 59, 999999, tzinfo=UTC)),
    ("moment", datetime(1, 1, 1, tzinfo=at(-23, -59)), datetime(1, 1, 1, 23, 59, tzinfo=UTC)),
    ("uid", UID, SAME),
    ("uid", UUID(int=2**128 - 1), SAME),
    ("uid", "12345678123456781234567812345678", UUID("12345678123456781234567812345678")),
    ("uid", "ABCDEF00-1234-5678-1234-567812345678", UUID("abcdef00-1234-5678-1234-567812345678")),
    ("doc", {}, SAME),
    ("doc", [], SAME),
    ("doc", "", SAME),
    ("doc", "123", SAME),
    ("doc", "1e400", SAME),
    ("doc", " 7 ", SAME),
    ("doc", "null", SAME),
    ("doc", "😀 \\ \" '", SAME),
    ("doc", 0, SAME),
    ("doc", 2**63 - 1, SAME),
    ("doc", -(2**63), SAME),
    ("doc", True, SAME),
    ("doc", False, SAME),
    ("doc", [0.0, 5.0, 2.5, 0.1 + 0.2, -1.5e-300, 5e-324, 9007199254740992.0, 9999999999999998.0], SAME),
    ("doc", [12345678901234567890, -(10**400), 10**4299], SAME),
    ("doc", {"": None, " ": [None], "a.b": {"$c": []}, "ü": {"😀": "\u2028"}}, SAME),
    ("doc", {"a": {"b": {"c": [[[[{"d": [1, {"e": {}}]}]]]]}}}, SAME),
    ("doc", {"b": 1, "a": 2, "B": 3, "a ": 4}, SAME),
    ("doc", {"at": FIRST, "n": Decimal("1.50")}, {"at": "0001-01-01T00:00:00Z", "n": "1.50"}),
    ("doc", (1, {"s": {7}}), [1, {"s": [7]}]),
    ("bytes", b"", SAME),
    ("bytes", b"\x00", SAME),
    ("bytes", bytes(range(256)), SAME),
    ("bytes", bytearray(b"\\x41"), b"\\x41"),
    ("bytes", memoryview(b"abcd")[::2], b"ac"),
    ("texts", [], SAME),
    ("texts", [None], SAME),
    ("texts", ["", "NULL", None, "{}", '"', ",", "\\", "a b", "😀", "[1]"], SAME),
    ("texts", ("a", Colour.RED), ["a", "red"]),
    ("numbers", [2**63 - 1, None, -(2**63), 2**53 + 1], SAME),
    ("flags", [True, None, False], SAME),
    ("floats", [0.1 + 0.2, None, 5e-324, 1e15, 3.0], SAME),
]


def identical(found, expected):
    """Tell whether two values are equal and of the same types all the way down, places of decimals included."""
    if isinstance(expected, UUID):  # asyncpg's is a subclass
        return isinstance(found, UUID) and found == expected
    if type(found) is not type(expected) or found != expected:
        return False
    if isinstance(found, dict):
        return all(identical(found[key], expected[key]) for key in found)
    if isinstance(found, list):
        return all(map(identical, found, expected))
    if isinstance(found, datetime):
        return found.utcoffset() == timedelta(0)
    return repr(found) == repr(expected)


@pytest.fixture
async def kept(request, session_factory):
    """The collection, in a store that reads the types from the database, or has them from the schema."""
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=request.param)
    await store.ensure_collection("kept", schema=VALUES)
    return store


both = pytest.mark.parametrize(
    "kept", [(), (VALUES,)], ids=["types from the database", "types from schemas"], indirect=True
)


@both
async def test_awkward_values_come_back_as_they_were(session_factory, kept):
    """Written by upsert and by bulk_upsert; read by find_one, find, find_many and stream."""
    documents = {
        number: {column: given if expected is SAME else expected}
        for number, (column, given, expected) in enumerate(KEPT)
    }
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for number, (column, given, _) in enumerate(KEPT):
            await kept.upsert("kept", number, {column: given}, uow=uow)
        bulk = [{"id": 1000 + number, column: given} for number, (column, given, _) in enumerate(KEPT)]
        await kept.bulk_upsert("kept", bulk, uow=uow)
    ids = [*documents, *(1000 + number for number in documents)]
    readings = {
        "find_one": [await kept.find_one("kept", each) for each in ids],
        "find_many": await kept.find_many("kept", ids),
        "find": await kept.find("kept", limit=10_000),
        "stream": [row async for row in kept.stream("kept")],
    }
    altered = []
    for how, rows in readings.items():
        assert [row["id"] for row in rows] == ids
        for row in rows:
            ((column, expected),) = documents[row["id"] % 1000].items()
            if not identical(row[column], expected):
                altered.append((how, row["id"], column, expected, row[column]))
    assert altered == []


@both
async def test_awkward_values_are_found_by_themselves(kept):
    """A filter with the value finds its document, and a cursor at it goes on behind it."""
    comparable = [
        (number, *each)
        for number, each in enumerate(KEPT)
        if each[0] not in {"doc", "texts", "numbers", "flags", "floats"}
    ]
    for number, column, given, expected in comparable:
        value = given if expected is SAME else expected
        await kept.upsert("kept", number, {column: given})
        for filter_ in ({column: given}, {column: value}, {column: {"$in": [value, None]}, "id": {"$gte": number}}):
            assert [row["id"] for row in await kept.find("kept", filter_)] == [number], (column, filter_)
        if column != "bytes":
            sort = [(column, -1)]
            assert await kept.find("kept", {"id": number}, sort, after={column: value, "id": number}) == []
            assert len(await kept.find("kept", {"id": number}, sort, after={column: value, "id": number - 1})) == 1
        await kept.delete("kept", number)


KEYS = {
    "VARCHAR(40)": ["", " ", "a", "A", "0", "00", "😀", "é", "e\u0301", "%", "a" * 40],
    "BIGINT": [0, -1, 2**63 - 1, -(2**63)],
    "DECIMAL(10, 2)": [Decimal("0.00"), Decimal("0.10"), Decimal("-99999999.99"), Decimal("1000.00")],
    "BOOLEAN": [True, False],
    "DATE": [date.min, date.max],
    "TIME": [time.min, time.max],
    "TIMESTAMP": [FIRST, LAST],
    "UUID": [UID, UUID(int=2**128 - 1)],
}


@pytest.mark.parametrize("given", [True, False], ids=["types from schemas", "types from the database"])
async def test_awkward_keys_identify_documents(session_factory, given):
    """A key of any type is found by each method, and no other document is taken for it."""
    for number, (definition, keys) in enumerate(KEYS.items()):
        name = f"keys_{number}"
        schema = ProjectionSchema(collection=name, fields=[("k", f"{definition} PRIMARY KEY"), ("n", "INTEGER")])
        store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[schema] if given else [])
        await store.ensure_collection(name, schema=schema)
        for position, key in enumerate(keys):
            await store.upsert(name, key, {"n": -1})
            await store.upsert(name, {"k": key}, {"k": key, "n": position})
        expected = [{"k": key, "n": position} for position, key in enumerate(keys)]
        assert await store.find_many(name, keys) == expected
        assert [await store.find_one(name, key) for key in keys] == expected
        assert all(identical(row["k"], key) for row, key in zip(await store.find_many(name, keys), keys, strict=True))
        for key in keys:
            assert await store.delete(name, key)
        assert await store.count(name) == 0


ARRAYS = {
    "DECIMAL(10, 2)[]": [Decimal("99.90"), None, Decimal("-0.01"), Decimal("12345678.90"), Decimal("0.00")],
    "UUID[]": [UID, None],
    "DATE[]": [date.min, date.max, None],
    "TIME[]": [time.min, time.max, time(1, 2, 3, 400), None],
    "TIMESTAMP[]": [FIRST, LAST, None, datetime(2026, 5, 1, 8, 0, 0, 1, tzinfo=UTC)],
    "SMALLINT[]": [-(2**15), None],
    "REAL[]": [0.1, None, 16777217.0],
    "DOUBLE PRECISION[]": [1e22, -1.7976931348623157e308, None],
    "CHAR(3)[]": ["ab ", "", None],
    "VARCHAR(3)[]": ["abc", None],
    "TEXT[]": ["[1]", "null", None],
    "INTEGER[]": [2**31 - 1, None],
    "BIGINT[]": [-(2**63), None],
    "BOOLEAN[]": [True, False, None],
}


@pytest.mark.parametrize("given", [True, False], ids=["types from schemas", "types from the database"])
async def test_elements_of_every_type_come_back_as_they_were(session_factory, given):
    """Lists of decimals, UUIDs and times are such on SQLite too, which declares columns by the elements' type."""
    columns = {f"c{number}": kind for number, kind in enumerate(ARRAYS)}
    schema = ProjectionSchema(collection="arrays", fields=[("id", "INTEGER PRIMARY KEY"), *columns.items()])
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[schema] if given else [])
    await store.ensure_collection("arrays", schema=schema)
    doc = {name: ARRAYS[kind] for name, kind in columns.items()}
    await store.upsert("arrays", 1, doc)
    await store.bulk_upsert("arrays", [{"id": 2} | doc])
    for row in await store.find("arrays"):
        for name, values in doc.items():
            assert identical(row[name], values), (columns[name], row[name])
            assert all(each.tzinfo is UTC for each in row[name] if isinstance(each, datetime))


async def test_the_places_of_a_list_s_decimals_are_those_of_the_column(session_factory):
    """Numbers of other spellings come back as DECIMAL(p, s) spells them, alike on both databases."""
    schema = ProjectionSchema(collection="spelt", fields=[("id", "INTEGER PRIMARY KEY"), ("a", "DECIMAL(10, 2)[]")])
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[schema])
    await store.ensure_collection("spelt", schema=schema)
    await store.upsert("spelt", 1, {"a": [1, 1.5, Decimal("1E+3"), Decimal("2.500"), Decimal("-0")]})
    (row,) = await store.find("spelt")
    assert [str(each) for each in row["a"]] == ["1.00", "1.50", "1000.00", "2.50", "0.00"]
