"""Single operations on a connection that lies in the pool: whatever becomes of the pool, nothing is lost or stuck."""

from __future__ import annotations

import asyncio
import gc
import logging
from itertools import count

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.util import greenlet_spawn

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.core.alone import lone_connection
from cqrs_ddd_persistence_sqlalchemy.core.dialect import lone
from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError
from tests.support.engines import checked_out
from tests.support.kinds import ONLY_SQLITE, PAST_SQLALCHEMY
from tests.support.waiting import until


@pytest.fixture
def positions(session_factory):
    """A store whose operations are single statements."""
    return SQLAlchemyProjectionPositionStore(session_factory)


@pytest.fixture
def taken(monkeypatch):
    """Notes of each operation whether it took a connection that lay in the pool."""
    noted, gives_at_once = [], lone._gives_at_once

    def noting(pool):
        noted.append(gives_at_once(pool))
        return noted[-1]

    monkeypatch.setattr(lone, "_gives_at_once", noting)
    return noted


@PAST_SQLALCHEMY
async def test_what_lies_in_the_pool_is_taken(database, positions, taken, make_engine):
    """From the second operation on, writing and reading find the connection of the one before, and commit."""
    for position in (1, 2, 3):
        await positions.save_position("p", position)
    assert await positions.get_position("p") == 3
    assert taken == [False, True, True, True]
    another = async_sessionmaker(configure_engine(make_engine(database.url)))
    assert await SQLAlchemyProjectionPositionStore(another).get_position("p") == 3


@pytest.mark.parametrize("options", [{"pool_recycle": 0}, {"pool_pre_ping": True}, {"pool_use_lifo": True}])
async def test_options_of_the_pool_hold(database, make_engine, options):
    """Connections that are to be opened again or asked first are, and the last one in may be the first one out."""
    engine = configure_engine(make_engine(database.url, **options))
    opened, asked = [], []
    sa.event.listen(engine.sync_engine, "connect", lambda *_: opened.append(1))
    ping = engine.sync_engine.dialect.do_ping
    engine.sync_engine.dialect.do_ping = lambda connection: asked.append(1) or ping(connection)
    positions = SQLAlchemyProjectionPositionStore(async_sessionmaker(engine))
    for position in range(4):
        await positions.save_position("p", position)
        await asyncio.sleep(0.01)
    assert await positions.get_position("p") == 3
    assert (len(opened) > 1) == ("pool_recycle" in options)
    assert bool(asked) == ("pool_pre_ping" in options)


@pytest.mark.parametrize("soft", [True, False])
async def test_a_connection_that_is_invalidated_is_opened_again(positions, engine, soft):
    """Whether it is thrown away at once or when it is next taken."""
    await positions.save_position("p", 1)
    async with engine.connect() as connection:
        (await connection.get_raw_connection()).invalidate(soft=soft)
    await positions.save_position("p", 2)
    assert await positions.get_position("p") == 2


async def test_more_at_once_than_the_pool_keeps(database, make_engine):
    """Those that the pool has no room for are closed; all are there for the next ones."""
    engine = configure_engine(make_engine(database.url, pool_size=1, max_overflow=4))
    positions = SQLAlchemyProjectionPositionStore(async_sessionmaker(engine))
    for n in range(4):
        await asyncio.gather(*(positions.save_position(f"p{each}", n) for each in range(8)))
        assert await asyncio.gather(*(positions.get_position(f"p{each}") for each in range(8))) == [n] * 8
    assert checked_out(engine) == 0


@pytest.mark.parametrize("event", ["checkout", "checkin", "engine_connect"])
async def test_who_listens_to_connections_hears_of_each(positions, engine, event):
    """An application that sets something on each connection that it takes, or counts them, misses none."""
    await positions.save_position("p", 1)
    heard = []
    sa.event.listen(engine.sync_engine, event, lambda *_: heard.append(1))
    await positions.save_position("p", 2)
    await positions.get_position("p")
    assert len(heard) == 2


async def test_an_error_is_what_it_was_and_ends_nothing_else(positions, engine):
    """A missing table is named on a connection of the pool's, which serves the next operations."""
    await positions.save_position("p", 1)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE projection_positions RENAME TO elsewhere"))
    for _ in range(3):
        with pytest.raises(SchemaOutOfDateError, match="projection_positions"):
            await positions.save_position("p", 2)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO projection_positions"))
    await positions.save_position("p", 2)
    assert await positions.get_position("p") == 2
    assert checked_out(engine) == 0


# A connection that aiosqlite is cancelled in opening is closed as it is collected, of which Python 3.13 warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_cancelled_while_it_runs(positions, engine):
    """Whenever it is cancelled, an operation is done or not done, and its connection is not lost."""
    await positions.save_position("p", 0)
    for n in range(1, 40):
        saving = asyncio.create_task(positions.save_position("p", n))
        for _ in range(n % 5):
            await asyncio.sleep(0)
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
    await until(lambda: checked_out(engine) == 0)
    await positions.save_position("p", 100)
    assert await positions.get_position("p") == 100
    gc.collect()


@ONLY_SQLITE
async def test_given_up_before_its_turn_it_writes_nothing_later(positions, engine, database):
    """Who is cancelled while another process writes will not be heard of when that ends."""
    await positions.save_position("p", 1)
    async with engine.begin() as other:
        await other.execute(sa.text("UPDATE projection_positions SET position = 5"))
        saving = asyncio.create_task(positions.save_position("p", 9))
        await asyncio.sleep(0.1)
        saving.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await saving
    await until(lambda: checked_out(engine) == 0)
    assert await positions.get_position("p") == 5


@ONLY_SQLITE
async def test_an_engine_that_is_not_configured_begins_as_stores_need_it(database, make_engine, taken):
    """Python's sqlite3 would begin at the first write, and wait for nobody: writes go through a session there."""
    positions = SQLAlchemyProjectionPositionStore(async_sessionmaker(make_engine(database.url)))
    await positions.save_position("p", 1)
    await positions.save_position("p", 2)
    assert taken == []
    assert await positions.get_position("p") == 2


@ONLY_SQLITE
async def test_a_locked_database_is_an_error_in_the_end(database, make_engine):
    """The busy timeout holds; afterwards the connection is as good as before."""
    engine = configure_engine(make_engine(database.url))

    @sa.event.listens_for(engine.sync_engine, "connect")
    def hurry(connection, _record):
        connection.run_async(lambda driver: driver.execute("PRAGMA busy_timeout = 50"))

    positions = SQLAlchemyProjectionPositionStore(async_sessionmaker(engine))
    await positions.save_position("p", 1)
    async with engine.begin() as other:
        await other.execute(sa.text("UPDATE projection_positions SET position = 5"))
        with pytest.raises(DBAPIError, match="locked"):
            await positions.save_position("p", 9)
    await positions.save_position("p", 10)
    assert await positions.get_position("p") == 10


@PAST_SQLALCHEMY
async def test_an_engine_that_is_disposed_of_meanwhile(database, make_engine, caplog):
    """A connection goes back to the pool that it is of, though the engine has another; where that is full, it ends."""
    engine = configure_engine(make_engine(database.url, pool_size=1, max_overflow=1))
    async with engine.connect():
        pass
    alone, other, pool = await lone_connection(engine, write=False), await engine.connect(), engine.sync_engine.pool
    await engine.dispose()
    await other.close()
    await alone.give_back(commit=True)
    assert pool.checkedin() == 1
    await greenlet_spawn(pool.dispose)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_who_waits_for_a_connection_gets_it(database, make_engine):
    """A task that goes on and on does not take the only connection again from under those who wait for it."""
    engine = configure_engine(make_engine(database.url, pool_size=1, max_overflow=0, pool_timeout=5))
    positions = SQLAlchemyProjectionPositionStore(async_sessionmaker(engine))
    await positions.save_position("p", 0)

    async def work():
        for number in count():
            await positions.save_position("busy", number)

    busy = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    for _ in range(5):
        assert await positions.get_position("p") == 0
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
