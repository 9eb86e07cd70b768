"""Awkward names that simply work, and legal ones that a database does not leave to tables or columns."""

from __future__ import annotations

import re
from enum import Enum

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.projections.schema import ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

SQLITE_KEYWORDS = set(
    re.findall(
        r"\S+",
        """
        abort action add after all alter always analyze and as asc attach autoincrement before begin between by
        cascade case cast check collate column commit conflict constraint create cross current current_date
        current_time current_timestamp database default deferrable deferred delete desc detach distinct do drop
        each else end escape except exclude exclusive exists explain fail filter first following for foreign
        from full generated glob group groups having if ignore immediate in index indexed initially inner insert
        instead intersect into is isnull join key last left like limit match materialized natural no not nothing
        notnull null nulls of offset on or order others outer over partition plan pragma preceding primary query
        raise range recursive references regexp reindex release rename replace restrict returning right rollback
        row rows savepoint select set table temp temporary then ties to transaction trigger unbounded union
        unique update using vacuum values view virtual when where window with without
        """,
    )
)

AWKWARD = [
    "order", "User", "SELECT", "from", "Where", "group", "table", "column",
    "index", "limit", "offset", "default", "null", "true", "false", "all", "any", "array", "both", "collation",
    "concurrently", "current_date", "current_user", "end", "returning", "tablesample", "window", "values",
    "_", "_x", "__", "_1", "x1", "a" * 63, "_" * 62 + "x", "B" * 63, "aB" * 31, "camelCase", "Oid", "rowid", "_rowid_",
    "g_version", "Ctid", "XMIN", "tuple", "p_id", "keys", "param_1", "id_1", "count_1", "anon_1", "new", "old",
]  # fmt: skip

SYSTEM = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"]


async def test_awkward_names_simply_work(session_factory):
    """Each is a table, its key and an indexed column; every method takes it, types read or given."""
    for name in AWKWARD:
        await _use(session_factory, name)


async def _use(session_factory, name):
    other = "b" if name.lower() != "b" else "c"
    schema = ProjectionSchema(
        collection=name,
        fields=[(name, "VARCHAR(20) PRIMARY KEY"), (other, "INTEGER UNIQUE"), ("_version", "INTEGER DEFAULT 1")],
        indexes=[ProjectionIndex((name, other), descending=name, where={name: {"$ne": "x:y"}})],
    )
    maker = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await maker.ensure_collection(name, schema=schema)
    await maker.ensure_collection(name, schema=schema)
    for store in (
        SQLAlchemyProjectionStore(session_factory),
        SQLAlchemyProjectionStore(session_factory, schemas=[schema]),
    ):
        one, two = {name: "k1", other: 5, "_version": 1}, {name: "k2", other: None, "_version": 3}
        assert await store.upsert(name, "k1", {other: 4}, expected_version=0)
        assert await store.upsert(name, {name: "k1"}, {name: "k1", other: 5, "_version": 2}, expected_version=1)
        assert await store.bulk_upsert(name, [{name: "k1", "_version": 1}, two]) == 2
        assert await store.find(name, {name: {"$like": "k_"}, "$not": {name: "x"}}, [(name, -1)]) == [two, one]
        assert await store.find(name, sort=[(name, -1)], after=two) == [one]
        assert await store.find_many(name, ["k2", {name: "k1"}]) == [two, one]
        assert await store.bulk_upsert(name, [one], other) == 1
        with pytest.raises(ValueError, match=rf"column {other} of '{name}' is UNIQUE"):
            await store.upsert(name, "k2", {other: 5})
        assert [row async for row in store.stream(name, {name: "k1"})] == [one]
        assert await store.delete(name, "k2", expected_version=3)
        assert await store.truncate(name) == 1
        assert not await store.count(name)


async def test_every_keyword_is_a_column_and_a_collection(engine, session_factory):
    """All words that either database knows, in one table; and the reserved ones as the names of tables."""
    keywords = reserved = SQLITE_KEYWORDS
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            words = (await connection.execute(sa.text("SELECT word, catcode::text FROM pg_get_keywords()"))).all()
        keywords = keywords | {word for word, _ in words}
        reserved = {word for word, code in words if code in {"R", "T", "C"}}
    names = sorted(keywords - {"id"})
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    fields = [("id", "INTEGER PRIMARY KEY"), *((name, "INTEGER") for name in names)]
    await store.ensure_collection("words", schema=ProjectionSchema(collection="words", fields=fields))
    doc = {name: number for number, name in enumerate(names)}
    await store.upsert("words", 1, doc)
    await store.upsert("words", 1, doc)
    assert await store.find("words", doc, [(name, 1) for name in names][:400]) == [{"id": 1} | doc]
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for name in sorted(reserved):
            schema = ProjectionSchema(collection=name, fields=[(name, "INTEGER PRIMARY KEY")])
            await store.ensure_collection(name, schema=schema, uow=uow)
            await store.upsert(name, 1, {}, uow=uow)
            assert await store.find(name, {name: 1}, uow=uow) == [{name: 1}]


@pytest.mark.parametrize("name", SYSTEM)
async def test_a_system_column_is_refused_as_a_column_and_works_as_a_collection(session_factory, name):
    """PostgreSQL has such a column in each table already, so that none can be declared; tables may be called so."""
    fields = [("id", "INTEGER PRIMARY KEY")]
    with pytest.raises(ValueError, match=f"^Invalid SQL column name: {name!r}"):
        ProjectionSchema(collection="c", fields=[*fields, (name, "INTEGER")])
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection(name, schema=ProjectionSchema(collection=name, fields=fields))
    await store.upsert(name, 1, {})
    with pytest.raises(ValueError, match=f"has no column {name!r}"):
        await store.find(name, {name: 1})
    with pytest.raises(ValueError, match=f"has no column {name!r}"):
        await store.upsert(name, 1, {name: 1})
    assert await store.find(name) == [{"id": 1}]


class Name(str, Enum):  # noqa: UP042  such members are formatted as 'Name.CUSTOMER'
    CUSTOMER = "customer"
    TOTAL = "total"
    ORDERS = "orders"


async def test_members_of_a_text_enum_are_the_names_that_they_equal(store):
    """A column may be named by a member of a (str, Enum), before and after it was named by its text."""
    for number, doc in enumerate(({Name.CUSTOMER: "Ada", Name.TOTAL: 1}, {"customer": "Ada", "total": 1})):
        await store.upsert("orders", f"o{number}", doc)
        await store.bulk_upsert("orders", [{"id": f"b{number}"} | doc])
    found = await store.find("orders", {Name.CUSTOMER: "Ada", "$or": [{Name.TOTAL: {"$gt": 0}}]}, [(Name.TOTAL, 1)])
    assert [row["id"] for row in found] == ["b0", "b1", "o0", "o1"]
    assert await store.find(Name.ORDERS) == await store.find("orders")
    assert await store.collection_exists(Name.ORDERS)


async def test_columns_may_be_called_like_parameters(session_factory):
    """What begins like the names under which values are bound is a column like others."""
    names = ["id", "p_id", "p_p_id", "g_version", "p_g_version", "_version", "p__version", "keys", "param_1"]
    schema = ProjectionSchema(collection="t", fields=[(name, "INTEGER") for name in names], primary_key="id")
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection("t", schema=schema)
    doc = {name: number for number, name in enumerate(names, 1)}
    assert await store.upsert("t", 1, doc, expected_version=0)
    assert await store.upsert("t", 1, doc | {"_version": 7}, expected_version=6)
    assert await store.upsert("t", 1, {"p_id": 2})
    assert await store.bulk_upsert("t", [{"id": 1, "p_id": 2}]) == 1
    assert await store.find("t", {"p_id": 2, "keys": 8}) == [doc | {"_version": 9}]
    assert await store.delete("t", 1, expected_version=9)
