"""Streams hold a few rows and one connection, and give the connection back however they end, on both databases."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextlib import aclosing

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError
from tests.support.engines import check_no_leaks, create_async_engine

PAGES = ProjectionSchema(collection="pages", fields=[("id", "INTEGER PRIMARY KEY"), ("text", "TEXT")])
SIZE = 10_000
COUNT = 2_000


@pytest.fixture
async def engine(database):
    """An engine with one connection: whoever does not give it back, is found out by the next."""
    made = configure_engine(
        create_async_engine(database.url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=5)
    )
    yield made
    await check_no_leaks(made)


@pytest.fixture
async def pages(engine):
    """Twenty megabytes of documents."""
    sessions = async_sessionmaker(engine)
    store = SQLAlchemyProjectionStore(sessions, allow_auto_ddl=True)
    await store.ensure_collection("pages", schema=PAGES)
    for start in range(0, COUNT, 100):
        await store.bulk_upsert("pages", ({"id": n, "text": f"{n:0{SIZE}}"} for n in range(start, start + 100)))
    return store


async def test_a_stream_holds_a_few_rows_at_a_time(pages):
    """Of twenty megabytes no more than four are in memory at once, from the first row to the last."""
    gc.collect()
    tracemalloc.start()
    try:
        seen = 0
        async for row in pages.stream("pages"):
            assert row["id"] == seen
            seen += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == COUNT
    assert peak < SIZE * COUNT / 5


async def test_a_loop_left_early_gives_the_connection_back(pages):
    """By break and by an exception, without closing the stream: the next operation has the only connection."""
    for _ in range(3):
        async for row in pages.stream("pages"):
            if row["id"] == 3:
                break
        assert await pages.count("pages") == COUNT

    async def fail():
        async for _ in pages.stream("pages"):
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await pages.count("pages") == COUNT


async def test_a_stream_closed_early_gives_the_connection_back_at_once(pages, engine):
    """Before the block that closes it is left."""
    async with aclosing(pages.stream("pages")) as rows:
        await anext(rows)
        assert engine.sync_engine.pool.checkedout() == 1
    assert engine.sync_engine.pool.checkedout() == 0


@pytest.mark.parametrize("rows_before", [0, 1, 60])
async def test_a_cancelled_stream_gives_the_connection_back(pages, rows_before):
    """Wherever the cancellation finds it: as it begins, between rows, and while it waits for more."""
    reached = asyncio.Event()

    async def read():
        seen = 0
        if rows_before == 0:
            reached.set()
        async for _ in pages.stream("pages"):
            seen += 1
            if seen == rows_before:
                reached.set()
            await asyncio.sleep(0)

    for _ in range(5):
        reached.clear()
        task = asyncio.create_task(read())
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        assert await pages.count("pages") == COUNT


async def test_a_stream_that_cannot_begin_gives_the_connection_back(pages):
    """A bad filter and a missing collection leave nothing open."""
    with pytest.raises(ValueError, match="has no column 'nope'"):
        await anext(pages.stream("pages", {"nope": 1}))
    with pytest.raises(CollectionNotFoundError):
        await anext(pages.stream("nowhere"))
    assert await pages.count("pages") == COUNT


async def test_a_stream_never_begun_takes_no_connection(pages, engine):
    """Asking for one is not yet reading."""
    stream = pages.stream("pages")
    assert engine.sync_engine.pool.checkedout() == 0
    await stream.aclose()


async def test_a_stream_in_a_unit_of_work_leaves_its_connection_usable(pages, engine):
    """Left early, it hinders neither the next statement nor the commit."""
    async with SQLAlchemyUnitOfWork(async_sessionmaker(engine, class_=AsyncSession)) as uow:
        async for row in pages.stream("pages", uow=uow):
            await pages.upsert("pages", row["id"], {"text": "seen"}, uow=uow)
            if row["id"] == 3:
                break
        assert await pages.count("pages", {"text": "seen"}, uow=uow) == 4
    assert await pages.count("pages", {"text": "seen"}) == 4
