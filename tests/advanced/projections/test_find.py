"""Reading documents, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

MORNING = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)


@pytest.fixture
async def orders(store):
    """Four orders; two of them were never placed."""
    for number, (customer, total, placed) in enumerate(
        [("Ada", 10, MORNING), ("Bob", 20, None), ("Ada", None, MORNING + timedelta(hours=1)), ("Eve", 20, None)], 1
    ):
        doc = {"customer": customer, "total": total, "placed_at": placed}
        await store.upsert("orders", f"o{number}", doc)
    return store


async def ids(store, **query):
    return [row["id"] for row in await store.find("orders", **query)]


async def test_without_sort_the_key_orders(orders):
    """Documents come in the order of their key."""
    assert await ids(orders) == ["o1", "o2", "o3", "o4"]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({}, ["o1", "o2", "o3", "o4"]),
        (None, ["o1", "o2", "o3", "o4"]),
        ({"customer": "Ada"}, ["o1", "o3"]),
        ({"customer": "ada"}, []),
        ({"customer": "Ada", "total": 10}, ["o1"]),
        ({"total": Decimal("20.00")}, ["o2", "o4"]),
        ({"total": 20.0}, ["o2", "o4"]),
        ({"total": {"$gte": 10, "$lt": 20}}, ["o1"]),
        ({"total": None}, ["o3"]),
        ({"placed_at": None, "customer": "Eve"}, ["o4"]),
        ({"placed_at": MORNING.astimezone(timezone(timedelta(hours=5)))}, ["o1"]),
    ],
)
async def test_a_filter_compares_columns_with_values(orders, filter_, expected):
    """All conditions hold; None matches NULL; times match whatever zone they are given in."""
    assert await ids(orders, filter=filter_) == expected


async def test_sort_puts_nulls_first_and_breaks_ties_by_the_key(orders):
    """Both directions are deterministic."""
    assert await ids(orders, sort=[("placed_at", 1)]) == ["o2", "o4", "o1", "o3"]
    assert await ids(orders, sort=[("placed_at", -1)]) == ["o2", "o4", "o3", "o1"]
    assert await ids(orders, sort=[("total", -1), ("id", -1)]) == ["o3", "o4", "o2", "o1"]


async def test_limit_and_offset_page(orders):
    """Pages follow each other without gaps."""
    assert [await ids(orders, limit=2, offset=n) for n in (0, 2, 4)] == [["o1", "o2"], ["o3", "o4"], []]
    assert await ids(orders, limit=0) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"filter": {"colour": "red"}}, "collection 'orders' has no column 'colour'"),
        ({"filter": {"total": {"$near": 5}}}, r"unknown operator '\$near' for column 'total'"),
        ({"filter": {"$nor": []}}, r"unknown operator '\$nor'"),
        ({"filter": {"total": "5"}}, "column 'total': '5' does not fit DECIMAL"),
        ({"filter": "total = 5"}, "filter is a dict"),
        ({"filter": {"id; DROP TABLE orders": 1}}, "Invalid SQL column name: 'id; DROP TABLE orders'"),
        ({"sort": [("colour", 1)]}, "collection 'orders' has no column 'colour'"),
        ({"sort": [("total", 2)]}, "sort direction of 'total' is 1"),
        ({"sort": [("total", True)]}, "sort direction of 'total' is 1"),
        ({"sort": "total"}, "sort is a list"),
        ({"sort": ["total"]}, "sort is a list"),
        ({"sort": ["id"]}, "sort is a list"),
        ({"sort": ""}, "sort is a list"),
        ({"sort": {}}, "sort is a list"),
        ({"sort": b"id"}, "sort is a list"),
        ({"sort": {"total": 1}}, "sort is a list"),
        ({"sort": 5}, "sort is a list"),
        ({"sort": [5]}, "sort is a list"),
        ({"sort": [None]}, "sort is a list"),
        ({"sort": [("total",)]}, "sort is a list"),
        ({"sort": [("total", 1, 1)]}, "sort is a list"),
        ({"sort": [{"total": 1, "id": 1}]}, "sort is a list"),
        ({"sort": iter([("total", 1)])}, "sort is a list"),
        ({"sort": ("total", 1)}, "sort is a list"),
        ({"sort": [("total", 0)]}, "sort direction of 'total' is 1"),
        ({"sort": [("total", None)]}, "sort direction of 'total' is 1"),
        ({"sort": [("total", "1")]}, "sort direction of 'total' is 1"),
        ({"sort": [("total", [1])]}, "sort direction of 'total' is 1"),
        ({"sort": [("total", 1.0)]}, "sort direction of 'total' is 1"),
        ({"sort": [(["total"], 1)]}, r"Invalid SQL column name: \['total'\]"),
        ({"limit": -1}, "limit must be a whole number"),
        ({"limit": None}, "limit must be a whole number"),
        ({"offset": 1.5}, "offset must be a whole number"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(orders, query, message):
    """Unknown columns and operators, and values that a column cannot hold, are named."""
    with pytest.raises(ValueError, match=message):
        await orders.find("orders", **query)


async def test_a_missing_document_is_none(orders):
    """There is no document under an unknown key."""
    assert await orders.find_one("orders", "o9") is None


async def test_a_composite_key_finds_one(store):
    """A dict of the key's columns identifies a document."""
    await store.upsert("order_lines", {"order": "o1", "Line": 2}, {"product": "pen"})
    assert (await store.find_one("order_lines", {"order": "o1", "Line": 2}))["product"] == "pen"
    assert await store.find_one("order_lines", {"order": "o1", "Line": 3}) is None


@pytest.mark.parametrize("collection", ["", "a b", "1a", "a\n", "ä", "x" * 64, 'a"b', "a;b", "a.b", None, 5])
async def test_a_bad_collection_name_never_reaches_the_database(store, collection):
    """Every operation refuses it with the same message."""
    for call in (
        store.find_one(collection, 1),
        store.find(collection),
        store.upsert(collection, 1, {}),
        store.bulk_upsert(collection, [{}]),
        store.collection_exists(collection),
    ):
        with pytest.raises(ValueError, match="^Invalid SQL table name: "):
            await call


async def test_collections_exist_or_not(store):
    """Only tables that are there exist."""
    assert await store.collection_exists("orders")
    assert not await store.collection_exists("nowhere")
