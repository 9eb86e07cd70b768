"""What holds of all values, filters and sorts, tried with random ones on both databases."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from tests.support.engines import check_no_leaks, create_async_engine

from .test_filters import naive

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INNER = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29))  # noqa: DTZ001  (the zone is drawn apart)


def digits(precision, scale):
    """All decimals of a column."""
    return st.integers(1 - 10**precision, 10**precision - 1).map(lambda units: Decimal(units).scaleb(-scale))


def whole(bits):
    """All whole numbers of a column, those at the borders more often."""
    low, high = -(2**bits), 2**bits - 1
    return st.integers(low, high) | st.sampled_from([low, high, 0])


JSON_FLOATS = st.floats(-1e15, 1e15).filter(lambda number: str(number) != "-0.0")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | JSON_FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
).filter(lambda document: isinstance(document, (dict, list, str, bool)))

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TYPES = {
    "CHAR(20)": TEXT,
    "VARCHAR(20)": TEXT,
    "TEXT": TEXT,
    "SMALLINT": whole(15),
    "INTEGER": whole(31),
    "BIGINT": whole(63),
    "DECIMAL(1, 0)": digits(1, 0),
    "DECIMAL(10, 2)": digits(10, 2),
    "DECIMAL(15, 0)": digits(15, 0),
    "DECIMAL(15, 15)": digits(15, 15),
    "REAL": FLOATS,
    "DOUBLE PRECISION": FLOATS,
    "BOOLEAN": st.booleans(),
    "DATE": st.dates(),
    "TIME": st.times(),
    "TIMESTAMP": st.builds(lambda moment, zone: moment.replace(tzinfo=zone), INNER, ZONES),
    "UUID": st.uuids(),
    "JSON": JSON,
    "BYTEA": st.binary(max_size=50),
}
ARRAYS = {
    f"{kind}[]": st.lists(st.none() | values, max_size=4)
    for kind, values in TYPES.items()
    if kind not in {"JSON", "BYTEA"}
}
COLUMNS = {f"c{number}": kind for number, kind in enumerate([*TYPES, *ARRAYS])}
VALUES = {name: st.none() | (TYPES | ARRAYS)[kind] for name, kind in COLUMNS.items()}
ALL = ProjectionSchema(collection="kinds", fields=[("id", "INTEGER PRIMARY KEY"), *COLUMNS.items()])


@contextmanager
def running(database, schema, *, given=True):
    """Yield a store with a collection, and a function that runs coroutines, all in one event loop."""
    with asyncio.Runner() as runner:
        engine = configure_engine(create_async_engine(database.url))
        schemas = [schema] if given else []
        store = SQLAlchemyProjectionStore(async_sessionmaker(engine), allow_auto_ddl=True, schemas=schemas)
        runner.run(store.ensure_collection(schema.collection, schema=schema))
        try:
            yield store, runner.run
        finally:
            runner.run(check_no_leaks(engine))


def test_every_value_of_every_type_comes_back(database):
    """Documents of all columns, written by upsert and in bulk, are read as they were, with or without NULLs."""
    with running(database, ALL) as (store, run):

        async def written_and_read(doc):
            await store.upsert("kinds", 1, doc)
            await store.bulk_upsert("kinds", [{"id": 2} | doc, {"id": 1} | doc])
            return await store.find_many("kinds", [1, 2])

        @settings(max_examples=200, deadline=None)
        @given(st.fixed_dictionaries(VALUES))
        def check(doc):
            first, second = run(written_and_read(doc))
            assert first == {"id": 1} | doc
            assert second == {"id": 2} | doc

        check()


ANYTHING = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    st.text(max_size=30),
    st.binary(max_size=40),
    st.dates(),
    st.times() | st.times(timezones=ZONES),
    st.datetimes() | st.datetimes(timezones=ZONES),
    st.uuids() | st.uuids().map(str),
    st.timedeltas(),
    st.complex_numbers(),
    st.fractions(),
    st.lists(st.none() | st.integers() | st.text() | st.floats(), max_size=3),
    st.dictionaries(st.text() | st.integers(), st.floats() | st.integers() | st.text(), max_size=3),
    st.sets(st.integers(), max_size=2),
    st.just(object()),
)


PYDANTIC_WRITES = set, bytes, Decimal, date, time, UUID, timedelta, complex, Fraction


def equal(given_, stored):
    """Tell whether a stored value is what was given; floats and text may stand for decimals, UUIDs and lists."""
    if isinstance(stored, UUID) and isinstance(given_, str):
        return UUID(given_) == stored
    if isinstance(stored, Decimal) and isinstance(given_, float):
        return float(stored) == given_
    if isinstance(given_, list) and isinstance(stored, list):
        return len(given_) == len(stored) and all(map(equal, given_, stored))
    if isinstance(given_, PYDANTIC_WRITES) and isinstance(stored, (str, list)):
        return True  # in JSON, as documented
    return given_ == stored


def test_any_value_is_refused_by_name_or_comes_back(database):
    """Whatever is given to whichever column, nothing else happens; a refused value leaves the old one there."""
    with running(database, ALL) as (store, run):
        run(store.upsert("kinds", 1, {}))

        async def tried(column, value):
            await store.upsert("kinds", 1, {column: None})
            try:
                await store.upsert("kinds", 1, {column: value})
            except ValueError as error:
                assert str(error).startswith(f"column {column!r}: ")  # noqa: PT017  (any reason will do)
                value = None
            return value, (await store.find_one("kinds", 1))[column]

        @settings(max_examples=800, deadline=None)
        @given(st.sampled_from(list(COLUMNS)), ANYTHING)
        def check(column, value):
            value, stored = run(tried(column, value))
            assert equal(value, stored)

        check()


MOMENT = datetime(2026, 5, 1, 8, tzinfo=UTC)
POOLS = {
    "customer": ["Ada", "ada", "A_a", "A%a", "a*", "[a]", "\\", "", "é", "😀a", "a\nb"],
    "status": [None, "new", "New", "n", "NULL"],
    "count": [None, -(2**31), -1, 0, 1, 2**31 - 1],
    "total": [None, Decimal("-1.50"), Decimal("0.00"), Decimal("0.10"), Decimal("99999999.99")],
    "ratio": [None, -1.5, 0.0, 0.1, 0.1 + 0.2, 5e-324, 1e300],
    "open": [None, True, False],
    "day": [None, date.min, date(2026, 5, 1), date.max],
    "clock": [None, time.min, time(8, 0, 0, 1), time.max],
    "moment": [None, MOMENT, MOMENT + timedelta(microseconds=1), MOMENT.astimezone(timezone(timedelta(hours=14)))],
    "uid": [None, UUID(int=0), UUID(int=1), UUID(int=2**127)],
}
THINGS = ProjectionSchema(
    collection="things",
    fields=[
        ("id", "INTEGER PRIMARY KEY"),
        ("customer", "TEXT NOT NULL"),
        ("status", "VARCHAR(10)"),
        ("count", "INTEGER"),
        ("total", "DECIMAL(10, 2)"),
        ("ratio", "DOUBLE PRECISION"),
        ("open", "BOOLEAN"),
        ("day", "DATE"),
        ("clock", "TIME"),
        ("moment", "TIMESTAMP"),
        ("uid", "UUID"),
    ],
)
TEXTS = {"customer", "status"}
PATTERNS = st.lists(st.sampled_from([*"aAn%_*?[]^!-é😀\n", r"\%", r"\_", r"\\", r"\a"]), max_size=5).map("".join)


@st.composite
def conditions(draw, name, depth=0):
    """A value or operators for one column; text has the database's own order, and so is not compared by it here."""
    some = st.sampled_from(POOLS[name])
    value = some.filter(lambda each: each is not None)
    options = [
        some,
        st.builds(lambda each: {"$eq": each}, some),
        st.builds(lambda each: {"$ne": each}, some),
        st.builds(lambda each: {"$in": each}, st.lists(some, max_size=4)),
        st.builds(lambda each: {"$nin": each}, st.lists(some, max_size=4)),
        st.builds(lambda each: {"$exists": each}, st.booleans()),
    ]
    if name in TEXTS:
        options += [st.builds(lambda each: {"$like": each}, PATTERNS)] * 2
    else:
        operators = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
        options += [st.dictionaries(operators, value, min_size=1, max_size=2)] * 2
    if depth < 2:
        inner = conditions(name, depth + 1).map(lambda each: each if isinstance(each, dict) else {"$eq": each})
        options.append(inner.map(lambda each: {"$not": each}))
    return draw(st.one_of(options))


ENTRIES = st.sampled_from(list(POOLS)).flatmap(lambda name: conditions(name).map(lambda value: {name: value}))
ONE_LEVEL = st.lists(ENTRIES, max_size=3).map(
    lambda entries: {key: value for each in entries for key, value in each.items()}
)
FILTERS = st.recursive(
    ONE_LEVEL,
    lambda inner: st.builds(
        lambda operator, filters, beside: {operator: filters[0] if operator == "$not" else filters} | beside,
        st.sampled_from(["$and", "$or", "$not"]),
        st.lists(inner, min_size=1, max_size=3),
        ONE_LEVEL,
    ),
    max_leaves=6,
)


def things(count):
    """Documents in which every value of every pool stands beside most of the others'."""
    return [
        {"id": number}
        | {name: pool[number * (7 + step) // (1 + step) % len(pool)] for step, (name, pool) in enumerate(POOLS.items())}
        for number in range(count)
    ]


def test_every_filter_finds_what_a_naive_evaluation_finds(database):
    """Columns of every comparable type, every operator, nested; counted as well."""
    documents = things(60)
    with running(database, THINGS) as (store, run):
        run(store.bulk_upsert("things", documents))

        async def found(filter_):
            return [row["id"] for row in await store.find("things", filter_)], await store.count("things", filter_)

        @settings(max_examples=200, deadline=None)
        @given(FILTERS)
        def check(filter_):
            expected = [document["id"] for document in documents if naive(document, filter_)]
            assert run(found(filter_)) == (expected, len(expected))

        check()


SORTS = st.lists(st.tuples(st.sampled_from(["id", *POOLS]), st.sampled_from([1, -1])), max_size=4)


def test_pages_behind_a_cursor_visit_every_row_once(database):
    """Whatever the sort, the size of the pages and the filter: together they are the list in its order."""
    with running(database, THINGS, given=False) as (store, run):
        run(store.bulk_upsert("things", things(40)))

        async def paged(sort, size, filter_, *, whole_documents):
            everything = await store.find("things", filter_, sort)
            pages, last = [], None
            while page := await store.find("things", filter_, sort, size, after=last):
                pages += page
                last = (
                    page[-1]
                    if whole_documents
                    else {name: page[-1][name] for name in ["id", *(name for name, _ in sort)]}
                )
            return pages, everything

        @settings(max_examples=60, deadline=None)
        @given(SORTS, st.integers(4, 15), st.just(None) | ONE_LEVEL, st.booleans())
        def check(sort, size, filter_, whole_documents):
            pages, everything = run(paged(sort, size, filter_, whole_documents=whole_documents))
            assert pages == everything
            if filter_ is None:
                assert sorted(row["id"] for row in pages) == list(range(40))

        check()


def test_every_sort_puts_nulls_first_and_ties_in_the_order_of_the_key(database):
    """The rows come as Python sorts them, text left out, whose order is the database's own."""
    documents = things(40)
    sorts = st.lists(st.tuples(st.sampled_from(sorted(POOLS.keys() - TEXTS)), st.sampled_from([1, -1])), max_size=3)
    with running(database, THINGS) as (store, run):
        run(store.bulk_upsert("things", documents))

        @settings(max_examples=60, deadline=None)
        @given(sorts)
        def check(sort):
            expected = documents
            for name, direction in reversed(sort):
                nulls = [each for each in expected if each[name] is None]
                others = [each for each in expected if each[name] is not None]
                expected = nulls + sorted(others, key=lambda each: each[name], reverse=direction == -1)
            assert [row["id"] for row in run(store.find("things", sort=sort))] == [each["id"] for each in expected]

        check()
