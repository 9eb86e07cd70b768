"""Values that a column would not give back as they were: refused by name, alike on both databases."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

import pytest

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

NAIVE = datetime(2026, 5, 1)  # noqa: DTZ001
NAN, INFINITY = float("nan"), float("inf")


class Number(Enum):
    ONE = 1


class Level(IntEnum):
    LOW = 1


def nest(depth):
    """Return lists in lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


ENDLESS = {}
ENDLESS["itself"] = ENDLESS

TEXT = "it takes text"
NUL = "it contains a NUL character, which PostgreSQL cannot store"
SURROGATE = "it contains a lone surrogate, which is not valid text"
WHOLE = "it takes a whole number (int)"
SMALL, INTEGER = "it takes -32768 to 32767", "it takes -2147483648 to 2147483647"
BIG = "it takes -9223372036854775808 to 9223372036854775807"
NUMBER, FINITE = "it takes a number", "it takes finite numbers"
FLOAT, INEXACT = "it takes a float", "a float cannot hold it exactly"
BOOLEAN, DAY = "it takes True or False", "it takes a date"
CLOCK = "it takes a time of day without a time zone"
MOMENT = "it takes a datetime"
NAIVE_TIME = "it is naive; give it a time zone, for example datetime.now(UTC)"
YEARS = "it is outside the years 1 to 9999 in UTC"
UID, BYTES, LIST = "it takes a UUID", "it takes bytes", "it takes a list"
ALONE = "a float by itself is no JSON document; put it into a list or an object"
SIXTY_FOUR = "a whole number by itself has at most 64 bits; put it into a list or an object"
MINUS = "JSON holds no minus zero"
DEEP = "it is nested too deeply, or contains itself"

REFUSED = [
    ("char", "abcdef", "it has 6 characters"),
    ("char", "abcde ", "it has 6 characters"),
    ("varchar", "😀😀😀😀😀😀", "it has 6 characters"),
    ("varchar", "e\u0301" * 3, "it has 6 characters"),
    ("varchar", "x" * 1_000_000, "it has 1000000 characters"),
    ("varchar", "\x00", NUL),
    ("text", "a\x00b", NUL),
    ("text", "\ud800", SURROGATE),
    ("text", "a\udfffb", SURROGATE),
    ("text", "\ud83d\ude00", SURROGATE),
    ("text", 5, TEXT),
    ("text", 1.5, TEXT),
    ("text", True, TEXT),
    ("text", b"bytes", TEXT),
    ("text", ["a"], TEXT),
    ("text", {"a": 1}, TEXT),
    ("text", Decimal(1), TEXT),
    ("text", UUID(int=1), TEXT),
    ("text", date(2026, 5, 1), TEXT),
    ("text", Number.ONE, TEXT),
    ("small", 2**15, SMALL),
    ("small", -(2**15) - 1, SMALL),
    ("whole", 2**31, INTEGER),
    ("whole", -(2**31) - 1, INTEGER),
    ("big", 2**63, BIG),
    ("big", -(2**63) - 1, BIG),
    ("big", 10**5000, BIG),
    ("whole", 1.0, WHOLE),
    ("whole", 1.5, WHOLE),
    ("whole", NAN, WHOLE),
    ("whole", True, WHOLE),
    ("whole", "1", WHOLE),
    ("whole", Decimal(1), WHOLE),
    ("whole", 1j, WHOLE),
    ("whole", Number.ONE, WHOLE),
    ("decimal", "1", NUMBER),
    ("decimal", True, NUMBER),
    ("decimal", 1j, NUMBER),
    ("decimal", NAN, FINITE),
    ("decimal", -INFINITY, FINITE),
    ("decimal", Decimal("NaN"), FINITE),
    ("decimal", Decimal("sNaN"), FINITE),
    ("decimal", Decimal("Infinity"), FINITE),
    ("decimal", Decimal("0.00001"), "it has 0 digits before and 5 after the point"),
    ("decimal", 0.1 + 0.2, "it has 0 digits before and 17 after the point"),
    ("decimal", 1.00005, "it has 1 digits before and 5 after the point"),
    ("decimal", 10**11, "it has 12 digits before and 0 after the point"),
    ("decimal", -(10**11), "it has 12 digits before and 0 after the point"),
    ("decimal", Decimal("1E+11"), "it has 12 digits before and 0 after the point"),
    ("decimal", 1e300, "it has 301 digits before and 0 after the point"),
    ("decimal", Decimal("1E-999999"), "it has 0 digits before and 999999 after the point"),
    ("decimal", Decimal("1E+999999"), "it has 1000000 digits before and 0 after the point"),
    ("decimal", 10**5000, "it has 5001 digits before and 0 after the point"),
    ("double", NAN, FINITE),
    ("double", INFINITY, FINITE),
    ("real", -INFINITY, FINITE),
    ("double", 2**53 + 1, INEXACT),
    ("double", 10**400, "it is too large"),
    ("double", Decimal("1.5"), FLOAT),
    ("double", "1.5", FLOAT),
    ("real", True, FLOAT),
    ("double", 1j, FLOAT),
    ("yes", 1, BOOLEAN),
    ("yes", 0, BOOLEAN),
    ("yes", "true", BOOLEAN),
    ("yes", "", BOOLEAN),
    ("day", datetime(2026, 5, 1, tzinfo=UTC), DAY),
    ("day", NAIVE, DAY),
    ("day", "2026-05-01", DAY),
    ("day", 20260501, DAY),
    ("clock", time(8, tzinfo=UTC), CLOCK),
    ("clock", datetime(2026, 5, 1, tzinfo=UTC), CLOCK),
    ("clock", "08:00", CLOCK),
    ("clock", timedelta(hours=8), CLOCK),
    ("moment", NAIVE, NAIVE_TIME),
    ("moment", date(2026, 5, 1), MOMENT),
    ("moment", "2026-05-01T00:00:00Z", MOMENT),
    ("moment", 1777593600, MOMENT),
    ("moment", datetime(1, 1, 1, tzinfo=timezone(timedelta(minutes=1))), YEARS),
    ("moment", datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(minutes=-1))), YEARS),
    ("uid", "", UID),
    ("uid", "1234", UID),
    ("uid", 5, UID),
    ("uid", b"1234567812345678", UID),
    ("uid", "g" * 32, UID),
    ("uid", " 2345678123456781234567812345678", UID),
    ("uid", "+2345678123456781234567812345678", UID),
    ("uid", "0x345678123456781234567812345678", UID),
    ("uid", "1_345678123456781234567812345678", UID),
    ("uid", "\u06612345678123456781234567812345678", UID),
    ("uid", "{12345678-1234-5678-1234-567812345678}", UID),
    ("uid", "12345678-1234-5678-1234567812345678", UID),
    ("uid", "12345678-1234-5678-1234-567812345678\n", UID),
    ("bytes", "text", BYTES),
    ("bytes", [1, 2], BYTES),
    ("bytes", 5, BYTES),
    ("doc", NAN, "it is nan, which JSON cannot hold"),
    ("doc", {"a": [1, INFINITY]}, "it.a[1] is inf, which JSON cannot hold"),
    ("doc", {"a": Decimal("NaN")}, "it.a is NaN, which JSON cannot hold"),
    ("doc", {1: 2}, "it has the key 1: keys of JSON objects are strings"),
    ("doc", {"a": {None: 2}}, "it.a has the key None: keys of JSON objects are strings"),
    ("doc", {"\x00": 1}, "a key of it contains a NUL character, which PostgreSQL cannot store"),
    ("doc", ["a\x00"], "it[0] contains a NUL character, which PostgreSQL cannot store"),
    ("doc", {"a": "\ud800"}, "it.a contains a lone surrogate, which is not valid text"),
    ("doc", {"a": b"\xff"}, "it.a is a bytes, which has no JSON form"),
    ("doc", {"a": object()}, "it.a is a object, which has no JSON form"),
    ("doc", {"a": 10**4300}, "it.a is a whole number of more than 4300 digits"),
    ("doc", nest(2000), DEEP),
    ("doc", ENDLESS, DEEP),
    ("doc", -0.0, MINUS),
    ("doc", [-0.0], MINUS),
    ("doc", {"a": {"b": (1, -0.0)}}, MINUS),
    ("doc", [1e16], "JSON holds 1e+16 as a whole number; write it as int or text"),
    ("doc", {"a": -1e23}, "JSON holds -1e+23 as a whole number; write it as int or text"),
    ("doc", 1.7976931348623157e308, "JSON holds 1.7976931348623157e+308 as a whole number; write it as int or text"),
    ("doc", 0.0, ALONE),
    ("doc", 5.0, ALONE),
    ("doc", 2.5, ALONE),
    ("doc", 2**63, SIXTY_FOUR),
    ("doc", -(2**63) - 1, SIXTY_FOUR),
    ("doc", 12345678901234567890, SIXTY_FOUR),
    ("doc", 10**400, SIXTY_FOUR),
]

LISTS = ProjectionSchema(
    collection="lists",
    fields=[
        ("id", "INTEGER PRIMARY KEY"),
        ("texts", "VARCHAR(3)[]"),
        ("small", "SMALLINT[]"),
        ("amounts", "DECIMAL(5, 2)[]"),
        ("floats", "REAL[]"),
        ("flags", "BOOLEAN[]"),
        ("days", "DATE[]"),
        ("moments", "TIMESTAMP[]"),
        ("uids", "UUID[]"),
    ],
)

REFUSED_LISTS = [
    ("texts", "abc", LIST),
    ("texts", {"a"}, LIST),
    ("texts", {"a": 1}, LIST),
    ("texts", iter(["a"]), LIST),
    ("texts", 5, LIST),
    ("texts", ["a", 5], TEXT),
    ("texts", ["abc", "abcd"], "it has 4 characters"),
    ("texts", ["\x00"], NUL),
    ("texts", ["\ud800"], SURROGATE),
    ("texts", [["a"]], TEXT),
    ("texts", b"abc", LIST),
    ("small", [1, 2**15], SMALL),
    ("small", [True], WHOLE),
    ("small", range(3), LIST),
    ("amounts", [Decimal("1.005")], "it has 1 digits before and 3 after the point"),
    ("amounts", [1000], "it has 4 digits before and 0 after the point"),
    ("amounts", [Decimal("NaN")], FINITE),
    ("amounts", ["1"], NUMBER),
    ("floats", [1.5, NAN], FINITE),
    ("floats", [Decimal("1.5")], FLOAT),
    ("flags", [1], BOOLEAN),
    ("days", [NAIVE], DAY),
    ("moments", [NAIVE], NAIVE_TIME),
    ("uids", ["x"], UID),
]


async def refusals(session_factory, store, statements, collection, table):
    """Try each value in each way; return what was not refused as expected, and how often the two were sent."""
    wrong = []
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.upsert(collection, 1, {}, uow=uow)
        await store.upsert(collection, 1, {}, uow=uow)
        statements.clear()
        for column, value, reason in table:
            expected = rf"(?s)column '{column}': .* does not fit [^:]+: {re.escape(reason)}"
            for docs in (None, [{"id": 2}, {"id": 3, column: value}]):
                call = (
                    store.upsert(collection, 2, {column: value}, uow=uow)
                    if docs is None
                    else store.bulk_upsert(collection, docs, uow=uow)
                )
                with pytest.raises(ValueError) as caught:
                    await call
                if not re.fullmatch(expected, str(caught.value)) or len(str(caught.value)) > 300:
                    wrong.append((column, value, str(caught.value)))
        wrong += [each for each in statements if not re.match("SAVEPOINT|ROLLBACK TO SAVEPOINT", each)]
        await store.upsert(collection, 4, {}, uow=uow)
    assert [row["id"] for row in await store.find(collection)] == [1, 4]
    return wrong


async def test_what_would_not_come_back_unchanged_is_refused(session_factory, store, statements):
    """With the column and the reason, the same on both databases, before a statement; the unit of work goes on."""
    assert await refusals(session_factory, store, statements, "everything", REFUSED) == []


@pytest.mark.parametrize("schemas", [[LISTS], []], ids=["types from schemas", "types from the database"])
async def test_what_a_list_would_not_give_back_is_refused(session_factory, statements, schemas):
    """Elements are held to the type of their array on SQLite too."""
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=schemas)
    await store.ensure_collection("lists", schema=LISTS)
    assert await refusals(session_factory, store, statements, "lists", REFUSED_LISTS) == []


BAD_KEYS = [2**63, -(2**63) - 1, 10**5000, 1.0, 1.5, NAN, "1", b"1", True, Decimal(1), [1], (1,), {1}, object(), 1j]


async def test_a_key_is_held_to_the_type_of_its_column(session_factory, store, statements):
    """A key that is no value of its column is refused by every method that takes one, before a statement."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.upsert("everything", 1, {}, uow=uow)
        statements.clear()
        for key in BAD_KEYS:
            for call in (
                store.upsert("everything", key, {}, uow=uow),
                store.upsert("everything", {"id": key}, {}, uow=uow),
                store.upsert("everything", 1, {"id": key}, uow=uow),
                store.delete("everything", key, uow=uow),
                store.find_one("everything", key, uow=uow),
                store.find_many("everything", [1, key], uow=uow),
                store.find("everything", {"id": key}, uow=uow),
                store.find("everything", {"id": {"$in": [1, key]}}, uow=uow),
                store.find("everything", after={"id": key}, uow=uow),
            ):
                with pytest.raises(ValueError, match=r"\Acolumn 'id': .* does not fit BIGINT: "):
                    await call
        assert statements == []
        assert await store.count("everything", uow=uow) == 1


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        ({"event_id": "x" * 101}, r"column '_last_event_id': .* does not fit VARCHAR\(100\): it has 101 characters"),
        ({"event_id": "\x00"}, r"column '_last_event_id': .* contains a NUL"),
        ({"event_id": 5}, r"column '_last_event_id': 5 does not fit"),
        *(({"event_position": bad}, "event_position must be a whole number") for bad in (-1, 1.0, True, "1", 2**63)),
        *(
            ({"expected_version": bad}, "expected_version must be a whole number")
            for bad in (-1, 1.0, True, "1", 2**63)
        ),
    ],
)
async def test_a_guard_that_no_column_could_hold_is_refused(store, statements, guard, message):
    """What guards compare with is checked like what is stored."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    statements.clear()
    with pytest.raises(ValueError, match=message):
        await store.upsert("orders", "o1", {"customer": "Eve"}, **guard)
    assert not [each for each in statements if "orders" in each]


DIGITS = ProjectionSchema(
    collection="digits",
    fields=[
        ("id", "INTEGER PRIMARY KEY"),
        ("whole", "DECIMAL(20, 0)"),
        ("places", "DECIMAL(20, 20)"),
        ("wide", "DECIMAL(1000, 400)"),
    ],
)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("whole", 2**63, "this database holds 15 digits exactly, it has 19"),
        ("whole", 1234567890123456, "this database holds 15 digits exactly, it has 16"),
        ("places", Decimal("0.1234567890123456"), "this database holds 15 digits exactly, it has 16"),
        ("wide", Decimal("1E+400"), "it is beyond what this database holds exactly"),
        ("wide", Decimal("1E-400"), "it is beyond what this database holds exactly"),
        ("wide", Decimal("1.23456789E-320"), "it is beyond what this database holds exactly"),
    ],
)
async def test_a_decimal_that_no_double_is_like_is_refused_on_sqlite(
    session_factory, database, statements, column, value, reason
):
    """The one difference that the contract allows: SQLite keeps decimals as doubles, and refuses what they lose."""
    if database.kind != "sqlite":
        return
    maker = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[DIGITS])
    await maker.ensure_collection("digits", schema=DIGITS)
    for store in (maker, SQLAlchemyProjectionStore(session_factory)):
        await store.upsert("digits", 1, {})
        statements.clear()
        with pytest.raises(ValueError, match=rf"\Acolumn '{column}': .* does not fit DECIMAL\(.*\): {reason}\Z"):
            await store.upsert("digits", 1, {column: value})
        assert not [each for each in statements if "digits" in each]
