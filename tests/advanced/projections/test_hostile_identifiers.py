"""Names that must not reach SQL, wherever a name can be given; and awkward ones that simply work."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.schema import ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore

from .conftest import ORDERS

NOT_TEXT = [None, 5, 1.5, True, b"orders", ("orders",), frozenset({"orders"}), object, Ellipsis]

HOSTILE = [
    "", " ", "\t", "\n", "\0", ";", "--", "*", "%", "?", ":a", "$1", "$$", "@a", "#a", "\\", "/**/",
    "orders; DROP TABLE orders", "orders; DROP TABLE orders; --", "orders--", "orders -- ", "orders/**/", "orders #",
    "orders' OR '1'='1", 'orders" OR "1"="1', "orders) OR (1=1", "1 OR 1=1", "orders UNION SELECT 1",
    "'orders'", '"orders"', "`orders`", "[orders]", 'or"ders', 'orders"', '"', '""', "orders'", "or`ders", "orders\\",
    "public.orders", "main.orders", "orders.id", ".orders", "orders.", "orders..id", "orders::text", "orders[1]",
    "id()", "orders id", " orders", "orders ", "orders\n", "\norders", "orders\r", "orders\t", "orders\0", "\0orders",
    "or\0ders",    "orders\x0b", "orders\x0c", "orders\x1b", "orders\x7f", "orders\x85", "orders\u2028", "orders\u2029",
    "1orders", "9", "-orders", "order-s", "orders$", "or$ders", "orders%s", "%(orders)s", "{orders}", "orders:x",
    "a" * 64, "_" * 64, "a" * 10_000, "a" * 63 + "\n", "\u00e9" * 32,
    "\u03bfrders", "\u043erders", "\uff4frders", "orders\u0301", "\u00f6rders", "\u017forders", "\u0131d", "\u2160d",
    "orders\u200b", "\u200borders", "or\u200dders", "\ufefforders", "\u202eorders", "orders\u00a0", "orders\u00ad",
    "orders\u0661", "\u0661", "a\u00b2", "\u8868", "\U0001f642", "orders\ud800", "\ud800",
]  # fmt: skip


def refused(kind, name):
    """Expect the one message for names, and what may follow it."""
    return pytest.raises(ValueError, match=r"(?s)\A" + re.escape(f"Invalid SQL {kind} name: {name!r}"))


@pytest.mark.parametrize("name", [*HOSTILE, *NOT_TEXT], ids=ascii)
def test_no_schema_takes_a_hostile_name(name):
    """Collections, columns, keys and indexes are refused when the schema is made."""
    fields = [("id", "INTEGER PRIMARY KEY")]
    with refused("table", name):
        ProjectionSchema(collection=name, fields=fields)
    with refused("column", name):
        ProjectionSchema(collection="c", fields=[*fields, (name, "INTEGER")])
    with refused("column", name):
        ProjectionSchema(collection="c", fields=fields, indexes=[ProjectionIndex([name])])
    with refused("column", name):
        ProjectionSchema(collection="c", fields=fields, indexes=[ProjectionIndex("id", descending=[name])])
    with pytest.raises(SchemaError, match=re.escape(repr(name))):
        ProjectionSchema(collection="c", fields=fields, indexes=[ProjectionIndex("id", where={name: 1})])
    with pytest.raises(SchemaError, match=re.escape(f"primary_key names an unknown column {name!r}")):
        ProjectionSchema(collection="c", fields=fields, primary_key=[name])
    if name:  # neither '' nor None asks for a name
        with refused("index", name):
            ProjectionSchema(collection="c", fields=fields, indexes=[ProjectionIndex("id", name=name)])


@pytest.mark.parametrize("name", [*HOSTILE, *NOT_TEXT], ids=ascii)
def test_no_store_is_made_with_a_hostile_name(name):
    """The name of a table, of a schema and of the id column are refused before there is any database."""
    with refused("table", name):
        SQLAlchemyProjectionPositionStore(table_name=name)
    if name is None:  # the default
        return
    with refused("column", name):
        SQLAlchemyProjectionStore(default_id_column=name)
    for store in (SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore):
        with refused("schema", name):
            store(schema=name)


@pytest.fixture
async def contents(engine, store):
    """Two orders, and a function that returns the names of all tables and what is in two of them."""
    for number in (1, 2):
        await store.upsert("orders", f"o{number}", {"customer": "Ada", "total": number})

    async def read():
        async with engine.connect() as connection:
            tables = await connection.run_sync(lambda sync: sorted(sa.inspect(sync).get_table_names()))
        return tables, await store.find("orders"), await store.find("order_lines")

    return read


async def test_a_hostile_collection_is_refused_by_every_method(session_factory, store, contents, statements):
    """Before anything is sent, with one message, in a unit of work that goes on and is committed."""
    before = await contents()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.count("orders", uow=uow)
        statements.clear()
        for name in [*HOSTILE, *NOT_TEXT, ["orders"], {"orders": 1}]:
            for call in (
                store.upsert(name, "o1", {"customer": "Eve"}, uow=uow),
                store.bulk_upsert(name, [{"id": "o1", "customer": "Eve"}], uow=uow),
                store.bulk_upsert(name, [{"id": "o1", "customer": "Eve"}], "id", uow=uow),
                store.delete(name, "o1", uow=uow),
                store.truncate(name, uow=uow),
                store.find_one(name, "o1", uow=uow),
                store.find_many(name, ["o1"], uow=uow),
                store.find(name, uow=uow),
                store.count(name, uow=uow),
                anext(store.stream(name, uow=uow)),
                store.collection_exists(name, uow=uow),
                store.ensure_collection(name, schema=ORDERS, uow=uow),
            ):
                with refused("table", name):
                    await call
        assert statements == []
        await store.upsert("orders", "o2", {"total": 2, "_version": 1}, uow=uow)
    assert await contents() == before


async def test_a_hostile_column_is_refused_wherever_columns_are_named(session_factory, store, contents):
    """Documents, filters, sorts, cursors and id columns take the table's own columns only; the uow goes on."""
    before = await contents()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for name in [*HOSTILE, *NOT_TEXT]:
            for call in (
                store.upsert("orders", "o1", {name: 1}, uow=uow),
                store.upsert("orders", "o9", {"customer": "Eve", name: 1}, uow=uow),
                store.bulk_upsert("orders", [{"id": "o1", "total": 7}, {"id": "o1", name: 1}], uow=uow),
                *([] if str(name).startswith("$") else _filtered(store, name, uow)),
                store.find("orders", sort=[(name, 1)], uow=uow),
                anext(store.stream("orders", sort=[("id", 1), (name, -1)], uow=uow)),
            ):
                with refused("column", name):
                    await call
            if name is not None:
                with refused("column", name):
                    await store.bulk_upsert("orders", [{"id": "o1", "total": 7}], name, uow=uow)
        await store.upsert("orders", "o2", {"total": 2, "_version": 1}, uow=uow)
    assert await contents() == before


def _filtered(store, name, uow):
    return (
        store.find("orders", {name: 1}, uow=uow),
        store.count("orders", {"$or": [{"id": "o1"}, {name: {"$gt": 1}}]}, uow=uow),
        store.find("orders", {"$not": {"$and": [{name: None}]}}, uow=uow),
        anext(store.stream("orders", {name: {"$exists": True}}, uow=uow)),
    )


@pytest.mark.parametrize("name", ["$1", "$$", "$", "$where", "$and ", "$or\n", "$AND", "$and\0", "$\u0430nd"])
async def test_a_hostile_operator_is_named(store, made, name):
    """What begins like an operator is refused as one, around columns and behind them."""
    for filter_ in ({name: 1}, {"$or": [{name: []}]}, {"id": {name: 1}}, {"id": {"$not": {name: 1}}}):
        with pytest.raises(ValueError, match=r"(?s)unknown operator " + re.escape(repr(name))):
            await store.find("orders", filter_)


async def test_a_key_with_a_hostile_column_is_refused(session_factory, store, contents):
    """A dict that identifies a document has the key's columns and no others, for one column and for several."""
    before = await contents()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for name in [*HOSTILE, *NOT_TEXT]:
            for collection, key in (("orders", {name: "o1"}), ("order_lines", {"order": "o1", name: 1})):
                for call in (
                    store.upsert(collection, key, {}, uow=uow),
                    store.delete(collection, key, uow=uow),
                    store.find_one(collection, key, uow=uow),
                    store.find_many(collection, [key], uow=uow),
                ):
                    with pytest.raises(ValueError, match=r"Invalid SQL column name: |\Adoc_id has \["):
                        await call
        await store.upsert("orders", "o2", {"total": 2, "_version": 1}, uow=uow)
    assert await contents() == before
