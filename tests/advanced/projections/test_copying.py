"""Batches that are copied and merged where the database can: no other rows than one after the other."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql import PostgreSQL

MANY = 500  # more than are worth copying
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


@pytest.fixture
def copies(monkeypatch):
    """How many batches were copied."""
    made, copy = [], PostgreSQL.copy_rows

    async def noted(self, connection, table, columns, rows):
        made.append(len(rows))
        return await copy(self, connection, table, columns, rows)

    monkeypatch.setattr(PostgreSQL, "copy_rows", noted)
    return made


def doc(number, **further):
    return {"id": f"d{number}", "email": f"e{number}", "tags": ["a", "ü"], "data": {"n": [number, None]}} | further


async def test_rows_are_as_one_after_the_other_would_leave_them(store, engine, copies):
    """New rows get defaults, rows that are there keep what is not given and count their versions."""
    await store.bulk_upsert("copied", [doc(number, paid=True) for number in range(MANY // 2)])
    assert await store.bulk_upsert("copied", (doc(number) for number in range(MANY))) == MANY
    found = await store.find_many("copied", [f"d{number}" for number in range(MANY)])
    assert found == [doc(number, paid=number < MANY // 2, _version=1 + (number < MANY // 2)) for number in range(MANY)]
    assert copies == ([MANY // 2, MANY] if engine.dialect.name == "postgresql" else [])


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
