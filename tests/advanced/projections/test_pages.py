"""Many documents: pages, streams, several keys, deletion; on both databases."""

from __future__ import annotations

import random
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

START = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
async def orders(store):
    """Fifty orders, several of a kind, some without a time or total."""
    rng = random.Random(3)
    docs = [
        {
            "id": f"o{n:02}",
            "customer": rng.choice(["Ada", "Bob"]),
            "total": rng.choice([None, 1, 2, 3]),
            "placed_at": rng.choice([None, START, START + timedelta(days=1)]),
        }
        for n in range(50)
    ]
    await store.bulk_upsert("orders", docs)
    return store


@pytest.mark.parametrize(
    "sort",
    [
        None,
        [("total", 1)],
        [("total", -1), ("placed_at", 1)],
        [("placed_at", -1), ("total", -1), ("id", -1)],
        [("id", -1)],
        [("customer", 1), ("total", 1), ("placed_at", -1)],
    ],
)
async def test_keyset_pages_are_the_whole_in_order(orders, sort):
    """Pages of seven behind the last document of the page before add up to the list, NULLs included."""
    everything = await orders.find("orders", sort=sort, limit=100)
    pages, last = [], None
    while page := await orders.find("orders", sort=sort, limit=7, after=last):
        pages += page
        last = page[-1]
    assert pages == everything
    assert len(pages) == 50


async def test_keyset_pages_keep_to_the_filter(orders):
    """A filter and a cursor both hold."""
    first = await orders.find("orders", {"customer": "Ada"}, limit=5)
    second = await orders.find("orders", {"customer": "Ada"}, limit=5, after={"id": first[-1]["id"]})
    assert first + second == await orders.find("orders", {"customer": "Ada"}, limit=10)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"after": {"id": "o1"}, "offset": 1}, "offset and after are two ways"),
        ({"after": {"id": "o1"}, "sort": [("total", 1)]}, "after has no total"),
        ({"after": {}}, "after has no id"),
        ({"after": "o1"}, "after is the last document"),
        ({"after": {"id": 5}}, "column 'id': 5 does not fit"),
    ],
)
async def test_what_is_no_cursor_is_refused(orders, query, message):
    """A cursor has the columns that order the pages."""
    with pytest.raises(ValueError, match=message):
        await orders.find("orders", **query)


async def test_a_stream_has_every_document_in_order(orders, session_factory):
    """A stream by itself and one in a unit of work yield what find would."""
    expected = await orders.find("orders", {"customer": "Bob"}, [("total", -1)], limit=100)
    assert [row async for row in orders.stream("orders", {"customer": "Bob"}, [("total", -1)])] == expected
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert [row async for row in orders.stream("orders", {"customer": "Bob"}, [("total", -1)], uow=uow)] == expected


async def test_a_stream_shows_the_collection_as_it_was_when_it_began(orders):
    """Documents that are written meanwhile do not appear in it."""
    seen = 0
    async with aclosing(orders.stream("orders")) as stream:
        async for _ in stream:
            if seen == 0:
                await orders.upsert("orders", "zz", {"customer": "Late"})
            seen += 1
    assert seen == 50
    assert await orders.count("orders") == 51


async def test_a_stream_that_is_left_early_gives_its_connection_back(orders, engine):
    """Closing the iterator ends its transaction; the leak check of the fixture looks too."""
    async with aclosing(orders.stream("orders")) as stream:
        await anext(stream)
    assert engine.sync_engine.pool.checkedout() == 0


async def test_several_keys_are_found_in_their_order(orders):
    """Missing keys are None, repeated ones repeated."""
    found = await orders.find_many("orders", ["o07", "nope", "o01", "o07"])
    assert [row and row["id"] for row in found] == ["o07", None, "o01", "o07"]
    assert await orders.find_many("orders", []) == []
    with pytest.raises(ValueError, match="doc_ids is a list of keys"):
        await orders.find_many("orders", "o01")


async def test_several_composite_keys_are_found(store):
    """Thousands of keys of two columns, more than a statement has parameters."""
    await store.bulk_upsert("order_lines", ({"order": f"o{n % 3}", "Line": n} for n in range(3000)))
    keys = [{"order": f"o{n % 3}", "Line": n} for n in range(3000)] + [{"order": "o9", "Line": 1}]
    found = await store.find_many("order_lines", keys)
    assert [row and row["Line"] for row in found] == [*range(3000), None]


async def test_a_document_is_deleted_once(orders):
    """The second deletion finds nothing."""
    assert await orders.delete("orders", "o01") is True
    assert await orders.delete("orders", "o01") is False
    assert await orders.find_one("orders", "o01") is None


async def test_a_deletion_may_expect_a_version(orders, session_factory):
    """Another version is a conflict that leaves the transaction usable."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(OptimisticConcurrencyError, match="expected version 5, found 1"):
            await orders.delete("orders", "o01", expected_version=5, uow=uow)
        assert await orders.delete("orders", "o01", expected_version=1, uow=uow) is True
        await uow.commit()
    with pytest.raises(OptimisticConcurrencyError, match="expected version 1, found None"):
        await orders.delete("orders", "o01", expected_version=1)
    assert await orders.count("orders") == 49


async def test_truncate_empties_a_collection_in_the_callers_transaction(orders, session_factory):
    """All documents go, and come back when the unit of work rolls back."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert await orders.truncate("orders", uow=uow) == 50
        assert await orders.count("orders", uow=uow) == 0
        await uow.rollback()
    assert await orders.count("orders") == 50
