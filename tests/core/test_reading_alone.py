"""Reads outside of a unit of work: single statements, without a transaction and a session around them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemySnapshotStore
from cqrs_ddd_persistence_sqlalchemy.core.alone import engine_without_sessions
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_SQLITE


@pytest.fixture
async def written(session_factory):
    """A position, a snapshot and some events."""
    await SQLAlchemyProjectionPositionStore(session_factory).save_position("p", 3)
    await SQLAlchemySnapshotStore(session_factory=session_factory).save_snapshot("Order", "a", {"n": [1]}, 2)
    await SQLAlchemyEventStore(session_factory).append([an_event("a"), an_event("b")])


async def read_all(factory):
    """Read them in the ways that there are."""
    positions = SQLAlchemyProjectionPositionStore(factory)
    snapshot = await SQLAlchemySnapshotStore(session_factory=factory).get_latest_snapshot("Order", "a")
    store = SQLAlchemyEventStore(factory)
    return (
        await positions.get_position("p"),
        (snapshot["snapshot_data"], snapshot["created_at"].utcoffset().total_seconds()),
        [event.aggregate_id for event in await everything(store)],
        [event.version for event in await store.get_events("b")],
        await store.last_position(),
    )


EXPECTED = (3, ({"n": [1]}, 0), ["a", "b"], [1], 2)


@ONLY_SQLITE
async def test_they_begin_no_transaction(engine, session_factory, written):
    """What workers and readers ask for again and again is read without BEGIN, so without anything to end."""
    sent = []
    await engine.dispose()

    @sa.event.listens_for(engine.sync_engine, "connect")
    def trace(connection, _record):
        connection.run_async(lambda driver: driver.set_trace_callback(sent.append))

    await SQLAlchemyProjectionPositionStore(session_factory).get_position("p")
    await SQLAlchemySnapshotStore(session_factory=session_factory).get_latest_snapshot("Order", "a")
    await everything(SQLAlchemyEventStore(session_factory))
    sent = [statement for statement in sent if not statement.startswith("PRAGMA")]
    assert {statement.split()[0] for statement in sent} == {"SELECT"}
    assert engine_without_sessions(session_factory, write=False) is engine
    assert engine_without_sessions(session_factory) is engine


async def test_they_see_what_is_committed(session_factory, written):
    """Reads of all kinds return what was written, in the types that it has."""
    assert await read_all(session_factory) == EXPECTED


async def test_it_is_no_different_where_statements_are_listened_to(engine, session_factory, written):
    """SQLAlchemy executes what somebody wants to see."""
    seen = []
    sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    assert await read_all(session_factory) == EXPECTED
    assert sum("FROM snapshots" in statement for statement in seen) == 1


async def test_a_session_class_of_the_application_is_used(engine, written):
    """Who makes sessions of a class of their own has a reason to."""

    class Session(AsyncSession):
        pass

    own = async_sessionmaker(engine, class_=Session)
    assert engine_without_sessions(own, write=False) is None
    assert await read_all(own) == EXPECTED


async def test_they_wait_for_no_writer(session_factory, written):
    """A transaction that writes keeps nobody from reading what was there before."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await SQLAlchemyProjectionPositionStore().save_position("p", 9, uow=uow)
        assert await read_all(session_factory) == EXPECTED


@ONLY_SQLITE
async def test_a_read_that_fails_leaves_the_connection_usable(engine, session_factory, written):
    """An error ends the statement and nothing else."""
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE snapshots RENAME TO elsewhere"))
    with pytest.raises(Exception, match="snapshots"):
        await read_all(session_factory)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO snapshots"))
    assert await read_all(session_factory) == EXPECTED
