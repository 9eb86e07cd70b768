"""Batches that are copied and merged where the database can: no other rows than one after the other."""

from __future__ import annotations

import ipaddress

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

MANY = 4000  # twice as many as are worth copying
SCHEMA = ProjectionSchema(
    collection="copied",
    fields=[
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("email", "TEXT UNIQUE"),
        ("tags", "TEXT[]"),
        ("data", "JSONB"),
        ("paid", "BOOLEAN DEFAULT FALSE"),
        ("_version", "INTEGER DEFAULT 1"),
    ],
)


@pytest.fixture
async def store(session_factory):
    """A store with the collection in the database."""
    store = SQLAlchemyProjectionStore(session_factory, schemas=[SCHEMA], allow_auto_ddl=True)
    await store.ensure_collection("copied", schema=SCHEMA)
    return store


def doc(number, **further):
    return {"id": f"d{number}", "email": f"e{number}", "tags": ["a", "ü"], "data": {"n": [number, None]}} | further


async def test_rows_are_as_one_after_the_other_would_leave_them(store, engine, copied):
    """New rows get defaults, rows that are there keep what is not given and count their versions."""
    await store.bulk_upsert("copied", [doc(number, paid=True) for number in range(MANY // 2)])
    assert await store.bulk_upsert("copied", (doc(number) for number in range(MANY))) == MANY
    found = await store.find_many("copied", [f"d{number}" for number in range(MANY)])
    assert found == [doc(number, paid=number < MANY // 2, _version=1 + (number < MANY // 2)) for number in range(MANY)]
    assert copied == ([(MANY // 2, False), (MANY, False)] if engine.dialect.name == "postgresql" else [])


async def test_a_key_may_come_twice(store):
    """A batch with a key more than once is written in its order."""
    docs = [doc(number) for number in range(MANY)] + [doc(7, data={"again": True})]
    await store.bulk_upsert("copied", docs)
    assert (await store.find_one("copied", "d7")) == doc(7, data={"again": True}, paid=False, _version=2)


async def test_keys_that_only_the_database_takes_for_one(store, engine):
    """Where a collation makes two keys of a batch one, the later document changes the row of the first."""
    if engine.dialect.name == "postgresql":
        async with engine.begin() as connection:
            await connection.execute(
                sa.text(
                    "CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
                )
            )
            await connection.execute(sa.text("ALTER TABLE copied ALTER id TYPE varchar(50) COLLATE ignoring_case"))
        same = "D3"
    else:
        same = "d3"  # SQLite compares keys as Python does, unless the table was made in another way
    docs = [doc(number) for number in range(MANY)] + [doc(3, id=same, data={"again": True})]
    await store.bulk_upsert("copied", docs)
    assert await store.count("copied") == MANY
    assert (await store.find_one("copied", "d3"))["data"] == {"again": True}


async def test_a_batch_that_is_refused_leaves_the_unit_of_work_usable(store, session_factory):
    """A value that another row has, in a large batch, is named; nothing of the batch is written, the rest is."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.upsert("copied", "first", {"email": "mine"}, uow=uow)
        with pytest.raises(ValueError, match="column email of 'copied' is UNIQUE"):
            await store.bulk_upsert("copied", [*map(doc, range(MANY)), doc(MANY, email="mine")], uow=uow)
        await store.bulk_upsert("copied", map(doc, range(MANY, 2 * MANY)), uow=uow)
        await store.bulk_upsert("copied", [doc(number, data={}) for number in range(2 * MANY, 3 * MANY)], uow=uow)
    assert await store.count("copied") == 2 * MANY + 1


async def test_rolling_back_takes_all_of_it_back(store, session_factory):
    """What was copied and merged in a unit of work goes with it."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.bulk_upsert("copied", map(doc, range(MANY)), uow=uow)
        await uow.rollback()
    assert await store.count("copied") == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [("email", "a\0b"), ("email", 1), ("paid", 1), ("tags", "abc"), ("id", None), ("data", float("nan")), ("x", 1)],
)
async def test_one_bad_value_among_many_is_named(store, column, value):
    """The quick look at values lets none through that a close one refuses."""
    with pytest.raises(ValueError, match=column):
        await store.bulk_upsert("copied", [*map(doc, range(MANY)), doc(MANY, **{column: value})])
    assert await store.count("copied") == 0


async def made(session_factory, collection, *fields):
    """A store with one more collection."""
    schema = ProjectionSchema(collection=collection, fields=list(fields))
    store = SQLAlchemyProjectionStore(session_factory, schemas=[schema], allow_auto_ddl=True)
    await store.ensure_collection(collection, schema=schema)
    return store


@pytest.mark.parametrize(
    ("types", "values"),
    [
        (("DOUBLE PRECISION", "BIGINT"), (1.5, 5)),
        (("INTEGER", "BIGINT"), (1, 2**40)),
        (("INTEGER", "TEXT"), (1633771873, "aaaa")),
    ],
)
async def test_collections_with_the_same_names_and_other_types(engine, types, values):
    """On one connection, what the driver remembers of one collection's columns is not taken for another's."""
    sessions = async_sessionmaker(engine.execution_options())
    for number, (type_, value) in enumerate(zip(types, values, strict=True)):
        store = await made(sessions, f"same_{number}", ("k", "TEXT PRIMARY KEY"), ("v", type_))
        await store.bulk_upsert(f"same_{number}", [{"k": str(n), "v": value} for n in range(MANY)])
        assert (await store.find_one(f"same_{number}", "7"))["v"] == value


async def test_a_column_that_a_migration_widens_under_the_store(engine, session_factory):
    """Batches go on after a column's type has changed, and hold what only the new type takes once it is known."""
    store = await made(session_factory, "widened", ("k", "TEXT PRIMARY KEY"), ("v", "INTEGER"))
    await store.bulk_upsert("widened", [{"k": str(n), "v": n} for n in range(MANY)])
    if engine.dialect.name == "postgresql":
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE widened ALTER v TYPE BIGINT"))
    await store.bulk_upsert("widened", [{"k": str(n), "v": n + 1} for n in range(MANY)])
    fresh = SQLAlchemyProjectionStore(session_factory)
    large = 2**40 if engine.dialect.name == "postgresql" else 2**30
    await fresh.bulk_upsert("widened", [{"k": str(n), "v": large + n} for n in range(MANY)])
    assert [row["v"] for row in await fresh.find_many("widened", ["0", "1", "499"])] == [large, large + 1, large + 499]


async def test_types_outside_the_grammar(engine, session_factory):
    """A key and a column whose types the store does not know are left to the driver, in large batches too."""
    types = ("name", "inet") if engine.dialect.name == "postgresql" else ("NAME", "INET")
    async with engine.begin() as connection:
        await connection.execute(sa.text(f"CREATE TABLE foreign_types (id {types[0]} PRIMARY KEY, address {types[1]})"))
    store = SQLAlchemyProjectionStore(session_factory)
    address = ipaddress.ip_address("10.0.0.1") if engine.dialect.name == "postgresql" else "10.0.0.1"
    await store.bulk_upsert("foreign_types", [{"id": f"k{n}", "address": address} for n in range(MANY)])
    found = await store.find_many("foreign_types", ["k3", "k499", "x"])
    assert [row and row["id"] for row in found] == ["k3", "k499", None]
    assert str(found[0]["address"]).startswith("10.0.0.1")
