"""The server crashes under load: runners reconnect by themselves, and no event is lost or counted twice."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.projections import Projection, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import ProjectionRunner, SQLAlchemyProjectionStore
from tests.support.databases import alembic
from tests.support.engines import create_async_engine
from tests.support.postgres import running_server

SCHEMA = ProjectionSchema("tallies", [("id", "TEXT PRIMARY KEY"), ("n", "INTEGER NOT NULL")])
TALLIES = Projection("tallies", SCHEMA)
CRASHES = 3


@TALLIES.fold("Counted")
def counted(row, event):
    return {"n": (row["n"] if row else 0) + 1}


@pytest.fixture
def crashing_server(monkeypatch):
    """A server of the test's own: others are not to be surprised."""
    monkeypatch.delenv("TEST_POSTGRES_URL", raising=False)
    with running_server() as server:
        yield server


async def test_runners_survive_a_crash_of_the_server(crashing_server):
    """Two runners and a writer go through three crashes; in the end the table has what the log has."""
    # Never through a proxy: the server is this test's own, and the setting is one that a proxy refuses.
    url = make_url(crashing_server.url)
    alembic("upgrade", "head", url=url.render_as_string(hide_password=False))
    # A commit that was acknowledged is to survive the crash.
    durable = {"server_settings": {"synchronous_commit": "on"}}
    engine = create_async_engine(url, connect_args=durable)
    sessions = async_sessionmaker(engine)
    events = SQLAlchemyEventStore(sessions, notify=True)
    store = SQLAlchemyProjectionStore(sessions, allow_auto_ddl=True)
    await store.ensure_collection("tallies", schema=SCHEMA)
    runners = [
        ProjectionRunner(events, TALLIES, lambda: SQLAlchemyUnitOfWork(sessions), batch_size=20) for _ in range(2)
    ]
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    stopped, progressed = asyncio.Event(), asyncio.Event()
    appended = 0

    async def write():
        nonlocal appended
        while not stopped.is_set():
            batch = [StoredEvent(aggregate_id=f"t{n}", event_type="Counted", payload={}) for n in range(5)]
            # SQLAlchemy 2.0 passes on what the driver raises while it connects.
            with contextlib.suppress(DBAPIError, OSError, asyncpg.PostgresError):
                await events.append(batch)
                appended += len(batch)
                if appended % 100 == 0:
                    progressed.set()
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(write())
    for _ in range(CRASHES):
        progressed.clear()
        await asyncio.wait_for(progressed.wait(), 60)
        await asyncio.to_thread(crashing_server.restart, "immediate")
    stopped.set()
    await writer
    last = await events.last_position()
    await runners[0].wait_for("tallies", last, timeout=60)
    stored = [event.aggregate_id async for event in events.stream_after(0)]
    assert {row["id"]: row["n"] for row in await store.find("tallies")} == {
        name: stored.count(name) for name in set(stored)
    }
    assert len(stored) >= appended
    for runner in runners:
        runner.stop()
    await asyncio.gather(*tasks)
    await engine.dispose()
