"""Adopting tables that are there, as the page says, with rows in them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.advanced.models import Base
from tests.docs.pages import DOCS, blocks
from tests.docs.running import Reader
from tests.support.command_line import column, execute
from tests.support.engines import create_async_engine

CUSTOMERS = (
    "CREATE TABLE customers (customer_id VARCHAR(50) NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL, orders INTEGER)"
)


@pytest.fixture
def old_database(empty_database, databases):
    """Another database of the same kind."""
    with databases.fresh(empty_database.kind, migrated=False) as fresh:
        yield fresh


@pytest.fixture
async def old(old_database):
    """An engine on a database whose tables `create_all` made, with three events and a saga."""
    engine = create_async_engine(old_database.url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for number in (1, 2, 3):
            event = {"event_id": f"e-{number}", "aggregate_id": "c-1", "aggregate_type": "Customer"}
            event |= {"event_type": "Ordered", "version": number, "payload": {}, "metadata": {}}
            event["occurred_at"] = datetime.now(UTC)
            await connection.execute(sa.insert(Base.metadata.tables["events"]).values(**event))
        saga = {"id": "s-1", "saga_type": "Trip", "status": "PENDING", "state": {}, "events": [], "version": 1}
        await connection.execute(sa.insert(Base.metadata.tables["sagas"]).values(**saga))
    yield engine
    await engine.dispose()


async def rows(database, query):
    return await asyncio.to_thread(column, database, query)


async def test_tables_are_adopted_with_their_rows(empty_database, old, tmp_path):
    """A hand-made table becomes a projection that later revisions change; events and sagas are copied."""
    await asyncio.to_thread(execute, empty_database, CUSTOMERS, "INSERT INTO customers VALUES ('c-1', 'Ann', 3)")
    engine = create_async_engine(empty_database.url)
    reader = Reader(tmp_path, empty_database, {"engine": engine, "old": old, "new": engine})
    try:
        with reader.at_work():
            for block in blocks(DOCS / "adopting.md"):
                await reader.do(block)
    finally:
        await engine.dispose()
    assert await rows(empty_database, "SELECT name FROM customers WHERE _last_event_position IS NULL") == ["Ann"]
    assert await rows(empty_database, "SELECT event_id FROM events ORDER BY position") == ["e-1", "e-2", "e-3"]
    assert await rows(empty_database, "SELECT id FROM sagas") == ["s-1"]
    assert len(list((tmp_path / "versions").glob("*create_customers.py"))) == 1
